"""``smoothcluster quarantine``: tasks that are known to kill, and what to do with them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from smoothcluster.cli.common import STORE_RETRY_SECONDS, common, opened
from smoothcluster.cli.formatting import table
from smoothcluster.cluster import Cluster
from smoothcluster.records.quarantine import QuarantinedTask

QUARANTINE_COLUMNS = ("ID", "JOB", "TASK", "SINCE", "STARTS", "EVIDENCE")


@click.group()
def quarantine() -> None:
    """Tasks that ended every process they ran in: list them, release them, or drop them."""


@quarantine.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with the task and all evidence.")
@common
def list_(as_json: bool, url: str | None, group: str) -> None:  # noqa: FBT001  # an option
    """Show the tasks in quarantine, oldest first."""
    with opened(url) as backend:
        cluster = Cluster(backend, group, patience=STORE_RETRY_SECONDS)
        found = cluster.quarantine()
        if not found:
            cluster.status()  # Raises if there is no such group: nothing in quarantine is not the same.
        for line in (json.dumps(each.as_dict()) for each in found) if as_json else report(found):
            print(line)


def report(found: list[QuarantinedTask]) -> Iterator[str]:
    """The lines that people read."""
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
    """Submit copies of tasks as new jobs, and take the tasks out of quarantine.

    IDs are those that `quarantine list` shows. The id of each new job is printed. Mend what made
    the tasks kill first: they are started as any others are.
    """
    with opened(url) as backend:
        for job in Cluster(backend, group, patience=STORE_RETRY_SECONDS).release(*numbers):
            print(job.id)


@quarantine.command()
@click.argument("numbers", nargs=-1, required=True, metavar="ID...")
@common
def drop(numbers: tuple[str, ...], url: str | None, group: str) -> None:
    """Forget tasks in quarantine; what `results` says of them stays.

    IDs are those that `quarantine list` shows.
    """
    with opened(url) as backend:
        Cluster(backend, group, patience=STORE_RETRY_SECONDS).drop(*numbers)
