"""`ClusterCrawler`, a member of a group of crawlers: joins the group and runs tasks in this process.

crawler = ClusterCrawler(backend=ZookeeperBackend("host:2181"), runner=3, backup=2, handler=fetch)
crawler.run()
"""

# long: most lines describe the keywords of the constructor

import logging
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from smoothcluster.arguments import check_backend, check_callable, check_kind, check_name, check_text, shown
from smoothcluster.backend import CoordinationBackend
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import (
    GuaranteeError,
    LeaseLostError,
    NameInUseError,
    OutcomeUnknownError,
    SmoothclusterError,
    UnavailableError,
    UsageError,
)
from smoothcluster.group.breaker import Pacing
from smoothcluster.group.election import Order, join_order
from smoothcluster.group.spec import INDEX_PLACEHOLDER, Wanted
from smoothcluster.lifetime import SPAWN_ADVICE, OwnProcess
from smoothcluster.member.leave_signals import LeaveSignals
from smoothcluster.member.main_thread import release_locks_of, work_beside_main_thread
from smoothcluster.member.process import MemberProcess
from smoothcluster.member.settings import Settings
from smoothcluster.model import Handler, Role
from smoothcluster.options import DEFAULT_MAX_TASKS, Isolation, Retries
from smoothcluster.pool.children.main import importing
from smoothcluster.pool.handlers import check_handler
from smoothcluster.retry import patiently

log = logging.getLogger("smoothcluster")

EXTRA_JOIN_SECONDS = 2.0
"""Seconds, on top of one and a half lease times, within which joining is retried."""


class ClusterCrawler:
    """A member of a group of crawlers: a Runner, or a Backup Runner as a standby.

    The constructor joins the group and takes part in the election, so `role` is known afterwards. `run` then works
    until the process is told to stop.

    Args:
        backend: the store of the group, such as ``ZookeeperBackend("host:2181")``.
        runner: how many members are Runners. All members of a group must give the same number, or leave out *runner*
            and *backup* to use the numbers of the group.
        backup: how many members are meant to stand by. Without this number, all members are Runners, and each is the
            backup of the others. Members beyond the numbers stand by, too.
        handler: called for each task, as ``handler(task, context)``, in a thread; or an
            ``async def``, on an event loop. Returns a JSON value of up to 256 KiB. The handler runs at
            least once for every task (at-least-once); the outcome is recorded once.
        name: the name of the member, unique in the group. ``<index>`` becomes the smallest free number.
        group: which group to join.
        concurrency: how many handlers run at once in this process.
        lease_ttl: seconds without heartbeat after which the store expires the lease of this member. Deaths of processes
            are noticed much sooner; the lease is for pauses and cut cables. With a shorter lease, a pause is taken for
            a death sooner. With a longer lease, the tasks of a disconnected machine wait longer.
        retries: how often a task whose handler raises is tried, and the pauses between the tries; one try if None.
        grace: seconds for running handlers to finish when the member leaves.
        shards: the number of shards of the group, for good; None for 32, or four for each Runner if that is more.
        listen: where this member listens for the failure detector, as ``ADDRESS[:PORT[-PORT]][@ADVERTISED]``: an
            address of this machine, a port or a range of ports (the first free port is used), and the address by
            which other members reach this machine. IPv6 addresses stand in brackets. If None, any free port on the
            address by which this machine reaches others, or on loopback if the store is on this machine alone.
        order: the key by which candidates for a free seat are sorted; in order of joining if None.
        capacity: how many shards this member takes at most; None for any number. Shards beyond the capacity of all
            members appear as *unassigned* in `status` until a member has room.
        pacing: how slowly members adopt the shards of dead members, and when the circuit breaker stops adoption.
        warm_up: called without arguments, in a thread of its own, now and then while this member stands
            by. If the call raises, the member is unfit: `status` shows this, and the election passes over the member.
        isolation: ``Isolation()`` to run every task in a child process, so a task which kills the process costs no
            member, and the limits of each task there; None to run only suspects in children. With `Isolation`, the
            handler must be a function which a fresh Python can import.
        require: the least guarantees of the store, by the names of `Guarantees`, such as
            ``{"survives_failover": True}``; nothing if None.
        results: the URL of the results sink, such as ``file:///data/out``, ``s3://bucket/crawl`` or
            ``postgresql+psycopg://host/items``; the group's sink if None. Without a sink, outcomes stay in the store.
        max_tasks: for jobs without *max_tasks*: the number of tasks beyond which tasks added by handlers are refused.
        join: False to leave joining to `run`, `start` or `join`.

    Raise UsageError for invalid arguments, NameInUseError if a living member has the
    name (after waiting one lease time for the name), SpecMismatchError if the living group has other
    numbers or another results sink, GuaranteeError if the store promises less than *require*, UnavailableError if the
    store cannot be reached within the timeout, SinkUnavailableError if this member brings the results sink to the group
    and the sink is away.
    """

    def __init__(  # parameters: each setting of a member has a keyword of its own. # long: most lines are keywords
        self,
        *,
        backend: CoordinationBackend,
        handler: Handler,
        runner: int | None = None,
        backup: int | None = None,
        name: str = f"crawler_{INDEX_PLACEHOLDER}",
        group: str = "default",
        concurrency: int = 8,
        lease_ttl: float = 10.0,
        retries: Retries | None = None,
        grace: float = 10.0,
        shards: int | None = None,
        listen: str | None = None,
        order: Order = join_order,
        capacity: int | None = None,
        pacing: Pacing | None = None,
        warm_up: Callable[[], object] | None = None,
        require: Mapping[str, float] | None = None,
        isolation: Isolation | None = None,
        results: str | None = None,
        max_tasks: int = DEFAULT_MAX_TASKS,
        join: bool = True,
    ) -> None:
        if importing():
            raise UsageError("a child process imports this module to find the handler, so make crawlers in functions")
        for keyword, value, kind in (
            ("retries", retries, Retries), ("isolation", isolation, Isolation), ("pacing", pacing, Pacing),
        ):  # fmt: skip
            check_kind(keyword, value, kind)
        check_backend(backend)
        _check_others(listen, warm_up, require)
        wanted = Wanted(name, runner, backup, shards).with_results(results)
        check_handler(handler)
        self.group = check_name("group", group)
        settings = Settings(
            self.group, wanted, concurrency, lease_ttl, retries or Retries(), grace, order, capacity,
            pacing or Pacing(), max_tasks,
        ).check()  # fmt: skip
        self._backend, self._require, self._lease_ttl = backend, require or {}, lease_ttl
        self._process = MemberProcess(backend, settings, handler, isolation, warm_up, listen)
        self._loop = self._process.loop
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._over = False
        self._own_process = OwnProcess(
            "this crawler", f"make backend and crawler in the child process, or {SPAWN_ADVICE}"
        )
        if join:
            try:
                self.join()
            except BaseException as error:
                release_locks_of(error)
                self.stop()
                raise

    @property
    def name(self) -> str | None:
        """This member's name; None before it has joined."""
        return self._loop.name

    @property
    def role(self) -> Role | None:
        """This member's present role; None before joining, and from the moment at which the lease may be lost.

        While the store is out of reach for longer than the lease, another member may take the seat.
        """
        return self._loop.role

    def join(self) -> Role:
        """Join the group and take a free seat, if any. Do nothing if joined. Raise the constructor's errors."""
        self._refuse_if_over()
        if self._loop.life is None:
            self._check_guarantees()
            patiently(SYSTEM_CLOCK, 0.0, self._loop.mark_results)
        began = SYSTEM_CLOCK.monotonic()
        deadline = began + (1.5 * self._lease_ttl + EXTRA_JOIN_SECONDS)
        told = False
        while True:
            try:
                if self._loop.life is not None or patiently(SYSTEM_CLOCK, 0.0, self._loop.try_join):
                    return self._loop.take_seat()
                if began > deadline:
                    raise UnavailableError(
                        "the store accepted no join, or other members joined first again and again; try again later"
                    )
            except NameInUseError as error:
                if SYSTEM_CLOCK.monotonic() > deadline:
                    raise
                if not told:
                    log.warning("%s; waiting until the name is free", error)
                    told = True
                SYSTEM_CLOCK.sleep(0.05)
            except (OutcomeUnknownError, LeaseLostError) as error:
                # The store was silent for long: the deadline holds for the time of the request, not of the answer.
                if began > deadline:
                    raise
                log.warning("the member joins again: %s", error)
                self._loop.recover(error)
            began = SYSTEM_CLOCK.monotonic()

    def _check_guarantees(self) -> None:
        if not self._require:
            return
        patiently(SYSTEM_CLOCK, 0.0, self._backend.sync)  # Some are known only after a first contact with the store.
        try:
            lacking = self._backend.guarantees.lacks(self._require)
        except (TypeError, ValueError) as error:
            raise UsageError(f"require: {error}") from None
        if lacking:
            raise GuaranteeError(f"{self._backend.url} promises less than is required: {'; '.join(lacking)}")

    def run(self) -> None:
        """Work until a call of `stop`, or until the process gets SIGTERM or SIGINT; then leave the group and return.

        In the main thread, `run` handles the signals. In another thread, only `stop` ends `run`.
        Signals within a second count once; a later signal ends the process at once. If another signal handler of the
        program raises in the main thread, such as for an alarm, `run` logs the exception, and the member goes on. After
        SystemExit, KeyboardInterrupt and the like the member leaves the group, and `run` raises the exception.
        """
        if threading.current_thread() is not threading.main_thread():
            self._work()
            return
        with LeaveSignals(self._leave_for):
            work_beside_main_thread(self._work, self._process.inbox.ask_to_leave)

    def _leave_for(self, name: str) -> None:
        try:
            log.warning(
                "%s: the member leaves the group; a signal after more than a second ends the process at once", name
            )
        finally:  # A log handler may raise.
            self._process.inbox.ask_to_leave()

    def _work(self) -> None:
        self._refuse_if_over()
        try:
            if self._loop.life is None:  # Otherwise the loop goes on, even if the store has gone away since.
                self.join()
            self._process.readiness.start()
            self._loop.run()
        finally:
            self._close()

    def _refuse_if_over(self) -> None:
        self._own_process.check()
        if self._over:
            raise UsageError("this crawler has left its group; make a new crawler")

    def start(self) -> Self:
        """Work in a background thread until a call of `stop`. Raise UsageError after `stop`: make a new crawler."""
        self._refuse_if_over()
        if self._thread is None:
            self.join()
            self._thread = threading.Thread(target=self._work_quietly, name="smoothcluster-member", daemon=True)
            self._thread.start()
        return self

    def _work_quietly(self) -> None:
        try:
            self._work()
        except SmoothclusterError as error:
            self._failure = error
            log.error("%s has stopped: %s", self.name, error)  # noqa: TRY400  # `stop` raises it

    def stop(self) -> None:
        """Leave the group: finish or hand back running tasks within the grace period. May be called repeatedly.

        If another thread is in `run`, `stop` only asks to leave, and `run` returns when done. If the background
        thread of `start` has ended with an error, raise this error. Call `stop` before the backend is closed: after
        that, `stop` raises BackendClosedError, and the lease must run out. In a forked child, do nothing.
        """
        if not self._own_process.is_current:
            return
        self._process.inbox.ask_to_leave()
        if self._thread is not None:
            self._thread.join()
        elif not self._loop.working:
            try:
                self._loop.run()
            finally:
                self._close()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _close(self) -> None:
        self._over = True
        self._loop.close()
        self._process.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _check_others(listen: object, warm_up: object, require: object) -> None:
    """Raise UsageError for a wrong type of an argument that may be None."""
    if listen is not None:
        check_text("listen", listen)
    if warm_up is not None:
        check_callable("warm_up", warm_up)
    if require is not None and not isinstance(require, Mapping):
        raise UsageError(f'require must be a dict such as {{"survives_failover": True}}, not {shown(require)}')
