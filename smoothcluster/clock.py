"""Time, as a parameter: the only module that reads a clock or waits on one.

Decisions use `monotonic`, and only ever compare readings taken in the same process.
`wall` is for people: it is written into records and events and never compared.
Everything that waits does so on a `Signal` made by a clock, so that the simulator can
put its own time under the real code.
"""

import threading
import time
from abc import abstractmethod
from typing import Protocol, final


class Signal(Protocol):
    """A flag that a thread can wait for; `threading.Event` is one."""

    def set(self) -> None: ...
    def clear(self) -> None: ...
    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class Clock(Protocol):
    """Where time comes from."""

    @abstractmethod
    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back. For intervals and deadlines."""

    @abstractmethod
    def wall(self) -> float:
        """Seconds since the epoch, for people. Never compare it with another machine's."""

    @abstractmethod
    def signal(self) -> Signal:
        """A new flag, not set, whose `wait` counts its timeout on this clock."""

    def sleep(self, seconds: float) -> None:
        """Wait for *seconds*; returns at once if not positive."""
        if seconds > 0:
            self.signal().wait(seconds)


@final
class SystemClock(Clock):
    """The machine's own clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def signal(self) -> Signal:
        return threading.Event()


SYSTEM_CLOCK = SystemClock()
