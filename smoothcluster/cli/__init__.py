"""The command ``smoothcluster``: run members, submit tasks, and read the state of a group.

Each command is a module with a function of the same name, and the module calls `smoothcluster.cluster.Cluster` or
`smoothcluster.crawler.ClusterCrawler`. A command holds no logic of coordination::

    command line -> click -> command (run, submit, status, ...) -> Cluster or ClusterCrawler -> store
                                  |
                                  +--> standard output: data, for scripts
                                  +--> standard error: log lines, progress bars, errors, for people

How a command is made:

1. A module of the command's name has a function with ``@click.command()``, the command's options, and
   `common.common` for the options of all commands that deal with a group (``--group``, ``--backend``, ``--verbose``).
2. The function opens the store by `common.opened`, which hides credentials and closes the store in the end.
3. The function prints data to standard output. `formatting` makes tables, and replaces characters that could move a
   terminal's cursor. A member prints by `output.print_data`: lines of several members in a terminal do not merge.
4. The function raises an exception of `smoothcluster.errors`, or `common.Failure`, to end with an error.
5. The list at the end of this module adds the function to the group of commands.

`common.Commands` turns every exception into a single line on standard error and an exit status:

====== ============================================================================================
0      success; also after Ctrl-C or SIGTERM where a signal is the way to end the command
1      any other failure
2      the call is wrong (`smoothcluster.errors.UsageError`)
3      the store is unreachable or refused the request (`smoothcluster.errors.BackendError`)
130    Ctrl-C interrupted the command before the end
====== ============================================================================================

A store that is out of reach at the start of a command is asked again for three seconds (`common.STORE_RETRY_SECONDS`).

Begin reading with `common`, then `wait` (a short command) and `run` (a member; `supervisor` runs several members).
"""

import click

from smoothcluster.cli.common import HELP_EPILOG, Commands, verbose
from smoothcluster.cli.completion import completion
from smoothcluster.cli.demo import demo
from smoothcluster.cli.doctor import doctor
from smoothcluster.cli.events import events
from smoothcluster.cli.job import job
from smoothcluster.cli.quarantine import quarantine
from smoothcluster.cli.results import results
from smoothcluster.cli.run import run
from smoothcluster.cli.spec import spec
from smoothcluster.cli.status import status
from smoothcluster.cli.submit import submit
from smoothcluster.cli.wait import wait

__all__ = ["main"]


@click.group(cls=Commands, epilog=HELP_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="smoothcluster")
@verbose
def main() -> None:
    """Coordinate groups of crawlers: Runners work, Backup Runners take over."""


for command in (demo, run, submit, wait, status, results, job, events, quarantine, spec, doctor, completion):
    main.add_command(command)
