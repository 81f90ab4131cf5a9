"""Schedule: decide when one incarnation reads the group again: at once, in a moment, or by a given time."""

from collections.abc import Callable

from smoothcluster.clock import Clock

RECHECK_SECONDS = 0.2
"""Seconds until the group is read again, when another member should act first."""

CLAIMANT_HEAD_START_SECONDS = 0.03
"""Delay before a member with nothing to claim re-reads the group, so that claimants go first."""


class Schedule:
    """The time of the next read, and flags for an earlier read. A read always covers the whole group."""

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        self.overdue = True
        """Whether the last view may be out of date: read the group again at once."""
        self.first = False
        """Whether we are first in line to act on the death of another member."""
        self.next_read = 0.0
        self._clock, self._wake = clock, wake
        self._stirred = False

    def read_again(self) -> None:
        """Have the group read again at once. May be called from any thread, like `read_soon`."""
        # Set the flag before the call: the loop may wake, and test the flag, before this thread goes on.
        self.overdue = True
        self._wake()

    def read_soon(self) -> None:
        """Have the group read again: at once if we are first in line to act, otherwise after a moment.

        All watches but the watch on the own member record call this after a change.
        """
        if self.first:
            self.overdue = True
        else:
            self._stirred = True
        self._wake()

    def read_by(self, time: float | None, earliest: float = 0.0) -> None:
        """Have the group read again by the later of *time* and *earliest*. Do nothing if *time* is None."""
        if time is not None:
            self.next_read = min(self.next_read, max(time, earliest))

    def read_in(self, seconds: float) -> None:
        """Have the group read again within so many seconds."""
        self.read_by(self._clock.monotonic() + seconds)

    def delay_stirred(self) -> None:
        """Turn the calls of `read_soon` since the last turn into a read after a moment. Called first in each turn."""
        if self._stirred:
            self._stirred = False
            self.read_in(CLAIMANT_HEAD_START_SECONDS)

    def due(self) -> bool:
        """Whether to read the group in this turn."""
        return self.overdue or self._clock.monotonic() >= self.next_read
