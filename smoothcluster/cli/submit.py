"""``smoothcluster submit``: submit tasks as a job."""

import secrets
from collections.abc import Iterator

import click

from smoothcluster.arguments import check_name
from smoothcluster.cli.common import STORE_RETRY_SECONDS, Exit, Failure, common, failure, opened
from smoothcluster.cli.output import json_text, print_data, print_message
from smoothcluster.cli.progress_bar import Bar, shown
from smoothcluster.cli.task_input import Feed
from smoothcluster.cli.wait import watch
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.cluster import Cluster
from smoothcluster.errors import JobClosedError, SmoothclusterError, UsageError
from smoothcluster.model import Task
from smoothcluster.records.keys import Keys
from smoothcluster.retry import patiently

PROGRESS_STEP_TASKS = 100
"""Tasks between two updates of the progress bar."""


@click.command()
@click.argument("tasks", nargs=-1, required=True, metavar="FILE|URL...")
@click.option(
    "--job",
    metavar="ID",
    help="Id of the job. An unfinished job of this id gets the tasks. If left out, the id is new.",
)
@click.option(
    "--skip-repeats",
    is_flag=True,
    help="Skip and count tasks with the id of an earlier task. Always on if standard input or a pipe is read.",
)
@click.option(
    "--max-tasks",
    type=click.IntRange(1),
    metavar="N",
    help="Most tasks of the job, from its first submit on: further tasks added by handlers are refused.",
)
@click.option("--wait", is_flag=True, help="Then wait until every task has an outcome.")
@click.option(
    "--json", "as_json", is_flag=True, help='Print {"job": ..., "tasks": ..., "repeats": ...} instead of the id alone.'
)
@common
def submit(
    *,
    tasks: tuple[str, ...],
    job: str | None,
    skip_repeats: bool,
    max_tasks: int | None,
    wait: bool,
    as_json: bool,
    url: str | None,
    group: str,
) -> None:  # parameters: the options of the command
    """Submit tasks as a job.

    The command prints the job's id once all tasks are in the store.

    Each argument is an http(s) URL, which becomes a task, or a FILE with a task on each line: a URL,
    or a JSON object with the fields of a Task. FILE - is standard input. The command reads and checks
    all arguments before the first task is submitted, unless standard input or a pipe is among them.

    Tasks already in the job are skipped, so an interrupted submit can be repeated with the same --job.
    """
    feed = Feed(tasks, skip_repeats=skip_repeats)
    name = check_name("job", job) if job is not None else secrets.token_hex(6)
    with opened(url) as backend:
        cluster = Cluster(backend, group)
        # If the store is out of reach now, the command fails soon. Later, the command waits for the store.
        patiently(SYSTEM_CLOCK, STORE_RETRY_SECONDS, lambda: backend.for_group(group).get(Keys(group).job(name)))
        total = _check(feed) if feed.repeatable else None
        with shown("submitting", total) as bar:
            _hand_in(cluster, feed, name, bar, max_tasks)
        if not feed.count:
            print_message(f"the arguments hold no task, so job {name} got none")
        if feed.repeats:
            print_message(f"{feed.repeats} repeated tasks were skipped")
        answer = json_text({"job": name, "tasks": feed.count, "repeats": feed.repeats}) if as_json else name
        print_data(answer, flush=True)
        if wait:
            watch(cluster.job(name))


def _check(feed: Feed) -> int:
    try:
        return feed.check()
    except UsageError as error:
        raise UsageError(f"{feed.place}{feed.place and ': '}{error}; nothing was submitted") from None


def _hand_in(cluster: Cluster, feed: Feed, name: str, bar: Bar, max_tasks: int | None) -> None:
    again = f"earlier tasks may be in job {name} already; to complete the job, submit again with --job {name}"
    try:
        cluster.submit(_shown(feed, bar), name, max_tasks=max_tasks)
    except (JobClosedError, BrokenPipeError):
        raise
    except Exception as error:
        if isinstance(error, SmoothclusterError):
            # The option --job takes the place of the hint for callers of `Cluster.submit`.
            error.hint = again if feed.count else error.hint
            again = ""
        what = failure(error)
        place = f"{feed.place}: " if isinstance(error, UsageError) and feed.place else ""
        raise Failure(f"{place}{what.message}{again and '; '}{again}", what.status) from error
    except KeyboardInterrupt:
        raise Failure(f"Ctrl-C interrupted the command; {again}", Exit.INTERRUPTED) from None


def _shown(feed: Feed, bar: Bar) -> Iterator[Task]:
    """Yield the tasks of *feed*, and show the number of tasks on *bar*."""
    for task in feed:
        yield task
        if feed.count % PROGRESS_STEP_TASKS == 0:
            bar.show(feed.count)
    bar.show(feed.count)
