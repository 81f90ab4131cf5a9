"""How fast tasks finish in this process, and the turns of the shards."""

from collections import deque
from typing import final

COMMIT_INTERVAL_SECONDS = 0.05
"""Seconds for which an outcome may wait to share a commit with others."""

SHARD_TURN_SECONDS = 0.2
"""Seconds until the turn of the next shard: long enough for outcomes to share commits."""

MOST_MARKED_TASKS = 8192
"""Most tasks marked at once, however fast they are."""


@final
class Pace:
    """The rate at which tasks finished during the last interval."""

    def __init__(self, now: float) -> None:
        self.rate = 0.0
        """Tasks per second."""
        self._finished, self._since = 0, now

    def count(self, finished: int, now: float) -> None:
        """Add *finished* tasks; measure the rate anew once the interval is over."""
        self._finished += finished
        passed = now - self._since
        if passed >= COMMIT_INTERVAL_SECONDS:
            self.rate = self._finished / passed
            self._finished, self._since = 0, now

    def ahead(self) -> int:
        """Return how many tasks will probably finish within an interval, and so are marked ahead of their start."""
        return min(MOST_MARKED_TASKS, int(self.rate * COMMIT_INTERVAL_SECONDS))


@final
class Turns:
    """The order in which shards start tasks: a shard keeps the turn for a slice of time, or until it has no tasks."""

    def __init__(self, now: float) -> None:
        self.order: deque[int] = deque()
        """The numbers of the shards; the first has the turn."""
        self._ends = now + SHARD_TURN_SECONDS

    def add(self, number: int, *, first: bool) -> None:
        """Add a shard: the shard's turn comes *first*, or after all others."""
        (self.order.appendleft if first else self.order.append)(number)

    def advance(self) -> None:
        """Give the turn to the next shard."""
        self.order.rotate(-1)

    def advance_if_over(self, now: float) -> None:
        """Give the turn to the next shard if the slice of time is over."""
        if now >= self._ends:
            self.advance()
            self._ends = now + SHARD_TURN_SECONDS
