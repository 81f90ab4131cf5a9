"""``smoothcluster results``: print the recorded outcomes of tasks, as a stream."""

from collections.abc import Callable, Iterable

import click

from smoothcluster.cli.common import STORE_RETRY_SECONDS, common, opened
from smoothcluster.cli.formatting import plain
from smoothcluster.cli.output import json_text, print_data
from smoothcluster.cluster import Cluster
from smoothcluster.model import Outcome
from smoothcluster.records.job import JOB_DELETED, JOB_DELETING


@click.command()
@click.option("--job", metavar="ID", help="Print the outcomes of this job only.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "text"]),
    default="jsonl",
    show_default=True,
    help="JSON lines, or text for people: job, task, state, attempts, runner, and value or error, separated by tabs.",
)
@click.option("--tasks", is_flag=True, help="Add the task to each JSON line of an outcome that is not done.")
@common
def results(*, job: str | None, form: str, tasks: bool, url: str | None, group: str) -> None:
    """Print the outcomes of tasks.

    Each outcome recorded so far is a line, in no particular order. Without --job, the command prints
    the outcomes of all jobs.
    """
    with opened(url) as backend:
        cluster = Cluster(backend, group, patience=STORE_RETRY_SECONDS)
        write = as_json_with_task if tasks and form == "jsonl" else OUTCOME_FORMATTERS[form]
        for each in _jobs(cluster, job):
            for outcome in cluster.job(each).results():
                print_data(write(each, outcome))


def _jobs(cluster: Cluster, job: str | None) -> Iterable[str]:
    if job is not None:
        return [job]
    jobs = cluster.jobs()
    if not jobs:
        cluster.status()  # Raises if the group does not exist. A group without jobs is no error.
    return [name for name, state in jobs.items() if state not in (JOB_DELETING, JOB_DELETED)]


def as_json(job: str, outcome: Outcome) -> str:
    """Write an outcome as a JSON object."""
    return json_text(_fields(job, outcome))


def as_json_with_task(job: str, outcome: Outcome) -> str:
    """Write an outcome as a JSON object, with the task if the outcome has one."""
    return json_text(_fields(job, outcome) | ({} if outcome.task is None else {"task": outcome.task.to_json()}))


def _fields(job: str, outcome: Outcome) -> dict[str, object]:
    return {
        "task_id": outcome.task_id,
        "state": outcome.state,
        "value": outcome.value,
        "error": outcome.error,
        "attempts": outcome.attempts,
        "runner": outcome.runner,
        "epoch": outcome.epoch,
        "job": job,
    }


def as_text(job: str, outcome: Outcome) -> str:
    """Write an outcome for people, separated by tabs."""
    came = json_text(outcome.value, ascii_only=False) if outcome.error is None else outcome.error
    parts = (job, outcome.task_id, outcome.state, outcome.attempts, outcome.runner, came)
    return "\t".join(plain(part) for part in parts)


OUTCOME_FORMATTERS: dict[str, Callable[[str, Outcome], str]] = {"jsonl": as_json, "text": as_text}
