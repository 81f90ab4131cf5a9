"""The command ``smoothcluster``.

What may be read by scripts goes to standard output, everything said to people to standard
error. How it ends says what to do next: see `smoothcluster.cli.common.Exit`.
"""

import click

from smoothcluster.cli.common import HELP_EPILOG, Commands, verbose
from smoothcluster.cli.completion import completion
from smoothcluster.cli.demo import demo
from smoothcluster.cli.doctor import doctor
from smoothcluster.cli.events import events
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
    """Groups of crawlers: Runners that work, Backup Runners that take over."""


for command in (demo, run, submit, wait, status, results, events, quarantine, spec, doctor, completion):
    main.add_command(command)
