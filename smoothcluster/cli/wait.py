"""``smoothcluster wait``: wait until a job is finished."""

from dataclasses import asdict, replace

import click

from smoothcluster.arguments import check_seconds
from smoothcluster.cli.common import STORE_RETRY_SECONDS, Exit, Failure, common, opened
from smoothcluster.cli.interrupt import pause
from smoothcluster.cli.output import json_text, print_data, print_message
from smoothcluster.cli.progress_bar import shown
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.cluster import Cluster
from smoothcluster.jobs.handle import JobHandle
from smoothcluster.jobs.progress import LossCheck, Progress
from smoothcluster.records.job import JOB_CANCELLING, JOB_FINISHED

PROGRESS_POLL_SECONDS = 0.2
"""Seconds between two reads of the progress."""


class TasksLost(Failure):
    """The job cannot finish: the store has lost tasks."""

    def __init__(self, message: str, progress: Progress) -> None:
        super().__init__(message, Exit.FAILED)
        self.progress = progress


@click.command()
@click.argument("job", metavar="JOB")
@click.option("--timeout", type=float, metavar="SECONDS", help="Give up after this time, with exit status 1.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers of outcomes as a JSON object.")
@common
def wait(*, job: str, timeout: float | None, as_json: bool, url: str | None, group: str) -> None:
    """Wait until every task of a job has an outcome.

    A failure is an outcome, too. The job continues if the command is interrupted. If the store has lost
    tasks, the job cannot finish, and the command fails.
    """
    if timeout is not None:
        check_seconds("--timeout", timeout, endless=True)
    lost: TasksLost | None = None
    with opened(url) as backend:
        try:
            ended = watch(Cluster(backend, group, patience=STORE_RETRY_SECONDS).job(job), timeout)
        except TasksLost as error:
            ended, lost = error.progress, error
    if as_json:
        print_data(json_text({"job": job} | numbers(ended)))
    if lost is not None:
        raise lost


def numbers(progress: Progress) -> dict[str, object]:
    """Return the numbers for scripts; those of lost and cancelled tasks, and the state, only where there are any."""
    found = asdict(progress)
    seldom = {
        "lost": bool(progress.lost),
        "cancelled": progress.state != JOB_FINISHED,
        "state": progress.state != JOB_FINISHED,
    }
    return {name: value for name, value in found.items() if seldom.get(name, True)}


def watch(job: JobHandle, timeout: float | None = None) -> Progress:
    """Wait for *job*, with a progress bar on a terminal; print and return the numbers of outcomes."""
    end = None if timeout is None else SYSTEM_CLOCK.monotonic() + timeout
    check = LossCheck(SYSTEM_CLOCK)
    try:
        with shown(f"job {job.id}", None) as bar:
            while not (progress := job.progress()).finished:
                bar.show(progress.total - progress.pending, progress.total)
                if end is not None and SYSTEM_CLOCK.monotonic() >= end:
                    raise Failure(f"job {job.id} is not finished after {timeout:g} s: {summary(progress)}", Exit.FAILED)
                if check.due(progress) and (loss := job.loss()) is not None and progress.state != JOB_CANCELLING:
                    raise TasksLost(loss.describe(job.id), replace(progress, lost=loss.lost))
                pause(PROGRESS_POLL_SECONDS)
            bar.show(progress.total, progress.total)
    except KeyboardInterrupt:
        again = f"the job continues; to wait again, run: smoothcluster wait {job.id}"
        raise Failure(f"Ctrl-C interrupted the command; {again}", Exit.INTERRUPTED) from None
    said = "" if progress.state == JOB_FINISHED else f" was {progress.state}"
    print_message(f"job {job.id}{said}: {summary(progress)}")
    return progress


def summary(progress: Progress) -> str:
    """Describe the progress in words."""
    ended = (
        ("done", progress.done),
        ("failed", progress.failed),
        ("quarantined", progress.quarantined),
        ("cancelled", progress.cancelled),
    )
    counts = ", ".join(f"{count} {what}" for what, count in ended if count or what == "done")
    notes = (
        ("not readable", progress.unreadable),
        ("refused", progress.refused),
        ("repeats skipped", progress.skipped),
    )
    noted = "".join(f"; {count} {what}" for what, count in notes if count)
    return f"{counts} of {progress.total} task{'s' * (progress.total != 1)}{noted}"
