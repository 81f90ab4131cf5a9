"""`ClusterCrawler`, a member of a group of crawlers: joins the group and runs tasks in this process.

crawler = ClusterCrawler(backend=ZookeeperBackend("host:2181"), runner=3, backup=2, handler=fetch)
crawler.run()
"""

import _thread
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType, TracebackType
from typing import Self

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
from smoothcluster.failure_detector import Listener, Prober, Proof
from smoothcluster.group.breaker import Pacing
from smoothcluster.group.election import Order, join_order
from smoothcluster.group.spec import INDEX, Wanted
from smoothcluster.group.store import random_id
from smoothcluster.member.environment import Environment
from smoothcluster.member.inbox import Inbox
from smoothcluster.member.loop import MemberLoop
from smoothcluster.member.readiness import Readiness
from smoothcluster.member.settings import Settings
from smoothcluster.model import Handler, Role, check_name
from smoothcluster.options import Isolation, Retries
from smoothcluster.pool import make_pool
from smoothcluster.pool.children.limits import make_children
from smoothcluster.pool.children.main import importing
from smoothcluster.pool.handlers import check_handler
from smoothcluster.recipes.session import Session
from smoothcluster.retry import patiently

log = logging.getLogger("smoothcluster")

JOINING = 2.0
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
        lease_ttl: seconds without heartbeat after which the store expires the lease of this member.
            Deaths of processes are noticed much sooner; the lease is for pauses and cut cables.
            With a shorter lease, a pause is taken for a death sooner. With a longer lease, the tasks of a
            disconnected machine wait longer.
        retries: how often a task whose handler raises is tried, and the pauses between the tries; one try if None.
        grace: seconds for running handlers to finish when the member leaves.
        shards: the number of shards of the group, which never changes; None for 32, and at least
            four for each Runner.
        host: the address or host name at which other members reach this machine for failure
            detection; found out if None.
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
        join: False to leave joining to `run`, `start` or `join`.

    Raise UsageError for invalid arguments, NameInUseError if a living member has the
    name (after waiting one lease time for the name), SpecMismatchError if the living group has other
    numbers, GuaranteeError if the store promises less than *require*, UnavailableError if the store cannot
    be reached within the timeout.
    """

    def __init__(
        self,
        *,
        backend: CoordinationBackend,
        handler: Handler,
        runner: int | None = None,
        backup: int | None = None,
        name: str = f"crawler_{INDEX}",
        group: str = "default",
        concurrency: int = 8,
        lease_ttl: float = 10.0,
        retries: Retries | None = None,
        grace: float = 10.0,
        shards: int | None = None,
        host: str | None = None,
        order: Order = join_order,
        capacity: int | None = None,
        pacing: Pacing | None = None,
        warm_up: Callable[[], object] | None = None,
        require: Mapping[str, float] | None = None,
        isolation: Isolation | None = None,
        join: bool = True,
    ) -> None:
        if importing():
            raise UsageError("a child process imports this module for its handler: make crawlers in functions")
        wanted = Wanted(name, runner, backup, shards).check()
        _check_numbers(concurrency, lease_ttl, grace, capacity)
        _check_kinds(retries, isolation)
        check_handler(handler)
        self.group = check_name("group", group)
        settings = Settings(
            self.group, wanted, concurrency, lease_ttl, retries or Retries(), grace, order, capacity,
            (pacing or Pacing()).check(),
        )  # fmt: skip
        self._backend = backend
        self._require = require or {}
        self._lease_ttl = lease_ttl
        self._inbox = Inbox(SYSTEM_CLOCK)
        self._children = make_children(handler, concurrency, isolation, self._inbox.ring)
        self._listener = Listener(host)
        self._prober = Prober(self._on_proof)
        self._readiness = Readiness(
            self._children.check, warm_up, self._is_standing_by, self._inbox.wake.set, SYSTEM_CLOCK
        )
        environment = Environment(
            clock=SYSTEM_CLOCK,
            new_id=random_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            address=self._listener.address,
            announce=self._listener.announce,
            watch_peers=self._prober.watch,
            make_pool=partial(make_pool, handler, concurrency, apart=self._children),
            keep_alive=Session.start,
            inbox=self._inbox,
            apart=self._children,
            fitness=self._readiness.fitness,
        )
        self._loop = MemberLoop(backend, settings, environment)
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._over = False
        if join:
            try:
                self.join()
            except BaseException:
                self.stop()
                raise

    def _on_proof(self, incarnation: str, _: Proof, after: float) -> None:
        self._inbox.proved_gone(incarnation, after)

    def _is_standing_by(self) -> bool:
        return self._loop.role is Role.BACKUP_RUNNER

    @property
    def name(self) -> str | None:
        """This member's name; None before it has joined."""
        return self._loop.name

    @property
    def role(self) -> Role | None:
        """This member's present role; None before joining, and while the member joins anew after a lost lease."""
        return self._loop.role

    def join(self) -> Role:
        """Join the group and take a free seat, if any. Do nothing if joined. Raise the constructor's errors."""
        if self._loop.life is None:
            self._check_guarantees()
        began = SYSTEM_CLOCK.monotonic()
        deadline = began + (1.5 * self._lease_ttl + JOINING)
        told = False
        while True:
            try:
                if self._loop.life is not None or patiently(SYSTEM_CLOCK, 0.0, self._loop.try_join):
                    return self._loop.take_seat()
                if began > deadline:
                    raise UnavailableError("the store takes nobody in, or others were faster again and again")
            except NameInUseError as error:
                if SYSTEM_CLOCK.monotonic() > deadline:
                    raise
                if not told:
                    log.warning("%s; waiting for it", error)
                    told = True
                SYSTEM_CLOCK.sleep(0.05)
            except (OutcomeUnknownError, LeaseLostError) as error:
                # The store was silent for long: the deadline holds for the time of the request, not of the answer.
                if began > deadline:
                    raise
                log.warning("joining again: %s", error)
                self._loop.recover(error)
            began = SYSTEM_CLOCK.monotonic()

    def _check_guarantees(self) -> None:
        if not self._require:
            return
        patiently(SYSTEM_CLOCK, 0.0, self._backend.sync)  # Some are known only after a first contact with the store.
        try:
            lacking = self._backend.guarantees.lacks(self._require)
        except ValueError as error:
            raise UsageError(f"require: {error}") from None
        if lacking:
            raise GuaranteeError(f"{self._backend.url} promises less than is required: {'; '.join(lacking)}")

    def run(self) -> None:
        """Work until a call of `stop`, or until the process gets SIGTERM or SIGINT; then leave the group and return.

        In the main thread, `run` handles the signals. In another thread, only `stop` ends `run`.
        A second signal ends the process at once.
        """
        if threading.current_thread() is not threading.main_thread():
            self._work()
            return
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._work()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        # In a thread, started without taking a lock: the main thread, interrupted here, may hold any lock.
        _thread.start_new_thread(self._leave_for, (signal.Signals(number).name,))

    def _leave_for(self, name: str) -> None:
        try:
            log.warning("%s: leaving; once more to stop at once", name)
        finally:  # A log handler may raise.
            self._inbox.ask_to_leave()

    def _work(self) -> None:
        if self._over:
            raise UsageError("this crawler has left its group; make a new one")
        try:
            self.join()
            self._readiness.start()
            self._loop.run()
        finally:
            self._close()

    def start(self) -> Self:
        """Work in a background thread until a call of `stop`."""
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
        thread of `start` has ended with an error, raise this error.
        """
        self._inbox.ask_to_leave()
        if self._thread is not None:
            self._thread.join()
        elif not self._loop.working:
            self._loop.run()
            self._close()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _close(self) -> None:
        self._over = True
        self._readiness.stop()
        self._loop.pool.stop(0.0)
        self._children.close()
        self._prober.close()
        self._listener.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _check_numbers(concurrency: int, lease_ttl: float, grace: float, capacity: int | None) -> None:
    if type(concurrency) is not int or concurrency < 1:
        raise UsageError(f"concurrency must be a whole number of at least 1, not {concurrency!r}")
    if not lease_ttl > 0:
        raise UsageError(f"lease_ttl must be more than 0 seconds, not {lease_ttl!r}")
    if not grace >= 0:
        raise UsageError(f"grace must be 0 seconds or more, not {grace!r}")
    if capacity is not None and (type(capacity) is not int or capacity < 1):
        raise UsageError(f"capacity must be a whole number of at least 1, or None, not {capacity!r}")


def _check_kinds(retries: object, isolation: object) -> None:
    """Raise UsageError for a plain value in place of a group of options, with the value to write instead."""
    if not isinstance(retries, Retries | None):
        raise UsageError(f"retries must be Retries(…) or None, not {retries!r:.80}; for example Retries(attempts=3)")
    if not isinstance(isolation, Isolation | None):
        raise UsageError(f"isolation must be Isolation(…) or None, not {isolation!r:.80}; for example Isolation()")
