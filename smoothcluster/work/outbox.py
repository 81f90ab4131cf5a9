"""The outbox of a shard: outcomes that lie in the store on their way to the results sink.

The owner records outcomes in the store, as without a sink, and the store remains the only truth. From time to time the
owner *asks* for a move: a thread reads the recorded outcomes of a job and writes them to the sink. Then the next commit
of the owner, which is fenced, sets the tail and deletes the records::

    recorded --(1 MiB, or 2 s)--> asked --(the sink has all)--> moved --(fenced commit)--> at rest, or recorded again

An owner that is replaced before the commit has written a block that no tail names. The successor moves the same
outcomes again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import final

from smoothcluster.backend import Change, Create
from smoothcluster.group.store import GroupStore
from smoothcluster.records.keys import last_part

LARGEST_WAIT_BYTES = 2**20
"""Bytes of a job's recorded outcomes that are moved without waiting for more."""

LONGEST_WAIT_SECONDS = 2.0
"""Seconds from the first recorded outcome to the move."""

FULL_OUTBOX_BYTES = 8 * 2**20
"""Bytes of recorded outcomes of a shard from which on the shard starts no more tasks."""


@dataclass(slots=True)
class Moved:
    """Outcomes that the sink has: the next commits set the tail, then delete the records."""

    tail: bytes | None
    """The new record of the tail; None once the record is set, or if only records remain to be deleted."""
    fresh: bool
    """Whether there is no record of a tail yet."""
    keys: list[str]

    def copy(self) -> "Moved":
        """Return a copy, so that changes leave the original alone."""
        return Moved(self.tail, self.fresh, list(self.keys))


@dataclass(slots=True)
class _Waiting:
    size: int = 0
    since: float | None = None
    """When the first outcome was recorded; None if all are asked for."""


@final
@dataclass(slots=True)
class Outbox:
    """The recorded outcomes of one shard, by job. *jobs* may have outcomes that a former owner recorded."""

    jobs: dict[str, _Waiting] = field(default_factory=dict[str, _Waiting])
    asked: str | None = None
    """The job whose outcomes are being moved."""
    size: int = 0
    """Bytes of all jobs. The loop asks for this and for the next move in each turn, so both are kept at hand."""
    _next: float | None = None
    _stale: bool = True
    """Whether `_next` must be found anew."""

    @classmethod
    def of(cls, jobs: Iterable[str]) -> "Outbox":
        """Return the outbox of a shard that was just claimed: nobody knows yet what the former owner left."""
        return cls({job: _Waiting(0, float("-inf")) for job in jobs})

    def add(self, changes: Iterable[Change], store: GroupStore) -> None:
        """Take note of the outcomes in an applied commit."""
        prefix, now = store.keys.results_prefix, store.clock.monotonic()
        for change in changes:
            if isinstance(change, Create) and change.key.startswith(prefix):
                waiting = self.jobs.setdefault(change.key.removeprefix(prefix).partition("/")[0], _Waiting())
                waiting.size += len(change.value)
                self.size += len(change.value)
                waiting.since = now if waiting.since is None else waiting.since
                self._stale = True

    @property
    def full(self) -> bool:
        """Whether so much waits that no more tasks may start."""
        return self.size >= FULL_OUTBOX_BYTES

    def next_move(self) -> float | None:
        """Return the time of the next move; None if nothing waits, or while a move goes on."""
        if self.asked is not None:
            return None
        if self._stale:
            times = [self._time(waiting) for waiting in self.jobs.values() if waiting.since is not None]
            self._next, self._stale = min(times, default=None), False
        return self._next

    def ask(self, now: float) -> str | None:
        """Return a job whose outcomes are to be moved now, and take note of the move."""
        due = self.next_move()
        if due is None or due > now:
            return None
        jobs = [job for job, waiting in self.jobs.items() if waiting.since is not None]
        self.asked = min(jobs, key=lambda job: self._time(self.jobs[job]))
        self.jobs[self.asked].since = None
        self._stale = True
        return self.asked

    @staticmethod
    def _time(waiting: _Waiting) -> float:
        assert waiting.since is not None
        return waiting.since + (0.0 if waiting.size >= LARGEST_WAIT_BYTES else LONGEST_WAIT_SECONDS)

    def failed(self, retry_at: float) -> None:
        """The move failed, and is tried again at *retry_at*, or later."""
        assert self.asked is not None
        self.jobs[self.asked].since = retry_at
        self.asked, self._stale = None, True

    def moved(self, size: int, *, more: bool) -> None:
        """The fenced commits of the move are applied: so many bytes are gone. *more* outcomes may wait."""
        assert self.asked is not None
        waiting, job = self.jobs[self.asked], self.asked
        self.asked, self._stale = None, True
        gone = min(size, waiting.size)  # The first move may delete what a former owner recorded.
        if not more and waiting.since is None:
            gone = waiting.size
            del self.jobs[job]
        elif more:
            waiting.since = float("-inf")
        waiting.size -= gone
        self.size -= gone

    def holds(self, job: str) -> bool:
        """Whether outcomes of *job* may be on their way."""
        return job in self.jobs


def seq_of(key: str) -> int:
    """Return the number of the commit that wrote the record of outcomes at *key*; -1 if *key* is a stranger's."""
    number = last_part(key)
    return int(number) if number.isascii() and number.isdigit() and len(number) < 19 else -1
