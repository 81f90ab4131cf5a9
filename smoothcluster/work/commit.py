"""Commits of a shard's owner: build a commit within the store's limits, and keep the commit until settled."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from smoothcluster.backend import Change, Create, Delete, Update
from smoothcluster.jobs.chunk_reading import UnreadableTask
from smoothcluster.jobs.chunks import CHUNK_BYTES, digest, job_of, pack
from smoothcluster.model import State
from smoothcluster.pool import Run
from smoothcluster.records.quarantine import QuarantinedTask
from smoothcluster.records.results import encode_outcome, encode_outcomes
from smoothcluster.records.shard import Shard
from smoothcluster.work.backlog import Backlog, place_of
from smoothcluster.work.context import WorkContext
from smoothcluster.work.pauses import Place
from smoothcluster.work.sent_tasks import Mark

RECORD_GROWTH_BYTES = 16 * 1024
"""Bytes of a commit kept free for growth of the shard's record."""

MOST_TASKS_PER_SPILL = 500
"""Most tasks that one step adds for a handler with too many added tasks for a single commit."""


@dataclass(frozen=True, slots=True)
class PendingCommit:
    """A commit that is built, but not yet settled."""

    id: str
    changes: Sequence[Change]
    sent: list[Mark]
    starts: list[Run]
    """Runs for the pool, as soon as the store has applied the commit."""
    quarantined: Sequence[QuarantinedTask]
    """Tasks that the commit quarantines: the events are noted as soon as the store has applied the commit."""
    unreadable: Mapping[str, Sequence[str]]
    """By chunk, ids of unreadable tasks that the commit records as failed: events are noted likewise."""

    def without(self, key: str) -> "PendingCommit":
        """Return a copy that avoids garbage at *key*: a create becomes an overwrite, any other change is left out."""
        mended: list[Change] = []
        for change in self.changes:
            if change.key != key:
                mended.append(change)
            elif isinstance(change, Create):
                mended.append(Update(key, change.value))
        return replace(self, changes=mended)


class CommitBuilder:
    """Builder of a commit. Changes to the shard's record are made in the record at once."""

    def __init__(self, number: int, record: Shard, backlog: Backlog, context: WorkContext) -> None:
        self.changes: list[Change] = []
        self.starts: list[Run] = []
        self.quarantined: list[QuarantinedTask] = []
        self.unreadable: dict[str, list[str]] = {}
        self._number, self._record, self._backlog, self._context = number, record, backlog, context
        self._added: dict[Mark, str] = {}
        """Tasks added by handlers, not put into chunks yet."""
        self._sent: list[Mark] = []
        self._results: dict[str, list[str]] = {}
        self._sizes: dict[str, int] = {}
        """Bytes of each job's results, estimated from above."""
        self._bytes = len(record.to_json()) + RECORD_GROWTH_BYTES
        self._operations: int = 1

    def reserve(self, size: int, operations: int) -> bool:
        """Reserve room in the commit; return whether there is enough. A path with framing takes 200 bytes at most."""
        size += self._bytes + 200 * operations
        operations += self._operations
        if size > self._context.limits.largest_commit or operations > self._context.limits.most_operations:
            return False
        self._bytes, self._operations = size, operations
        return True

    def make_room(self, run: Run) -> bool:
        """Reserve room for the outcome of *run* and for the tasks added by *run*; return whether there is enough."""
        fresh = self._fresh(run, slice(None), self._added) if run.added else {}
        size = sum(map(len, fresh.values())) + len(fresh)
        if size > self._context.limits.largest_commit // 4:
            if not self._spill(run):
                return False
            fresh, size = {}, 0
        value = len(run.encoded) + 6 * (len(run.error or "") + len(run.task.id)) + 64
        # Each added task may need a separate chunk.
        if not self._reserve_outcome(place_of(run)[0], value, size, min(len(fresh), self._context.shards)):
            return False
        self._added.update(fresh)
        return True

    def _reserve_outcome(self, name: str, value: int, size: int = 0, operations: int = 0) -> bool:
        """Reserve *value* bytes for an outcome of the chunk *name*, and room for more; return whether there is enough.

        A new results record, or a finished chunk to delete, is one operation more.
        """
        job, chunk = job_of(name), self._record.open[name]
        operations += (job not in self._results) + (chunk.closed.bit_count() + 1 >= chunk.size)
        results = self._sizes.get(job, 256) + value
        if results > self._context.limits.largest_value or not self.reserve(value + size, operations):
            return False
        self._sizes[job] = results
        return True

    def fail_unreadable(self) -> None:
        """Record a failed outcome for each admitted task that nobody can read, while the commit has room."""
        waiting = self._backlog.unreadable
        while waiting:
            name, index = place = waiting[0]
            chunk, task = self._record.open[name], cast("UnreadableTask", self._backlog.tasks[name][index])
            if not self._reserve_outcome(name, 6 * (len(task.error) + len(task.id)) + 64):
                break
            waiting.popleft()
            self.unreadable.setdefault(name, []).append(task.id)
            self._record.count(job_of(name), "unreadable")
            self.record_outcome(place, task.id, State.FAILED, "null", task.error, chunk.attempts(index))

    def record_outcome(
        self, place: Place, task: str, state: State, value: str, error: str | None, attempts: int
    ) -> None:
        """Record the only outcome of a task, and close the task."""
        name, index = place
        job, chunk = job_of(name), self._record.open[name]
        self._results.setdefault(job, []).append(encode_outcome(task, state, value, error, attempts))
        self._record.count(job, state)
        chunk.closed |= 1 << index
        chunk.fails.pop(index, None)
        chunk.blame.pop(index, None)
        chunk.waits.pop(index, None)
        self.drop_if_finished(name)

    def drop_if_finished(self, name: str) -> None:
        """Delete the chunk if every task of the chunk is closed."""
        chunk = self._record.open[name]
        if chunk.closed.bit_count() == chunk.size:
            self.changes.append(Delete(self._context.store.keys.chunk(self._number, name)))
            del self._record.open[name]
            self._backlog.drop_chunk(name)

    # Tasks that handlers add

    def _fresh(self, run: Run, part: slice, others: Container[Mark]) -> dict[Mark, str]:
        """Return, as text, the tasks added by *run*, without those known to be in the store or in *others*."""
        fresh: dict[Mark, str] = {}
        for task, text in zip(run.added[part], run.added_encoded[part], strict=True):
            mark = (run.context.job, digest(task.id))
            if mark not in self._context.sent and mark not in others and mark not in fresh:
                fresh[mark] = text
        return fresh

    def _spill(self, run: Run) -> bool:
        """Add the tasks of a run with many added tasks, before the outcome of the run. Return whether all fitted.

        If this process dies in between, the task runs again and adds the same tasks again. Repeats are skipped.
        """
        while run.added:
            texts: dict[Mark, str] = {}
            size = taken = 0
            while (
                taken < len(run.added)
                and taken < MOST_TASKS_PER_SPILL
                and size <= self._context.limits.largest_commit // 8
            ):
                fresh = self._fresh(run, slice(taken, taken + 1), texts)
                texts.update(fresh)
                size += sum(map(len, fresh.values())) + 1
                taken += 1
            if not self.reserve(size, min(len(texts), self._context.shards + size // CHUNK_BYTES)):
                return False
            self._put(texts)
            del run.added[:taken], run.added_encoded[:taken]
        return True

    def add_tasks(self) -> None:
        """Put the tasks added by runs into chunks of their shards; `make_room` has reserved the room."""
        self._put(self._added)
        self._added = {}

    def _put(self, texts: dict[Mark, str]) -> None:
        jobs: dict[str, list[tuple[bytes, str]]] = {}
        for (job, mark), text in texts.items():
            jobs.setdefault(job, []).append((mark, text))
        for job, wanted in jobs.items():
            tasks = wanted[: self._context.quota.take(job, len(wanted))]
            if len(tasks) < len(wanted):
                self._record.count(job, "refused", len(wanted) - len(tasks))
            self._sent.extend((job, mark) for mark, _ in tasks)
            for packet in pack(tasks, self._context.shards):
                # Shard, epoch and sequence number: no other applied commit has the same three.
                unique = f"{self._number:x}.{self._record.epoch:x}.{self._record.seq:x}.{len(self.changes):x}"
                self.changes.append(
                    Create(self._context.store.keys.chunk(packet.shard, packet.name(job, unique)), packet.value())
                )
                self._record.count(job, "added", len(packet.texts))

    # The finished commit

    def built(self, version: str | None) -> PendingCommit:
        """Build the commit. The store applies the commit only if the shard's record is still at *version*."""
        record, keys = self._record, self._context.store.keys
        for job, outcomes in self._results.items():
            key = f"{keys.results(job, self._number)}/{record.seq:010d}"
            self.changes.append(Create(key, encode_outcomes(self._context.member, record.epoch, outcomes)))
        record.seq += 1
        record.id = self._context.store.new_id()
        fence = Update(keys.shard(self._number), record.to_json(), version)
        return PendingCommit(
            record.id, [fence, *self.changes], self._sent, self.starts, self.quarantined, self.unreadable
        )
