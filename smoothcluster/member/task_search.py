"""The search for tasks now and then: no missed wake-up of a watch leaves a task waiting for ever.

An owner lists the tasks of a shard after a wake-up of the shard's watch. The search also has each idle shard listed
once in a round. The listings are spread over the round, one at a time. So at rest a group pays one request per shard
and round, however many members the group has, and a member at most one request per second. A shard with tasks to start,
or a member without a free worker, costs nothing.
"""

import random
from typing import final

from smoothcluster.clock import Clock
from smoothcluster.work.workload import Workload

SEARCH_ROUND_SECONDS = 30.0
"""Seconds in which every idle shard of a member is listed, if the member has no more shards than seconds."""

SHORTEST_SEARCH_PAUSE_SECONDS = 1.0
"""Seconds between two listings of a member with many shards: the round then takes longer."""

LEAST_SEARCH_SHARE = 0.8
"""The shortest pause between two listings, as a share of the longest: so members that start together drift apart."""


@final
class TaskSearch:
    """The search in the own shards, each once in *seconds*. The *seed* decides the pauses."""

    def __init__(self, workload: Workload, clock: Clock, seed: str, seconds: float) -> None:
        self._workload, self._clock, self._seconds = workload, clock, seconds
        self._random = random.Random(seed)
        self._last = -1
        """The number of the last shard searched."""
        self._next = clock.monotonic()

    def step(self) -> None:
        """Mark the next idle shard for a listing, if the time has come. Called before the step of the workload."""
        works, now = self._workload.works, self._clock.monotonic()
        if not works or now < self._next:
            return
        pause = self._random.uniform(LEAST_SEARCH_SHARE, 1.0) * self._seconds / len(works)
        self._next = now + max(pause, SHORTEST_SEARCH_PAUSE_SECONDS)
        # While all workers are busy, a mark would only make the shard look as if there were tasks.
        idle = [n for n, work in works.items() if work.free() and not work.backlog.promising()]
        if idle and self._workload.room():
            self._last = min((n for n in idle if n > self._last), default=min(idle))
            works[self._last].backlog.stale = True

    def next_time(self) -> float | None:
        """The time of the next search; None without shards."""
        return self._next if self._workload.works else None
