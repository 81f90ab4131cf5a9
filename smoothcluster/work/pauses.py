"""Pauses of one shard's tasks: a failed task starts again only after a pause, whichever member owns the shard then.

The shard's record holds the remaining time of each pause, as of the owner's last commit. A successor counts that time
from the adoption on, on its own clock: no two clocks are compared. So a handover never makes a pause shorter, and makes
it longer by the time since the last commit. The owner writes the remaining times again now and then, to bound that.
"""

import heapq
from collections.abc import Callable, Iterator

from smoothcluster.records.shard import OpenChunk, Shard

Place = tuple[str, int]
"""A task of the shard: the name of the chunk, and the index of the task in the chunk."""

LEAST_REFRESH_SECONDS = 5.0
"""Seconds after which the remaining times are written again, at the earliest."""

REFRESH_SHARE = 0.1
"""Share of the shortest pause after which the remaining times are written again, at the earliest."""


class Pauses:
    """The tasks of one shard that wait for the end of a pause. *now* is the time of the adoption."""

    def __init__(self, record: Shard, now: float) -> None:
        self._record, self._adopted = record, now
        self._waiting: list[tuple[float, Place]] = []
        self._noted = now
        """The time of the last `note`."""
        self._last_end = now

    def add(self, place: Place, until: float) -> None:
        """Have a task wait *until* this time of the monotonic clock."""
        heapq.heappush(self._waiting, (until, place))
        self._last_end = max(self._last_end, until)

    def save(self) -> Callable[[], None]:
        """Return a function that restores the present state."""
        waiting, noted, last_end = list(self._waiting), self._noted, self._last_end

        def restore() -> None:
            self._waiting, self._noted, self._last_end = waiting, noted, last_end

        return restore

    def resume(self, name: str, chunk: OpenChunk) -> None:
        """Have the tasks of a former owner's *chunk* wait for the remaining times that the record shows."""
        for index, remaining in chunk.waits.items():
            self.add((name, index), self._adopted + remaining)

    def next_end(self) -> float | None:
        """The time at which the next pause ends; None without a pause."""
        return self._waiting[0][0] if self._waiting else None

    def take(self, wanted: Callable[[Place], bool]) -> list[Place]:
        """Take out the *wanted* tasks, whose pauses do not matter any more."""
        taken = [place for _, place in self._waiting if wanted(place)]
        if taken:
            self._waiting = [each for each in self._waiting if not wanted(each[1])]
            heapq.heapify(self._waiting)
        for name, index in taken:
            self._record.open[name].waits.pop(index, None)
        return taken

    def ended(self, now: float) -> Iterator[Place]:
        """Take out the tasks whose pauses are over."""
        while self._waiting and self._waiting[0][0] <= now:
            name, index = place = heapq.heappop(self._waiting)[1]
            self._record.open[name].waits.pop(index, None)
            yield place

    def note(self, now: float) -> None:
        """Write the remaining times into the record. Call before each commit of the record."""
        self._noted = now
        for until, (name, index) in self._waiting:
            self._record.open[name].waits[index] = round(max(0.0, until - now), 3)

    def next_refresh(self, now: float) -> float | None:
        """The time from which the record should be committed again for the remaining times alone; None if never."""
        if not self._waiting or self._last_end <= now:
            return None
        return self._noted + max(LEAST_REFRESH_SECONDS, REFRESH_SHARE * (self._waiting[0][0] - self._noted))

    def needs_refresh(self, now: float) -> bool:
        """Whether the remaining times in the store are too old."""
        due = self.next_refresh(now)
        return due is not None and due <= now
