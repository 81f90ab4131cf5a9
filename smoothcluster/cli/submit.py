"""``smoothcluster submit``: hand in tasks as a job."""

import json
import secrets
from collections.abc import Iterator

import click

from smoothcluster.cli.common import STORE_RETRY_SECONDS, Exit, Failure, common, failure, opened
from smoothcluster.cli.progress_bar import Bar, shown
from smoothcluster.cli.task_input import Feed
from smoothcluster.cli.wait import watch
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.cluster import Cluster
from smoothcluster.errors import JobClosedError, SmoothclusterError, UsageError
from smoothcluster.model import Task, check_name
from smoothcluster.records.keys import Keys
from smoothcluster.retry import patiently

PROGRESS_STEP_TASKS = 100
"""Tasks between two signs of progress."""


@click.command()
@click.argument("tasks", nargs=-1, required=True, metavar="FILE|URL...")
@click.option("--job", metavar="ID", help="Name the job, or add to the one of that name; a new id if left out.")
@click.option("--wait", is_flag=True, help="Then wait until every task has its outcome.")
@click.option("--json", "as_json", is_flag=True, help='Print {"job": ..., "tasks": ...} instead of the id alone.')
@common
def submit(*, tasks: tuple[str, ...], job: str | None, wait: bool, as_json: bool, url: str | None, group: str) -> None:
    """Hand in tasks as a job.

    Its id is printed once they are all in the store.

    Each argument is an http(s) URL, which is one task, or a FILE of tasks (- for standard input),
    one a line: a JSON object with the fields of a Task, or a URL. Unless it is standard input or
    a pipe, all is read and checked before the first task is handed in.

    Tasks that the job has already are skipped: a submit that was cut short can be repeated with
    the same --job.
    """
    feed = Feed(tasks)
    name = check_name("job", job) if job is not None else secrets.token_hex(6)
    with opened(url) as backend:
        cluster = Cluster(backend, group)
        # A store that is away now is told soon; one that goes away later is waited for.
        patiently(SYSTEM_CLOCK, STORE_RETRY_SECONDS, lambda: backend.for_group(group).get(Keys(group).job(name)))
        total = _check(feed) if feed.repeatable else None
        with shown("submitting", total) as bar:
            _hand_in(cluster, feed, name, bar)
        if not feed.count:
            click.echo(f"there was no task: job {name} has none", err=True)
        print(json.dumps({"job": name, "tasks": feed.count}) if as_json else name, flush=True)
        if wait:
            watch(cluster.job(name))


def _check(feed: Feed) -> int:
    try:
        return feed.check()
    except UsageError as error:
        raise UsageError(f"{feed.place}: {error}; nothing was handed in") from None


def _hand_in(cluster: Cluster, feed: Feed, name: str, bar: Bar) -> None:
    again = f"what came before it may be in job {name} already: to complete the job, submit again with --job {name}"
    try:
        cluster.submit(_shown(feed, bar), name)
    except JobClosedError:
        raise
    except SmoothclusterError as error:
        if not feed.place:
            raise
        what = failure(error)
        place = f"{feed.place}: " if isinstance(error, UsageError) else ""
        raise Failure(f"{place}{what.message}; {again}", what.status) from error
    except KeyboardInterrupt:
        raise Failure(f"interrupted; {again}", Exit.INTERRUPTED) from None


def _shown(feed: Feed, bar: Bar) -> Iterator[Task]:
    """The tasks of *feed*, their number shown as they are taken."""
    for task in feed:
        yield task
        if feed.count % PROGRESS_STEP_TASKS == 0:
            bar.show(feed.count)
    bar.show(feed.count)
