"""``smoothcluster status``: show the present state of a group."""

import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import Any

import click

from smoothcluster.cli.common import STORE_RETRY_SECONDS, common, opened
from smoothcluster.cli.formatting import plain, ranges, shape, size, table
from smoothcluster.cli.interrupt import pause
from smoothcluster.cli.output import json_text, print_data
from smoothcluster.cluster import Cluster
from smoothcluster.jobs.progress import Loss
from smoothcluster.model import Role

MEMBER_COLUMNS = ("NAME", "ROLE", "SEAT", "SHARDS", "HOST", "PID", "RUNNING")


WATCH_POLL_SECONDS = 1.0
"""Seconds between two reads while watching."""


FULL_STORE_SHARE = 0.7
"""Share of the store's limit from which on `status` warns."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, for scripts.")
@click.option("--watch", "-w", is_flag=True, help="Repeat every second, until Ctrl-C.")
@common
def status(as_json: bool, watch: bool, url: str | None, group: str) -> None:  # noqa: FBT001  # options
    """Show the members, tasks and jobs of a group."""
    live = watch and not as_json and sys.stdout.isatty()
    with opened(url) as backend, _interruptible(watch=watch), _redrawn() if live else nullcontext(_print) as show:
        cluster = Cluster(backend, group, patience=STORE_RETRY_SECONDS)
        while True:
            found = cluster.status()
            show([json_text(found)] if as_json else list(report(found)))
            if not watch:
                break
            pause(WATCH_POLL_SECONDS)


def _interruptible(*, watch: bool) -> AbstractContextManager[None]:
    """End ``--watch`` at Ctrl-C, without an error."""
    return suppress(KeyboardInterrupt) if watch else nullcontext()


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        print_data(line)
    sys.stdout.flush()


@contextmanager
def _redrawn() -> Generator[Callable[[Sequence[str]], None]]:
    """Yield a function that shows lines in place of the previous lines."""
    from rich.console import Console  # needed on a terminal only
    from rich.live import Live  # as above
    from rich.text import Text  # as above

    with Live(console=Console(), auto_refresh=False, vertical_overflow="crop") as live:
        yield lambda lines: live.update(
            Text("\n".join(map(plain, lines)), no_wrap=True, overflow="ellipsis"), refresh=True
        )


def _row(member: Mapping[str, Any]) -> list[object]:
    """Return the cells of a member; the last, without a heading, is empty unless the member is silent."""
    return [*(member[column.lower()] for column in MEMBER_COLUMNS), "silent" if member["silent"] else ""]


def _checked(member: Mapping[str, Any]) -> str:
    """Write the time of a Backup Runner's last self-check, by the member's clock."""
    at, when = member["checked"], "not yet"
    if at is not None:
        try:
            when = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
        except (OverflowError, ValueError, OSError):
            when = "?"  # garbage, which no member of this version wrote
    return f"{plain(member['name'])} ({when})"


def report(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines for people."""
    yield f"group {plain(found['group'])}: {shape(found['spec'])}"
    yield ""
    yield from table((*MEMBER_COLUMNS, ""), map(_row, found["members"]))
    yield ""
    if any(member["silent"] for member in found["members"]):
        yield "a silent member has not renewed the lease in time, and stays a member until the lease ends"
    alone = [plain(member["name"]) for member in found["members"] if member["suspects"] == "alone"]
    if alone:
        yield f"no child process can run the handler of {', '.join(alone)}: each suspect runs alone in the member"
    yield "tasks: " + ", ".join(f"{count} {state}" for state, count in found["tasks"].items())
    yield "jobs: " + (", ".join(f"{plain(job)} ({plain(state)})" for job, state in found["jobs"].items()) or "none")
    yield from _troubles(found)
    yield "unassigned shards: " + (ranges(found["unassigned"]) or "none")
    standing_by = [member for member in found["members"] if member["role"] == Role.BACKUP_RUNNER]
    if standing_by:
        yield f"last self-check of Backup Runners: {', '.join(map(_checked, standing_by))}"
    for member in found["members"]:
        if member["unfit"] is not None:
            yield f"{plain(member['name'])} is unfit to take over: {plain(member['unfit'])}"
        if member["results_wait"] is not None:
            yield f"results of {plain(member['name'])} wait in the store: {plain(member['results_wait'])}"
    if found["breaker"] != "closed":
        yield "breaker: open; members died in series, so members that own shards adopt no more for now"
    for key, what in found["garbage"].items():
        yield f"garbage at {plain(key)}: {plain(what)}"


def _troubles(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each job that has lost tasks, and for a store that is almost full."""
    for job, loss in found.get("lost", {}).items():
        yield Loss(loss["written"], loss["accounted"]).describe(plain(job))
    for job, count in found.get("unreadable", {}).items():
        yield f"job {plain(job)}: {count} tasks were not readable, and ended as failed"
    for job, count in found.get("refused", {}).items():
        yield f"job {plain(job)}: {count} tasks added by handlers were refused: the job has reached its max_tasks"
    store = found["store"]
    if store is not None and store["used"] >= FULL_STORE_SHARE * store["limit"]:
        yield (
            f"the store is {store['used'] / store['limit']:.0%} full ({size(store['used'])} of {size(store['limit'])},"
            f" {plain(store['what'])}): give the store more room, or delete what nobody needs"
        )
