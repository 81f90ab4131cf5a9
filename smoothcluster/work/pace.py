"""How fast tasks finish in this process, and the turns of the shards."""

from collections import deque
from typing import final

COMMIT_INTERVAL_SECONDS = 0.05
"""Seconds for which an outcome may wait to share a commit with others."""

SLOW_TASK_SECONDS = 1.0
"""Duration of tasks from which outcomes do not wait: few commits could be shared, and a successor would run again, in
place of a task that ran, a task that was finished."""

SHARD_TURN_SECONDS = 0.2
"""Seconds until the turn of the next shard: long enough for outcomes to share commits."""

MOST_MARKED_TASKS = 8192
"""Most tasks marked at once, however fast they are."""


@final
class Pace:
    """How fast tasks finish: over the last finishes of each worker, and over no less than an interval.

    A shorter time would take eight slow tasks that happen to end together for fast tasks.
    """

    def __init__(self, now: float, concurrency: int) -> None:
        self._concurrency = concurrency
        self._finished: deque[tuple[float, int]] = deque([(now, 0)])
        """Times at which tasks finished, and how many; the first time is the start of the measurement."""
        self._total = 0

    def count(self, finished: int, now: float) -> None:
        """Add *finished* tasks."""
        if not finished:
            return
        self._finished.append((now, finished))
        self._total += finished
        while len(self._finished) > 1:
            since, number = self._finished[1]
            if self._total - number < 2 * self._concurrency or now - since < COMMIT_INTERVAL_SECONDS:
                break
            self._finished.popleft()
            self._total -= number

    def ahead(self, now: float) -> int:
        """Return how many tasks will probably finish within an interval, and so are marked ahead of their start."""
        return min(MOST_MARKED_TASKS, int(self._rate(now) * COMMIT_INTERVAL_SECONDS))

    def outcomes_wait(self, now: float) -> bool:
        """Whether outcomes wait for others. If not, a successor finds no finished tasks among those that ran."""
        return self._rate(now) * SLOW_TASK_SECONDS > self._concurrency

    def _rate(self, now: float) -> float:
        """Tasks per second; 0 during the first interval."""
        passed = now - self._finished[0][0]
        return self._total / passed if passed >= COMMIT_INTERVAL_SECONDS else 0.0


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
