"""``smoothcluster demo``: crawl a small site, kill a Runner, and prove the takeover.

The demo needs neither a server nor a network: the site is the running Python's own library, a page for each module
(`site`), served on loopback, and the group lives in a sqlite file. The course of a demo (`command`)::

    start the site --> start the members (`stage`) --> submit the first page --> follow the links (`crawl`)
        --> kill a Runner with SIGKILL, half-way --> a Backup Runner takes over --> compare the outcomes with the site

Invariants: members are real processes of the same command as users start, and nothing in them knows that a demo runs.
The check at the end compares every page of the site, and a log that the handlers write themselves, with the recorded
outcomes.

On failure: the command ends with status 1 if a page has no outcome, or two. Ctrl-C ends all processes of the demo.

Begin reading with `command.demo`, then `stage`.
"""

from smoothcluster.cli.demo.command import demo

__all__ = ["demo"]
