"""The record of a shard: its owner, the epoch, and the chunks that are open."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from smoothcluster.records.blame import count_starts
from smoothcluster.records.codec import GarbageError, dump, expect, expect_array, expect_object, expect_or_none, load

CHUNK_NAME = re.compile(r"(?!\.\.?-[^-]+$)([A-Za-z0-9_.][A-Za-z0-9_.-]{0,99})-([A-Za-z0-9_.:@+=]{1,100})")
"""A chunk's name: its job, which must be able to be part of a key, and what is its own, without a ``-``."""


@dataclass(slots=True)
class OpenChunk:
    """A chunk that its shard has admitted and not finished. Bitmaps count from its first task."""

    size: int
    closed: int = 0
    """Tasks that need nothing more: recorded, or repeats."""
    run: int = 0
    """Tasks that may be running: marked before they start."""
    fails: dict[int, int] = field(default_factory=dict[int, int])
    """How often each was run and is to be tried again."""
    blame: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    """Starts that no outcome came of: who had the task then, and how that ended. `suspicion` reads it."""

    def copy(self) -> "OpenChunk":
        """One that can be changed without changing this one."""
        return OpenChunk(
            self.size, self.closed, self.run, dict(self.fails), {k: list(v) for k, v in self.blame.items()}
        )

    def attempts(self, index: int) -> int:
        """How often the task was started, the mark it carries now not counted."""
        return self.fails.get(index, 0) + count_starts(self.blame.get(index, ()))


def bits(bitmap: int) -> Iterable[int]:
    """The positions of the ones, lowest first."""
    while bitmap:
        low = bitmap & -bitmap
        yield low.bit_length() - 1
        bitmap ^= low


COUNTS = ("added", "skipped", "done", "failed", "quarantined")


@dataclass(slots=True)
class Shard:
    """A slice of the tasks and who owns it: the only fence there is."""

    owner: str | None = None
    name: str | None = None
    """The owner's name, for people."""
    epoch: int = 0
    seq: int = 0
    id: str = ""
    open: dict[str, OpenChunk] = field(default_factory=dict[str, OpenChunk])
    counts: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    """For each job: what this shard added, skipped, and recorded."""

    def copy(self) -> "Shard":
        """One that can be changed without changing this one."""
        return Shard(
            self.owner,
            self.name,
            self.epoch,
            self.seq,
            self.id,
            {name: chunk.copy() for name, chunk in self.open.items()},
            {job: dict(tally) for job, tally in self.counts.items()},
        )

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
                    name: [o.size, f"{o.closed:x}", f"{o.run:x}", o.fails, o.blame] for name, o in self.open.items()
                },
                "counts": self.counts,
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
            )
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise GarbageError(f"not a shard: {error!r:.80}") from None


def _chunk(name: str) -> str:
    if not CHUNK_NAME.fullmatch(name):
        raise ValueError(f"{name!r:.40} is not a chunk's name")
    return name


def _open(data: object) -> OpenChunk:
    size, closed, run, fails, blame = expect_array(data)
    chunk = OpenChunk(
        expect(int, size),
        int(closed, 16),
        int(run, 16),
        {int(k): expect(int, v) for k, v in expect_object(fails).items()},
        {int(k): [expect(str, each) for each in expect_array(v)] for k, v in expect_object(blame).items()},
    )
    # A bitmap below zero has ones without end, and who follows one beyond the tasks finds none there.
    if any(bitmap < 0 or bitmap.bit_length() > chunk.size for bitmap in (chunk.closed, chunk.run)):
        raise ValueError("a bitmap does not fit its chunk")
    if any(not 0 <= index < chunk.size for index in (*chunk.fails, *chunk.blame)):
        raise ValueError("a task is not in its chunk")
    return chunk
