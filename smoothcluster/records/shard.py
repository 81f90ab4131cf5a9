"""The record of a shard: the owner, the epoch, and the open chunks."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from smoothcluster.records.blame import count_starts
from smoothcluster.records.codec import GarbageError, dump, expect, expect_array, expect_object, expect_or_none, load

MOST_CHUNK_TASKS = 65536
"""The most tasks of a chunk in a record from the store. The present version writes fewer."""

LONGEST_WAIT_SECONDS = 366 * 86400.0
"""Most seconds that a task in a record from the store waits."""

CHUNK_NAME_PATTERN = re.compile(r"(?!\.\.?-[^-]+$)([A-Za-z0-9_.][A-Za-z0-9_.-]{0,99})-([A-Za-z0-9_.:@+=]{1,100})")
"""A chunk's name: the job, a ``-``, and the chunk's own part without a ``-``. The job must be usable in a key."""


@dataclass(slots=True)
class OpenChunk:
    """A chunk that the shard has admitted and not finished. Bit 0 of each bitmap stands for the first task."""

    size: int
    closed: int = 0
    """Bitmap of finished tasks: recorded, or skipped as repeats."""
    run: int = 0
    """Bitmap of possibly running tasks. The owner marks tasks before they start."""
    fails: dict[int, int] = field(default_factory=dict[int, int])
    """By task: failed runs after which the task is retried."""
    blame: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    """By task: starts that ended without an outcome. `smoothcluster.work.verdict` reads these entries."""
    waits: dict[int, float] = field(default_factory=dict[int, float])
    """By task: seconds until the task may start, as of the last commit. `smoothcluster.work.pauses` counts them."""

    def copy(self) -> "OpenChunk":
        """Return a deep copy, so that changes leave the original alone."""
        blame = {index: list(entries) for index, entries in self.blame.items()}
        return OpenChunk(self.size, self.closed, self.run, dict(self.fails), blame, dict(self.waits))

    def attempts(self, index: int) -> int:
        """How often the task was started. A present mark in ``run`` does not count."""
        return self.fails.get(index, 0) + count_starts(self.blame.get(index, ()))


@dataclass(slots=True)
class JobQueue:
    """The queue of merged chunks of one job on a shard. The chunks with the numbers from *head* to *tail* wait.

    A number is never used twice, so the record keeps the numbers of an empty queue until the job is finished.
    """

    head: int = 0
    tail: int = 0
    tasks: int = 0
    """Number of tasks in all waiting chunks, those in *damaged* chunks among them."""
    damaged: list[int] = field(default_factory=list[int])
    """Numbers, below *head*, of waiting chunks that could not be read."""

    def copy(self) -> "JobQueue":
        """Return a deep copy, so that changes leave the original alone."""
        return JobQueue(self.head, self.tail, self.tasks, list(self.damaged))


def bits(bitmap: int) -> Iterable[int]:
    """The positions of the set bits, lowest first."""
    while bitmap:
        low = bitmap & -bitmap
        yield low.bit_length() - 1
        bitmap ^= low


NOTE_NAMES = ("unreadable", "refused")
"""Counts of a job for people: failed tasks that nobody could read; tasks of handlers beyond the job's ``max_tasks``."""

COUNT_NAMES = ("added", "skipped", "done", "failed", "quarantined", "cancelled", *NOTE_NAMES)


@dataclass(slots=True)
class Shard:
    """A slice of the tasks, and the owner of the slice. This record is the only fence."""

    owner: str | None = None
    name: str | None = None
    """The owner's name, for people."""
    epoch: int = 0
    seq: int = 0
    id: str = ""
    open: dict[str, OpenChunk] = field(default_factory=dict[str, OpenChunk])
    counts: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    """For each job: how many tasks this shard added, skipped and recorded, by `COUNT_NAMES`."""
    queues: dict[str, JobQueue] = field(default_factory=dict[str, JobQueue])
    """For each job with merged chunks: the numbers of the chunks that wait."""

    def copy(self) -> "Shard":
        """Return a deep copy, so that changes leave the original alone."""
        return Shard(
            self.owner,
            self.name,
            self.epoch,
            self.seq,
            self.id,
            {name: chunk.copy() for name, chunk in self.open.items()},
            {job: dict(tally) for job, tally in self.counts.items()},
            {job: queue.copy() for job, queue in self.queues.items()},
        )

    def has_tasks(self) -> bool:
        """Whether the record knows of tasks without an outcome. There may be more, in chunks that were not admitted."""
        return bool(self.open) or any(queue.tasks for queue in self.queues.values())

    def count(self, job: str, what: str, by: int = 1) -> None:
        tally = self.counts.setdefault(job, {})
        tally[what] = tally.get(what, 0) + by

    def to_json(self) -> bytes:
        return dump(
            {
                "owner": self.owner,
                "name": self.name,
                "epoch": self.epoch,
                "seq": self.seq,
                "id": self.id,
                "open": {
                    name: [o.size, f"{o.closed:x}", f"{o.run:x}", o.fails, o.blame, o.waits]
                    for name, o in self.open.items()
                },
                "counts": self.counts,
                "queues": {job: [q.head, q.tail, q.tasks, q.damaged] for job, q in self.queues.items()},
            }
        )

    @classmethod
    def from_json(cls, value: bytes) -> "Shard":
        data = load(value)
        try:
            return cls(
                owner=expect_or_none(str, data["owner"]),
                name=expect_or_none(str, data["name"]),
                epoch=expect(int, data["epoch"]),
                seq=expect(int, data["seq"]),
                id=expect(str, data["id"]),
                open={_chunk(name): _open(each) for name, each in expect_object(data["open"]).items()},
                counts={
                    job: {what: expect(int, n) for what, n in expect_object(tally).items()}
                    for job, tally in expect_object(data["counts"]).items()
                },
                queues={job: _queue(each) for job, each in expect_object(data["queues"]).items()},
            )
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise GarbageError(f"the record is not a shard: {error!r:.80}") from None


def _chunk(name: str) -> str:
    if not CHUNK_NAME_PATTERN.fullmatch(name):
        raise ValueError(f"{name!r:.40} is not the name of a chunk")
    return name


def _queue(data: object) -> JobQueue:
    head, tail, tasks, damaged = expect_array(data)
    queue = JobQueue(
        expect(int, head), expect(int, tail), expect(int, tasks), [expect(int, each) for each in expect_array(damaged)]
    )
    chunks = queue.tail - queue.head + len(queue.damaged)
    if not 0 <= queue.head <= queue.tail or not chunks <= queue.tasks <= queue.tail * MOST_CHUNK_TASKS:
        raise ValueError(f"{data!r:.40} is not a queue")
    if len(set(queue.damaged)) < len(queue.damaged) or any(not 0 <= each < queue.head for each in queue.damaged):
        raise ValueError("a damaged chunk is not in its queue")
    return queue


def _seconds(data: object) -> float:
    if isinstance(data, bool) or not isinstance(data, int | float) or not 0 <= data <= LONGEST_WAIT_SECONDS:
        raise ValueError(f"{data!r:.40} is not a number of seconds to wait")
    return float(data)


def _open(data: object) -> OpenChunk:
    size, closed, run, fails, blame, waits = expect_array(data)
    chunk = OpenChunk(
        expect(int, size),
        int(closed, 16),
        int(run, 16),
        {int(k): expect(int, v) for k, v in expect_object(fails).items()},
        {int(k): [expect(str, each) for each in expect_array(v)] for k, v in expect_object(blame).items()},
        {int(k): _seconds(v) for k, v in expect_object(waits).items()},
    )
    # A negative bitmap has endless set bits, and a set bit beyond the chunk's size leads to no task.
    if not 0 < chunk.size <= MOST_CHUNK_TASKS:
        raise ValueError(f"a chunk cannot have {size!r:.40} tasks")
    if any(bitmap < 0 or bitmap.bit_length() > chunk.size for bitmap in (chunk.closed, chunk.run)):
        raise ValueError("a bitmap does not fit its chunk")
    if any(not 0 <= index < chunk.size for index in (*chunk.fails, *chunk.blame, *chunk.waits)):
        raise ValueError("a task is not in its chunk")
    return chunk
