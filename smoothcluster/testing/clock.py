"""A clock moved only by a test, and a helper that waits for a condition."""

import math
import threading
from collections.abc import Callable
from typing import TypeVar, final

from smoothcluster.clock import SYSTEM_CLOCK, Clock, Signal

Seen = TypeVar("Seen")

_STUCK_AFTER_SECONDS = 60.0
"""Seconds of real time after which a wait counts as stuck: the test never ends the wait."""


@final
class _HeldSignal(Signal):
    def __init__(self, clock: "HeldClock") -> None:
        self._clock = clock
        self._flag = False

    def set(self) -> None:
        with self._clock.moved:
            self._flag = True
            self._clock.moved.notify_all()

    def clear(self) -> None:
        self._flag = False

    def is_set(self) -> bool:
        return self._flag

    def wait(self, timeout: float | None = None) -> bool:
        clock = self._clock
        with clock.moved:
            until = math.inf if timeout is None else clock.monotonic() + timeout

            def waiting() -> bool:
                return not self._flag and clock.monotonic() < until

            clock.waits.append(waiting)
            try:
                while waiting():
                    if not clock.moved.wait(_STUCK_AFTER_SECONDS):
                        raise TimeoutError("no thread moves the held clock, so the wait cannot end")
                return self._flag
            finally:
                clock.waits.remove(waiting)


@final
class HeldClock(Clock):
    """A clock moved by `advance` alone; waits on signals end when their time has come."""

    def __init__(self, start: float = 1000.0) -> None:
        self.moved = threading.Condition()
        self.waits: list[Callable[[], bool]] = []
        """For each waiting thread, whether the thread still has reason to wait."""
        self.listeners: list[Callable[[], None]] = []
        """Called after each move, in the thread of the mover: `MemoryStore.expire`, for instance."""
        self._now = start

    @property
    def waiting(self) -> int:
        """The number of threads waiting on signals of this clock, without those about to wake."""
        with self.moved:
            return sum(waiting() for waiting in self.waits)

    def monotonic(self) -> float:
        return self._now

    def wall(self) -> float:
        return 1_600_000_000.0 + self._now

    def signal(self) -> Signal:
        return _HeldSignal(self)

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass."""
        with self.moved:
            self._now += seconds
            self.moved.notify_all()
        for listener in self.listeners:
            listener()


def eventually(condition: Callable[[], Seen], within: float = 30.0) -> Seen:
    """Return the first true value of *condition*; raise AssertionError if there is none *within* seconds."""
    until = SYSTEM_CLOCK.monotonic() + within
    while True:
        seen = condition()
        if seen:
            return seen
        if SYSTEM_CLOCK.monotonic() >= until:
            raise AssertionError(f"still {seen!r} after {within} seconds: {condition}")
        SYSTEM_CLOCK.sleep(0.005)
