"""``smoothcluster run``: this process as a member of a group."""

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, cast

import click

from smoothcluster.backend import CoordinationBackend
from smoothcluster.cli.common import common, opened
from smoothcluster.cli.event_tail import Event, Tail
from smoothcluster.cli.formatting import ranges
from smoothcluster.cli.handler_loading import load_handler
from smoothcluster.cli.logs import log
from smoothcluster.cli.supervisor import supervise
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.cluster import Cluster
from smoothcluster.crawler import ClusterCrawler
from smoothcluster.errors import BackendError, UsageError
from smoothcluster.group.spec import INDEX_PLACEHOLDER
from smoothcluster.options import Isolation, Retries
from smoothcluster.registry import BACKEND_VARIABLE, DEFAULT_URL, masked

RESTART_OPTION = "--again"
"""Given to a member that is started again: it takes the numbers that the group has by now."""

EVENT_POLL_SECONDS = 0.5
"""Seconds between two looks for something to tell."""


seconds = partial(click.option, type=float, metavar="SECONDS", show_default=True)
number = partial(click.option, type=int, metavar="N", show_default=True)


@click.command()
@click.argument("handler", metavar="MODULE:HANDLER")
@number("--runner", help="How many members are Runners. All must say the same; or leave it out for what the group has.")
@number("--backup", help="How many stand by. Leave it out and all members are Runners.")
@click.option(RESTART_OPTION, is_flag=True, hidden=True)
@click.option(
    "--name",
    default=f"crawler_{INDEX_PLACEHOLDER}",
    show_default=True,
    help=f"{INDEX_PLACEHOLDER} becomes the smallest free number.",
)
@number("--concurrency", default=8, help="How many handlers run at once, here.")
@number("--capacity", help="How many shards this member takes at most; any number if left out.")
@number("--max-attempts", default=1, help="How often a task whose handler raises is tried.")
@seconds("--retry-delay", default=1.0, help="Pause before the second try; doubled for each further one.")
@seconds("--lease-ttl", default=10.0, help="Silence after which the store gives this member up.")
@seconds("--grace", default=10.0, help="Time that running handlers get to finish when leaving.")
@click.option(
    "--members",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="How many members, on this machine: a process each, started again if it dies.",
)
@click.option(
    "--isolation",
    type=click.Choice(["process"]),
    help="Run every task in a child process: one that kills its process costs no member.",
)
@seconds("--task-timeout", help="Time after which a task is ended and failed; needs --isolation.")
@click.option(
    "--task-memory", type=int, metavar="BYTES", help="What a task may allocate before it is failed; needs --isolation."
)
@click.option("--host", help="Where other members reach this machine, to notice a death; found out if left out.")
@common
def run(handler: str, url: str | None, members: int, again: bool, **settings: Any) -> None:  # noqa: FBT001  # an option
    """Work in a group, as one member.

    It is a Runner, or a Backup Runner that stands by, until Ctrl-C or SIGTERM; then it leaves.

    HANDLER is a function in MODULE, called with each task and a context; modules in the current
    directory are found. A second Ctrl-C or SIGTERM ends the process without waiting for handlers.
    """
    call = load_handler(handler)
    if members > 1:
        if INDEX_PLACEHOLDER not in settings["name"]:
            raise UsageError(f"--members {members} need a name for each: put {INDEX_PLACEHOLDER} into --name")
        options = [] if url is None else ["--backend", url]
        given = {f"--{name.replace('_', '-')}": value for name, value in settings.items() if value is not None}
        options += [str(word) for pair in given.items() for word in pair]
        if not (url or os.environ.get(BACKEND_VARIABLE)):
            with opened(None):  # That tells which file it is. It need not be told by each of them, too.
                options += ["--backend", DEFAULT_URL]
        click.get_current_context().exit(supervise(["run", handler, *options], RESTART_OPTION, members))
    grouped = _grouped(**settings)
    with opened(url) as backend, _sigterm_interrupts():
        try:
            if again and _has_numbers(Cluster(backend, grouped["group"])):
                grouped |= {"runner": None, "backup": None}  # They may have been changed since.
            crawler = ClusterCrawler(backend=backend, handler=call, **grouped)
        except KeyboardInterrupt:
            return  # Whatever it had got while joining it has given back.
        try:
            print(f"{crawler.name} {crawler.role} in group {crawler.group} at {masked(backend.url)}", flush=True)
            with _narrated(crawler, backend):
                crawler.run()
        except KeyboardInterrupt:
            crawler.stop()  # Told to leave before it began.
        except BaseException:
            crawler.stop()
            raise
        log.info("%s: left group %s", crawler.name, crawler.group)


def _grouped(
    *,
    max_attempts: int,
    retry_delay: float,
    isolation: str | None,
    task_timeout: float | None,
    task_memory: int | None,
    **others: Any,
) -> dict[str, Any]:
    """The keywords of `ClusterCrawler` for the options of the command."""
    if isolation is None and (task_timeout, task_memory) != (None, None):
        raise UsageError(
            "--task-timeout and --task-memory need --isolation process: a task can only be ended with its process"
        )
    retries = Retries(attempts=max_attempts, delay=retry_delay, most_delay=max(retry_delay, Retries().most_delay))
    isolated = Isolation(timeout=task_timeout, memory=task_memory) if isolation is not None else None
    return {"retries": retries, "isolation": isolated, **others}


def _has_numbers(cluster: Cluster) -> bool:
    return not cluster.absent() and cluster.spec()["runner"] is not None


@contextmanager
def _sigterm_interrupts() -> Generator[None]:
    """Treat SIGTERM as Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # as `signal` calls it
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _narrated(crawler: ClusterCrawler, backend: CoordinationBackend) -> Generator[None]:
    """Tell what becomes of *crawler*, from a thread, until it has left."""
    over = SYSTEM_CLOCK.signal()
    narrator = Narrator(crawler, backend)
    narrator.print_news()

    def tell() -> None:
        while not over.wait(EVENT_POLL_SECONDS):
            narrator.print_news()

    thread = threading.Thread(target=tell, name="smoothcluster-narrator", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(EVENT_POLL_SECONDS)  # No longer: it may be waiting for a store that is away.


class Narrator:
    """Sees what has changed, and tells it."""

    def __init__(self, crawler: ClusterCrawler, backend: CoordinationBackend) -> None:
        self._crawler = crawler
        self._role = crawler.role
        self._tail = Tail(backend, crawler.group, crawler.name)
        self._caught_up = False

    def print_news(self) -> None:
        """Tell what is new. What an earlier process of the same name left behind is not."""
        role = self._crawler.role
        if role is not None and role is not self._role:
            log.info("%s: %s, was %s", self._crawler.name, role, self._role)
            self._role = role
        try:
            events = self._tail.new()
        except BackendError:
            return  # Later, then: whoever works with the store tells that it is away.
        for event in events if self._caught_up else ():
            if event.get("kind") in ("claim", "handover"):
                log.info("%s: %s", self._crawler.name, handover(event))
        self._caught_up = True


def handover(event: Event) -> str:
    """A handover in words."""
    numbers = cast("list[object]", event.get("shards") or ())
    shards = ranges(number for number in numbers if isinstance(number, int)) or "none"
    if event.get("from") is None:
        return f"took shards {shards}"
    if event["from"] == event.get("member") != event.get("to"):  # Not from an earlier process of the same name.
        return f"handed shards {shards} to {event.get('to')}"
    times = {what: event.get(f"{what}_ms") for what in ("detected", "claimed", "resumed")}
    details = [str(event.get("evidence")), *(f"{what} {ms} ms" for what, ms in times.items() if ms is not None)]
    return f"took over shards {shards} from {event['from']} ({', '.join(details)})"
