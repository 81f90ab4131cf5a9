"""A commit of a shard's owner: in the making, within the store's limits; then built, and not yet settled."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from smoothcluster.backend import Change, Create, Delete, Update
from smoothcluster.jobs.chunks import CHUNK_BYTES, digest, job_of, pack
from smoothcluster.model import State
from smoothcluster.pool import Run
from smoothcluster.records.quarantine import QuarantinedTask
from smoothcluster.records.results import encode_outcome, encode_outcomes
from smoothcluster.records.shard import Shard
from smoothcluster.work.backlog import Backlog, Place, place_of
from smoothcluster.work.context import Mark, WorkContext

RESERVE = 16 * 1024
"""Bytes of a commit kept free for the shard's own record to grow into."""

SPILL = 500
"""Tasks added at once by a handler that adds too many for one commit."""


@dataclass(frozen=True, slots=True)
class PendingCommit:
    """A commit built and not yet settled."""

    id: str
    changes: Sequence[Change]
    sent: list[Mark]
    starts: list[Run]
    """To be run as soon as it was applied."""
    quarantined: Sequence[QuarantinedTask]
    """Tasks that it puts into quarantine: to be told then."""

    def without(self, key: str) -> "PendingCommit":
        """The same, but for garbage that lies at *key*: it is overwritten, or left alone."""
        mended: list[Change] = []
        for change in self.changes:
            if change.key != key:
                mended.append(change)
            elif isinstance(change, Create):
                mended.append(Update(key, change.value))
        return replace(self, changes=mended)


class CommitBuilder:
    """A commit in the making. What it is to say of the shard's record is written there at once."""

    def __init__(self, number: int, record: Shard, backlog: Backlog, context: WorkContext) -> None:
        self.changes: list[Change] = []
        self.starts: list[Run] = []
        self.quarantined: list[QuarantinedTask] = []
        self._number, self._record, self._backlog, self._context = number, record, backlog, context
        self._added: dict[Mark, str] = {}
        """Tasks that handlers add, not put into chunks yet."""
        self._sent: list[Mark] = []
        self._results: dict[str, list[str]] = {}
        self._sizes: dict[str, int] = {}
        """Bytes of each job's results, reckoned generously."""
        self._bytes = len(record.to_json()) + RESERVE
        self._operations: int = 1

    def book(self, size: int, operations: int) -> bool:
        """Set so much aside; whether it fits. A path and its framing take 200 bytes at most."""
        size += self._bytes + 200 * operations
        operations += self._operations
        if size > self._context.limits.largest_commit or operations > self._context.limits.most_operations:
            return False
        self._bytes, self._operations = size, operations
        return True

    def make_room(self, run: Run) -> bool:
        """Set aside what the outcome of *run*, and the tasks that it adds, take; whether that fits."""
        fresh = self._fresh(run, slice(None), self._added) if run.added else {}
        size = sum(map(len, fresh.values())) + len(fresh)
        if size > self._context.limits.largest_commit // 4:
            if not self._spill(run):
                return False
            fresh, size = {}, 0
        job, chunk = run.context.job, self._record.open[place_of(run)[0]]
        value = len(run.encoded) + 6 * (len(run.error or "") + len(run.task.id)) + 64
        # Each added task may need a chunk of its own; a new result, or a finished chunk to delete, is one more.
        operations = min(len(fresh), self._context.shards) + (job not in self._results)
        operations += chunk.closed.bit_count() + 1 >= chunk.size
        results = self._sizes.get(job, 256) + value
        if results > self._context.limits.largest_value or not self.book(value + size, operations):
            return False
        self._sizes[job] = results
        self._added.update(fresh)
        return True

    def end(self, place: Place, task: str, state: State, value: str, error: str | None, attempts: int) -> None:
        """The one outcome of a task: it needs nothing more."""
        name, index = place
        job, chunk = job_of(name), self._record.open[name]
        self._results.setdefault(job, []).append(encode_outcome(task, state, value, error, attempts))
        self._record.count(job, state)
        chunk.closed |= 1 << index
        chunk.fails.pop(index, None)
        chunk.blame.pop(index, None)
        self.drop_if_finished(name)

    def drop_if_finished(self, name: str) -> None:
        """If no task of the chunk needs anything more, it goes."""
        chunk = self._record.open[name]
        if chunk.closed.bit_count() == chunk.size:
            self.changes.append(Delete(self._context.keys.chunk(self._number, name)))
            del self._record.open[name]
            self._backlog.forget(name)

    # Tasks that handlers add

    def _fresh(self, run: Run, part: slice, others: Container[Mark]) -> dict[Mark, str]:
        """Those of the tasks that *run* adds that are not known to be there, as text."""
        fresh: dict[Mark, str] = {}
        for task, text in zip(run.added[part], run.added_encoded[part], strict=True):
            mark = (run.context.job, digest(task.id))
            if mark not in self._context.sent and mark not in others and mark not in fresh:
                fresh[mark] = text
        return fresh

    def _spill(self, run: Run) -> bool:
        """Add what fits of the tasks of a run that adds many, before its outcome; whether that was all.

        If we die in between, the task runs again and adds them again; repeats are skipped.
        """
        while run.added:
            texts: dict[Mark, str] = {}
            size = taken = 0
            while taken < len(run.added) and taken < SPILL and size <= self._context.limits.largest_commit // 8:
                fresh = self._fresh(run, slice(taken, taken + 1), texts)
                texts.update(fresh)
                size += sum(map(len, fresh.values())) + 1
                taken += 1
            if not self.book(size, min(len(texts), self._context.shards + size // CHUNK_BYTES)):
                return False
            self._put(texts)
            del run.added[:taken], run.added_encoded[:taken]
        return True

    def add(self) -> None:
        """Put what the runs add that room was made for into chunks of their shards."""
        self._put(self._added)
        self._added = {}

    def _put(self, texts: dict[Mark, str]) -> None:
        jobs: dict[str, list[tuple[bytes, str]]] = {}
        for (job, mark), text in texts.items():
            jobs.setdefault(job, []).append((mark, text))
        for job, tasks in jobs.items():
            for packet in pack(tasks, self._context.shards):
                # Shard, epoch and progress: no other commit that is applied has the same three.
                unique = f"{self._number:x}.{self._record.epoch:x}.{self._record.seq:x}.{len(self.changes):x}"
                self.changes.append(Create(self._context.keys.chunk(packet.shard, f"{job}-{unique}"), packet.value()))
                self._record.count(job, "added", len(packet.texts))
        self._sent.extend(texts)

    # What becomes of it

    def built(self, version: str | None) -> PendingCommit:
        """All of it as one commit, which is applied if the shard's record is still at *version*."""
        record, keys = self._record, self._context.keys
        for job, outcomes in self._results.items():
            key = f"{keys.results(job, self._number)}/{record.seq:010d}"
            self.changes.append(Create(key, encode_outcomes(self._context.member, record.epoch, outcomes)))
        record.seq += 1
        record.id = self._context.new_id()
        fence = Update(keys.shard(self._number), record.to_json(), version)
        return PendingCommit(record.id, [fence, *self.changes], self._sent, self.starts, self.quarantined)
