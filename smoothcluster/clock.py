"""Clocks as parameters: no other module reads the time or waits for time to pass.

Decisions use `monotonic`, and compare only readings from the same process.
`wall` is for people: records and events contain wall time, and no code compares wall times.
Every wait is a wait for a `Signal` from a clock, so the simulator can run
the real code on simulated time.
"""

import threading
import time
from abc import abstractmethod
from typing import Protocol, final

_BOOT_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""The clock that counts the machine's sleep, where the system has one (Linux)."""


class Signal(Protocol):
    """A flag that a thread can wait for; `threading.Event` is such a flag."""

    def set(self) -> None: ...
    def clear(self) -> None: ...
    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class Clock(Protocol):
    """A source of time."""

    @abstractmethod
    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back. For intervals and deadlines."""

    @abstractmethod
    def wall(self) -> float:
        """Seconds since the epoch, for people. Never compare with the wall time of another machine."""

    @abstractmethod
    def signal(self) -> Signal:
        """A new flag, not set. `wait` counts the timeout on this clock."""

    def since_boot(self) -> float:
        """Seconds since the start of the machine, the machine's sleep included; the same for all processes.

        For ages that people see. A clock without such a reading returns `monotonic`.
        """
        return self.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for *seconds*; return at once if *seconds* is not positive."""
        if seconds > 0:
            self.signal().wait(seconds)


@final
class SystemClock(Clock):
    """The clocks of this machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def since_boot(self) -> float:
        return time.clock_gettime(_BOOT_CLOCK)

    def signal(self) -> Signal:
        return threading.Event()


SYSTEM_CLOCK = SystemClock()
