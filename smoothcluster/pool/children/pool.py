"""The pool of a member's child processes: a host for suspects, or with `Isolation` a child for each running task.

A task to run alone gets a fresh child beside a bystander, a child without a task. A killer that picks
children at random also kills bystanders, so a dead bystander points to a kill from outside.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import final

from smoothcluster.clock import SYSTEM_CLOCK, Clock
from smoothcluster.options import Isolation
from smoothcluster.pool.children.handler_ref import Origin
from smoothcluster.pool.children.host import Host
from smoothcluster.pool.children.process import Child, UnableError
from smoothcluster.pool.children.protocol import Apart
from smoothcluster.pool.children.starter import Starter
from smoothcluster.pool.protocol import always
from smoothcluster.pool.run import Run, RunState

log = logging.getLogger("smoothcluster")

RESTART_PAUSE_SECONDS = 0.1
"""Seconds between the failed start of a child and the next start."""


def _ignore() -> None:
    """Ignore the news of a child."""


@final
class Children(Apart):
    """A host for *most* suspects; or, if all tasks run in children, *most* children for a task each.

    Bystanders and children for tasks that run alone come on top.

    Args:
        origin: where children find the handler; None if they cannot.
        most: how many children run tasks at once.
        isolation: the limits of each task, if all tasks run in children; None if only suspects do, without limits.
        wake: called, from any thread, when a child has become ready, or has failed to.
        clock: the source of time.
        spawn: makes a child process.
    """

    def __init__(
        self,
        origin: Origin | None,
        most: int,
        isolation: Isolation | None = None,
        wake: Callable[[], None] = _ignore,
        clock: Clock = SYSTEM_CLOCK,
        spawn: Callable[..., Child] = Child,
    ) -> None:
        self.every = isolation is not None
        limits = isolation or Isolation()
        width = None if self.every else most
        self._most, self._timeout, self._wake, self._clock = most, limits.timeout, wake, clock
        self._change = threading.Condition()
        self._starter = Starter(origin, limits.memory, width, self._change, clock, spawn, every=self.every)
        self._idle: list[Child] = []
        self._host: Host | None = None
        self._working = 0
        """The number of idle, busy and starting children, if all tasks run in children."""
        self._coming = 0
        self._bystander: Child | None = None
        self._disturbed_at = -1e9

    @property
    def able(self) -> bool | None:
        return self._starter.able

    def ready(self, waiting: int) -> int:
        with self._change:
            if self._starter.able is False or self._starter.closed:
                return 0
            if self.every:
                return max(1, self._most // 2)  # Suspects run alone, beside the other tasks.
            if self._usable_host() is not None:
                return self._most
            if waiting:
                self._bring_up_host()
            return 0

    def warm_up(self) -> None:
        """Start what a takeover needs, in the background: the host, or all the children. Any thread may call this."""
        with self._change:
            if self._starter.able is False or self._starter.closed:
                return
            if not self.every:
                self._bring_up_host()
            elif not self._coming and self._working < self._most:
                self._bring_up(self._most - self._working)

    def disturbed(self, since: float) -> bool:
        with self._change:
            quiet = [*self._idle, *([self._bystander] if self._bystander is not None else [])]
            if not all(child.alive() for child in quiet):
                self._disturbed_at = self._clock.monotonic()
            self._idle = [child for child in self._idle if child.alive() or self._forget(child)]
            if self._bystander is not None and not self._bystander.alive():
                self._starter.all.discard(self._bystander)
                self._bystander.end()
                self._bystander = None
            self._usable_host()
            return self._disturbed_at >= since

    def run(self, run: Run, can_start: Callable[[Run], bool] = always) -> None:
        try:
            if not (run.alone or self.every):
                self._run_in_host(run, can_start)
                return
            child = self._alone() if run.alone else self._lease()
            if child is not None:
                self._run_in(child, run, can_start)
        except Exception:  # A worker of the pool waits here, and must go on.
            log.exception("task %r has not run in a child process", run.task.id)
            self._clock.sleep(RESTART_PAUSE_SECONDS)

    def _run_in(self, child: Child, run: Run, can_start: Callable[[Run], bool]) -> None:
        try:
            if can_start(run):
                child.run(run, self._timeout)
        except BaseException:
            child.end()
            raise
        finally:
            if run.state is RunState.DIED:
                self._starter.keep_spare()
            if run.alone:
                child.end()
                with self._change:
                    self._starter.all.discard(child)
            else:
                self._give_back(child)

    def check(self) -> str | None:
        """Return why no child can import a handler that has an origin; None if children can.

        At the first call, and after a failure, this starts a child, which the pool keeps.
        """
        if self._starter.origin is None or self._starter.able:
            return None
        child, why = self._starter.tried()
        if child is None:
            return why
        with self._change:
            self._working += self.every
            self._keep(child)
        return None

    def close(self) -> None:
        """End all children, busy children included."""
        self._starter.close()

    # The caller of these methods holds the lock

    def _forget(self, child: Child) -> bool:
        child.end()
        self._starter.all.discard(child)
        self._working -= 1
        return False

    def _bring_up(self, number: int = 1) -> None:
        """Start *number* further children, one after another, in the background."""
        try:
            threading.Thread(target=self._grow, args=(number,), name="smoothcluster-child", daemon=True).start()
        except RuntimeError as error:  # The process has as many threads as it may have.
            log.warning("no child process can be started: %s", error)
            return
        self._working += number if self.every else 0
        self._coming += number

    def _bring_up_host(self) -> None:
        """Start a host in the background, unless there is one."""
        if self._usable_host() is None and not self._coming:
            self._bring_up()

    def _usable_host(self) -> Host | None:
        """Return the host; None if dead or spent. The death of an idle host shows that kills come from outside."""
        host = self._host
        if host is None or host.usable:
            return host
        if host.died_idle:
            self._disturbed_at = self._clock.monotonic()
        self._host = None
        self._starter.all.discard(host.child)
        return None

    def _keep(self, child: Child) -> None:
        """Keep a ready child: for any task, or as the host."""
        if self.every:
            self._idle.append(child)
        else:
            self._host = Host(child, self._clock)
        self._change.notify_all()

    # The caller of these methods does not hold the lock

    def _run_in_host(self, run: Run, can_start: Callable[[Run], bool]) -> None:
        with self._change:
            while (
                (host := self._usable_host()) is None and self._starter.able is not False and not self._starter.closed
            ):
                self._bring_up_host()
                self._change.wait(1.0)
        if host is None or not can_start(run):
            return
        host.run(run)
        if run.state is RunState.DIED:
            self._starter.keep_spare()

    def _lease(self) -> Child | None:
        with self._change:
            while not self._starter.closed and self._starter.able is not False:
                while self._idle:
                    child = self._idle.pop()
                    if child.alive():
                        return child
                    self._disturbed_at = self._clock.monotonic()
                    self._forget(child)
                if self._working < self._most:
                    self._bring_up()
                self._change.wait(1.0)
            return None

    def _give_back(self, child: Child) -> None:
        if child.spent or self._starter.closed:
            child.end()
        with self._change:
            if child.spent:
                self._forget(child)
            else:
                self._idle.append(child)
            self._change.notify()

    def _grow(self, number: int) -> None:
        """Start children, wait until each is ready, and notify the waiting threads."""
        for _ in range(number):
            child = None
            with suppress(UnableError):
                child = self._starter.made()
            with self._change:
                self._coming -= 1
                if child is not None:
                    self._keep(child)
                else:
                    self._working -= self.every
                    self._change.notify_all()
            if child is None:
                self._clock.sleep(RESTART_PAUSE_SECONDS)
            self._wake()

    def _alone(self) -> Child | None:
        """Return a fresh child, beside a bystander. The bystander need not get ready, because only a death counts."""
        self.disturbed(0.0)  # Deaths before this run must not count.
        if self._bystander is None:
            self._bystander = self._starter.spawned()
        try:
            return self._starter.made_alone() if self._bystander is not None else None
        except UnableError:
            return None
