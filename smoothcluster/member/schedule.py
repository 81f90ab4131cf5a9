"""When one incarnation looks at the group again: at once, in a moment, or at some time at the latest."""

from collections.abc import Callable

from smoothcluster.clock import Clock

SOON = 0.2
"""Seconds until the next look when something is amiss that others ought to mend."""

SETTLE = 0.03
"""Seconds that those who have nothing to take leave to those who have, before they look."""


class Schedule:
    """What is to be looked at is always everything; so this is a time, and little else."""

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        self.overdue = True
        """Whether the last look no longer shows what is the case."""
        self.first = False
        """Whether we are first in line to act on what happens to others."""
        self.next_look = 0.0
        self._clock, self._wake = clock, wake
        self._stirred = False

    def look_again(self) -> None:
        """At once. To be called from any thread, as `look_soon` is."""
        self.overdue = True
        self._wake()

    def look_soon(self) -> None:
        """Something has changed that concerns whoever is first in line, and can wait a little for all others."""
        if self.first:
            self.overdue = True
        else:
            self._stirred = True
        self._wake()

    def look_by(self, time: float | None, earliest: float = 0.0) -> None:
        """At *time* at the latest, if there is one, or at *earliest* if that is later."""
        if time is not None:
            self.next_look = min(self.next_look, max(time, earliest))

    def look_in(self, seconds: float) -> None:
        """So many seconds from now at the latest."""
        self.look_by(self._clock.monotonic() + seconds)

    def settle(self) -> None:
        """Put what has stirred off for a moment."""
        if self._stirred:
            self._stirred = False
            self.look_in(SETTLE)

    def due(self) -> bool:
        """Whether it is time."""
        return self.overdue or self._clock.monotonic() >= self.next_look
