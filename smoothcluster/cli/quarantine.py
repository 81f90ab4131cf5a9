"""``smoothcluster quarantine``: show and change the dead-letter list, the tasks that kill their process."""

from collections.abc import Iterator
from datetime import UTC, datetime

import click

from smoothcluster.cli.common import STORE_RETRY_SECONDS, common, opened
from smoothcluster.cli.formatting import table
from smoothcluster.cli.output import json_text, print_data
from smoothcluster.cluster import Cluster
from smoothcluster.records.quarantine import QuarantinedTask

QUARANTINE_COLUMNS = ("ID", "JOB", "TASK", "SINCE", "STARTS", "EVIDENCE")


@click.group()
def quarantine() -> None:
    """List, release or drop tasks that killed their process."""


@quarantine.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, with the task and all evidence.")
@common
def list_(as_json: bool, url: str | None, group: str) -> None:  # noqa: FBT001  # an option
    """Show the tasks in quarantine, oldest first."""
    with opened(url) as backend:
        cluster = Cluster(backend, group, patience=STORE_RETRY_SECONDS)
        found = cluster.quarantine()
        if not found:
            cluster.status()  # Raises if the group does not exist. An empty quarantine is no error.
        for line in (json_text(each.as_dict()) for each in found) if as_json else report(found):
            print_data(line)


def report(found: list[QuarantinedTask]) -> Iterator[str]:
    """Yield the lines for people."""
    if not found:
        yield "no task is in quarantine"
        return
    yield from table(QUARANTINE_COLUMNS, [_row(each) for each in found])


def _row(each: QuarantinedTask) -> tuple[object, ...]:
    since = datetime.fromtimestamp(each.at, UTC).isoformat(timespec="seconds")
    evidence = ", ".join(str(entry["evidence"]) for entry in each.evidence)
    return each.id, each.job, each.task.id, since, each.attempts, evidence


@quarantine.command()
@click.argument("numbers", nargs=-1, required=True, metavar="ID...")
@common
def release(numbers: tuple[str, ...], url: str | None, group: str) -> None:
    """Take tasks out of quarantine and submit copies as new jobs.

    `quarantine list` shows the IDs. The command prints the id of each new job. First correct the
    cause of the deaths: members start the copies like any other task.
    """
    with opened(url) as backend:
        for job in Cluster(backend, group, patience=STORE_RETRY_SECONDS).release(*numbers):
            print_data(job.id)


@quarantine.command()
@click.argument("numbers", nargs=-1, required=True, metavar="ID...")
@common
def drop(numbers: tuple[str, ...], url: str | None, group: str) -> None:
    """Delete tasks from quarantine. Recorded outcomes stay.

    `quarantine list` shows the IDs, and warns of unreadable records with their keys. Give such a key
    in place of an ID to delete the record.
    """
    with opened(url) as backend:
        Cluster(backend, group, patience=STORE_RETRY_SECONDS).drop(*numbers)
