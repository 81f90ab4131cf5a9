"""``smoothcluster job``: list, show, cancel, retry and delete jobs."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager

import click

from smoothcluster.cli.common import STORE_RETRY_SECONDS, Exit, Failure, common, opened
from smoothcluster.cli.formatting import plain, table
from smoothcluster.cli.interrupt import pause
from smoothcluster.cli.output import json_text, print_data, print_message
from smoothcluster.cli.progress_bar import shown
from smoothcluster.cli.wait import numbers, summary, watch
from smoothcluster.cluster import Cluster
from smoothcluster.jobs.handle import DELETION_POLL_SECONDS, JobHandle
from smoothcluster.jobs.progress import Progress

JOB_COLUMNS = ("JOB", "STATE", "TOTAL", "PENDING", "DONE", "FAILED", "QUARANTINED", "CANCELLED")

F = Callable[..., None]


@click.group()
def job() -> None:
    """List, show, cancel, retry or delete jobs."""


def _names(command: F) -> F:
    """Give *command* the ids of one or more jobs as arguments."""
    return click.argument("jobs", nargs=-1, required=True, metavar="JOB...")(command)


def _json(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, for scripts.")(command)


@job.command(name="list")
@_json
@common
def list_(as_json: bool, url: str | None, group: str) -> None:  # noqa: FBT001  # an option
    """Show all jobs of the group, with the numbers of their tasks."""
    with opened(url) as backend:
        cluster = Cluster(backend, group, patience=STORE_RETRY_SECONDS)
        found = cluster.progress_of_jobs()
        if not found:
            cluster.status()  # Raises if the group does not exist. A group without jobs is no error.
        for line in map(_as_json, found.items()) if as_json else report(found.items()):
            print_data(line)


def _as_json(found: tuple[str, Progress]) -> str:
    name, progress = found
    always = {"pending": progress.pending, "cancelled": progress.cancelled, "state": progress.state}
    return json_text({"job": name} | numbers(progress) | always)


def report(found: Iterable[tuple[str, Progress]]) -> Iterator[str]:
    """Yield the lines for people."""
    rows = [[name, each.state, *(getattr(each, what.lower()) for what in JOB_COLUMNS[2:])] for name, each in found]
    if not rows:
        yield "the group has no jobs"
        return
    yield from table(JOB_COLUMNS, rows)


@job.command()
@_names
@_json
@common
def show(jobs: tuple[str, ...], as_json: bool, url: str | None, group: str) -> None:  # noqa: FBT001  # an option
    """Show the state and the numbers of tasks of jobs."""
    with opened(url) as backend:
        cluster = Cluster(backend, group, patience=STORE_RETRY_SECONDS)
        found = [(name, cluster.job(name).progress()) for name in jobs]
    for name, progress in found:
        print_data(_as_json((name, progress)) if as_json else f"{plain(name)} is {progress.state}: {summary(progress)}")


@job.command()
@_names
@click.option("--wait", "wait_", is_flag=True, help="Then wait until the running tasks have ended.")
@common
def cancel(jobs: tuple[str, ...], wait_: bool, url: str | None, group: str) -> None:  # noqa: FBT001  # an option
    """Cancel jobs: their waiting tasks start no more.

    Running tasks finish, and recorded outcomes stay. A job that has ended stays as it is.
    """
    with opened(url) as backend:
        for handle in _handles(Cluster(backend, group, patience=STORE_RETRY_SECONDS), jobs):
            handle.cancel()
            if wait_:
                watch(handle)


@job.command()
@_names
@common
def retry(jobs: tuple[str, ...], url: str | None, group: str) -> None:
    """Submit the failed tasks of jobs again, as new jobs.

    The command prints the id of each new job. Repeating the command submits nothing twice. Tasks in
    quarantine stay there: see `smoothcluster quarantine release`.
    """
    with opened(url) as backend:
        for handle in _handles(Cluster(backend, group, patience=STORE_RETRY_SECONDS), jobs):
            with _explained(f"to complete the retry, run: smoothcluster job retry {handle.id}"):
                print_data(handle.retry().id)


@job.command()
@_names
@common
def delete(jobs: tuple[str, ...], url: str | None, group: str) -> None:
    """Delete jobs with their outcomes and their tasks in quarantine.

    A job that has not ended is cancelled first, and the command waits until its running tasks have ended. No later
    job can have the id of a deleted job.
    """
    with opened(url) as backend:
        for handle in _handles(Cluster(backend, group, patience=STORE_RETRY_SECONDS), jobs):
            with _explained(f"job {handle.id} may be deleted in part; run again: smoothcluster job delete {handle.id}"):
                _delete(handle)


def _delete(handle: JobHandle) -> None:
    """Delete a job, with a progress bar on a terminal for each part of the work."""
    steps = handle.deletion()
    step = next(steps, None)
    while step is not None:
        what, most = step.what, step.left
        with shown(f"job {handle.id}: {what}", most, "") as bar:
            while step is not None and step.what == what:
                most = max(most, step.left)
                bar.show(most - step.left, most)
                pause(DELETION_POLL_SECONDS if step.wait else 0)
                step = next(steps, None)
            bar.show(most, most)
    print_message(f"job {handle.id} is deleted")


def _handles(cluster: Cluster, jobs: Iterable[str]) -> list[JobHandle]:
    """Return the handles of all *jobs*, each once: a wrong id is an error before anything is done."""
    return [cluster.job(name) for name in dict.fromkeys(jobs)]


@contextmanager
def _explained(advice: str) -> Generator[None]:
    """After Ctrl-C, end the command with the *advice*."""
    try:
        yield
    except KeyboardInterrupt:
        raise Failure(f"Ctrl-C interrupted the command; {advice}", Exit.INTERRUPTED) from None
