"""``smoothcluster run``: run a member of a group in this process."""

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
from smoothcluster.cli.output import print_data
from smoothcluster.cli.supervised import supervised
from smoothcluster.cli.supervisor import supervise
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.cluster import Cluster
from smoothcluster.crawler import ClusterCrawler
from smoothcluster.errors import BackendError, UsageError
from smoothcluster.failure_detector.listen_address import LISTEN_FORM, ListenAddress
from smoothcluster.group.spec import INDEX_PLACEHOLDER
from smoothcluster.member.main_thread import release_locks_of
from smoothcluster.model import Handler
from smoothcluster.options import DEFAULT_MAX_TASKS, Isolation, Retries
from smoothcluster.registry import BACKEND_VARIABLE, DEFAULT_URL, masked

RESTART_OPTION = "--again"
"""Given to a restarted member. The member takes the group's present numbers."""

EVENT_POLL_SECONDS = 0.5
"""Seconds between two checks for news about the member."""


seconds = partial(click.option, type=float, metavar="SECONDS", show_default=True)
number = partial(click.option, type=int, metavar="N", show_default=True)


@click.command()
@click.argument("handler", metavar="MODULE:HANDLER")
@number("--runner", help="Number of Runners; the same for all members, or left out for the group's number.")
@number("--backup", help="Number of Backup Runners. If left out, all members are Runners.")
@click.option(RESTART_OPTION, is_flag=True, hidden=True)
@click.option(
    "--name",
    default=f"crawler_{INDEX_PLACEHOLDER}",
    show_default=True,
    help=f"Name of the member. {INDEX_PLACEHOLDER} becomes the smallest free number.",
)
@number("--concurrency", default=8, help="Number of handlers that run at once in this member.")
@number("--capacity", help="The most shards that this member takes; any number if left out.")
@number("--max-attempts", default=1, help="How often a task is tried if its handler raises.")
@seconds("--retry-delay", default=1.0, help="Pause before the second try, doubled for each further try.")
@seconds("--lease-ttl", default=10.0, help="Time without a heartbeat after which the store ends this member's lease.")
@seconds("--grace", default=10.0, help="Time for running handlers to finish when the member leaves.")
@click.option(
    "--members",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Number of members on this machine, a process each. A dead process is restarted.",
)
@click.option(
    "--isolation",
    type=click.Choice(["process"]),
    help="Run every task in a child process, so that a killing task costs no member.",
)
@seconds("--task-timeout", help="Time after which a task is stopped and fails; needs --isolation.")
@click.option(
    "--task-memory",
    type=int,
    metavar="BYTES",
    help="The most that a task may allocate before the task fails; needs --isolation.",
)
@click.option(
    "--max-tasks",
    type=click.IntRange(1),
    default=DEFAULT_MAX_TASKS,
    show_default=True,
    metavar="N",
    help="Most tasks of a job submitted without --max-tasks: further tasks added by handlers are refused.",
)
@click.option(
    "--results",
    metavar="URL",
    help="Results sink, as in file:///data/out, s3://bucket/crawl or sqlite:///items.db; the same for all members, or "
    "left out for the group's sink. Without a sink, results stay in the store.",
)
@click.option(
    "--listen",
    metavar=LISTEN_FORM,
    help="Where this member listens, so that other members notice its death: an address of this machine, a port or a "
    "range of ports, and the address by which others reach this machine. Found automatically if left out.",
)
@common
def run(handler: str, url: str | None, members: int, again: bool, **settings: Any) -> None:  # noqa: FBT001  # an option
    """Run a member of a group in this process.

    The member is a Runner, or a Backup Runner that stands by. At Ctrl-C or SIGTERM the member leaves
    the group and the process ends. A second signal ends the process without waiting for handlers.

    HANDLER is a function in MODULE. The member calls the function with each task and a context.
    Modules in the current directory are found.
    """
    if members > 1:
        call = load_handler(handler)
        _check_ports(settings["listen"], members)
        if INDEX_PLACEHOLDER not in settings["name"]:
            raise UsageError(f"{members} members need {members} names: put {INDEX_PLACEHOLDER} into --name")
        _check(call, url, **_grouped(**settings))
        named = url or (None if os.environ.get(BACKEND_VARIABLE) else DEFAULT_URL)
        options = [] if named is None else ["--backend", named]
        given = {f"--{name.replace('_', '-')}": value for name, value in settings.items() if value is not None}
        options += [str(word) for pair in given.items() for word in pair]
        click.get_current_context().exit(supervise(["run", handler, *options], RESTART_OPTION, members))
    with supervised():
        _be_member(load_handler(handler), url, again=again, **_grouped(**settings))


def _check_ports(listen: str | None, members: int) -> None:
    """Raise UsageError if there are fewer ports than *members*."""
    ports = None if listen is None else ListenAddress.parse(listen).ports
    if ports is not None and len(ports) < members:
        raise UsageError(f"{members} members need {members} ports: give a range of ports to --listen ({LISTEN_FORM})")


def _check(call: Handler, url: str | None, **settings: Any) -> None:
    """Raise UsageError for a wrong setting: once, instead of once for each member.

    If no store is given, print the default store, likewise.
    """
    settings["isolation"] = None  # With isolation, the constructor would start a child process for a check of its own.
    with opened(url) as backend:
        ClusterCrawler(backend=backend, handler=call, join=False, **settings).stop()


def _be_member(call: Handler, url: str | None, *, again: bool, **settings: Any) -> None:
    with opened(url) as backend, _sigterm_interrupts():
        try:
            if again and _has_numbers(Cluster(backend, settings["group"])):
                settings |= {"runner": None, "backup": None}  # `smoothcluster spec` may have changed the numbers.
            crawler = ClusterCrawler(backend=backend, handler=call, **settings)
        except KeyboardInterrupt:
            return  # The constructor has given everything back.
        try:
            line = f"{crawler.name} {crawler.role} in group {crawler.group} at {masked(backend.url)}"
            print_data(line, flush=True)
            with _narrated(crawler, backend):
                crawler.run()
        except KeyboardInterrupt as error:
            release_locks_of(error)
            crawler.stop()  # The signal came before `run` could handle signals.
        except BaseException:
            crawler.stop()
            raise
        log.info("%s left group %s", crawler.name, crawler.group)


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
    """Log news about *crawler* from a thread, until the block ends."""
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
        thread.join(EVENT_POLL_SECONDS)  # No longer: the thread may wait for a store out of reach.


class Narrator:
    """Logs changes of the member's role, and the handovers of the member's shards."""

    def __init__(self, crawler: ClusterCrawler, backend: CoordinationBackend) -> None:
        self._crawler = crawler
        self._role = crawler.role
        self._tail = Tail(backend, crawler.group, crawler.name)
        self._caught_up = False

    def print_news(self) -> None:
        """Log the news since the last call. The first call skips events of an earlier process of the same name."""
        role = self._crawler.role
        if role is not None and role is not self._role:
            log.info("%s is now a %s and was a %s", self._crawler.name, role, self._role)
            self._role = role
        try:
            events = self._tail.new()
        except BackendError:
            return  # The member itself logs that the store is out of reach. The next call reads the events.
        for event in events if self._caught_up else ():
            if event.get("kind") in ("claim", "handover"):
                log.info("%s %s", self._crawler.name, handover(event))
        self._caught_up = True


def handover(event: Event) -> str:
    """Describe a handover in words. The member is the subject."""
    found = event.get("shards")
    numbers = cast("list[object]", found) if isinstance(found, list) else []
    shards = ranges(number for number in numbers if isinstance(number, int)) or "none"
    if event.get("from") is None:
        return f"took shards {shards}"
    if (
        event["from"] == event.get("member") != event.get("to")
    ):  # An earlier process of the same name hands over nothing.
        return f"handed shards {shards} to {event.get('to')}"
    times = {what: event.get(f"{what}_ms") for what in ("detected", "claimed", "resumed")}
    details = [str(event.get("evidence")), *(f"{what} {ms} ms" for what, ms in times.items() if ms is not None)]
    return f"took over shards {shards} from {event['from']} ({', '.join(details)})"
