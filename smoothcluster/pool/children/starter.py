"""Start of child processes: spawn a child, wait until the child is ready, and notice if children never get ready."""

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import final

from smoothcluster.clock import Clock
from smoothcluster.pool.children.handler_ref import Origin
from smoothcluster.pool.children.process import LONGEST_START_SECONDS, Child, UnableError
from smoothcluster.pool.children.spawner import Spawner

log = logging.getLogger("smoothcluster")

MOST_FAILED_STARTS = 3
"""The number of children in a row to die before they are ready, until the pool concludes that all will."""

START_FAILURE_REASON = "child processes die while they get ready"


@final
class Starter:
    """Starts the children of one pool. *lock* is the pool's: a caller that holds the lock finds all children here.

    Args:
        origin: where children find the handler; None if they cannot.
        memory: the limit of each task in bytes; None without a limit.
        width: how many tasks a child of the pool runs at once; None for one task.
        every: whether all tasks run in children: then failures never lead to the conclusion that no child can.
    """

    def __init__(
        self, origin: Origin | None, memory: int | None, width: int | None, lock: threading.Condition, clock: Clock,
        spawn: Callable[..., Child], *, every: bool,
    ) -> None:  # fmt: skip  # parameters: the pool's own settings, handed on
        self.origin, self._memory, self._width, self._every = origin, memory, width, every
        self._lock, self._clock, self._spawn = lock, clock, spawn
        self.able: bool | None = None if origin is not None else False
        """Whether children can run the handler; None while unknown."""
        self.all: set[Child] = set()
        """Every child not known to be dead."""
        self.closed = False
        self._failures = 0
        """The number of children in a row to fail before they were ready, without a kill from outside."""
        self._failing_since: float | None = None
        self._told = False
        """Whether a warning has said that no child gets ready."""
        self._spare: Child | None = None
        """A child in reserve for the next task to run alone."""
        self._spawner = Spawner()

    def close(self) -> None:
        """End all children, busy children included, and start no other. The caller has woken those who wait."""
        with self._lock:
            self.closed = True
            children, self.all = list(self.all), set()
            self._lock.notify_all()
        self._spawner.close()
        for child in children:
            child.end()

    def keep_spare(self) -> None:
        """Spawn a spare, which gets ready during the wait until the death of another child counts."""
        if self._spare is None:
            self._spare = self.spawned()

    def tried(self) -> tuple[Child | None, str]:
        """Return a ready child of the pool after a few attempts, or None and the reason."""
        for _ in range(MOST_FAILED_STARTS):  # A kill from outside may end a child.
            try:
                child = self.made()
            except UnableError as error:
                return None, str(error)
            if child is not None:
                return child, ""
        return None, START_FAILURE_REASON

    def made(self) -> Child | None:
        """Return a new, ready child of the pool; None if it died first. Raise UnableError if the import fails."""
        return self._greeted(self.spawned(width=self._width))

    def made_alone(self) -> Child | None:
        """Do the same for a child that runs a single task."""
        with self._lock:
            child, self._spare = self._spare, None
        return self._greeted(child or self.spawned())

    def _greeted(self, child: Child | None) -> Child | None:
        error: UnableError | None = None
        try:
            ready = child is not None and child.greet()
        except UnableError as unable:
            ready, error = False, unable
        with self._lock:
            if ready:
                self.able, self._failures, self._failing_since, self._told = True, 0, None, False
                return child
            self._failed(child, START_FAILURE_REASON if error is None else str(error))
            self.all -= {child}
        if error is not None:
            raise error
        return None

    def spawned(self, *, width: int | None = None) -> Child | None:
        """Spawn a child; None if no child can be spawned now."""
        assert self.origin is not None
        child = self._spawner.spawned(partial(self._spawn, self.origin, self._memory, self._clock, width=width))
        if child is not None:
            with self._lock:
                self.all.add(child)
                closed = self.closed
            if closed:
                child.end()
        return child

    def _failed(self, child: Child | None, why: str) -> None:
        """Count a child that failed to start. A kill from outside counts only after `LONGEST_START_SECONDS`."""
        now = self._clock.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        if child is None or not child.killed or now - self._failing_since > LONGEST_START_SECONDS:
            self._failures += MOST_FAILED_STARTS if why != START_FAILURE_REASON else 1
        if self._failures < MOST_FAILED_STARTS or self.closed:
            return
        if not self._every and self.able is not False:
            self.able = False
            log.warning("no child process can run the handler (%s), so suspect tasks run alone in this process", why)
        elif self._every and self.able and not self._told:
            self._told = True
            log.warning("no child process gets ready (%s); tasks wait while the member tries again", why)
