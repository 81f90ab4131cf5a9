"""Admission: open the chunks that the frontier has read, or merge them into the queues of their jobs.

Repeats are skipped and counted, and all other ids are added to ``seen``, in the commit that opens or merges a chunk. A
chunk from a queue has no repeats: its ids were added when the chunk was merged.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import final

from smoothcluster.backend import Change, Create, Delete
from smoothcluster.jobs.chunk_reading import ReadTask, UnreadableTask
from smoothcluster.jobs.chunks import CHUNK_TASKS, DIGEST_BYTES, digest, encode_task, largest_chunk
from smoothcluster.model import Task
from smoothcluster.records.keys import queued_name
from smoothcluster.records.shard import JobQueue, Shard
from smoothcluster.work.backlog import Backlog
from smoothcluster.work.context import WorkContext
from smoothcluster.work.frontier import Batch
from smoothcluster.work.room import Room

OPEN_CHUNK_BYTES = 640
"""Bytes by which an admitted chunk lets the record grow, with the counts of the job and without the bitmaps."""

QUEUE_BYTES = 256
"""Bytes by which a merged chunk lets the record grow, with the name of the job."""

KEY_END_BYTES = 48
"""Bytes reserved for the part of a new key behind the shard's number and the job."""


@dataclass
class _Merged:
    """Listed chunks of a job, merged into one."""

    names: list[str] = field(default_factory=list[str])
    """The chunks that are merged."""
    tasks: dict[bytes, Task] = field(default_factory=dict[bytes, Task])
    """The tasks that are no repeats, by digest."""
    texts: list[str] = field(default_factory=list[str])
    size: int = 2
    repeats: int = 0


@final
class Admission:
    """The chunks that one commit opens or merges. *changes* and *record* are those of the commit."""

    def __init__(  # parameters: the parts of one commit
        self, number: int, record: Shard, backlog: Backlog, context: WorkContext, room: Room, changes: list[Change]
    ) -> None:
        self.marks: dict[str, list[bytes]] = {}
        """Digests of admitted tasks, by job."""
        self._number, self._record, self._backlog, self._frontier = number, record, backlog, backlog.frontier
        self._keys, self._limits, self._closed = context.store.keys, context.limits, context.closed.jobs
        self._room, self._changes = room, changes

    def admit(self) -> bool:
        """Open the next chunk, or chunks; return False if there are none, or the commit has no room.

        Chunks with repeats only, and chunks younger than their job's queue, are not opened: the caller goes on.
        """
        if not self._frontier.read:
            return False
        batch = self._frontier.read[0]
        if batch.job in self._closed:
            return self.close()
        if batch.number is not None:
            return self._open_queued(batch, batch.number)
        queue = self._record.queues.get(batch.job)
        waits = queue is not None and queue.head < queue.tail
        merged = self._gather(batch) if waits or len(batch.chunks) > 1 else _Merged()
        if waits or len(merged.names) > 1:
            if self._merge(batch, merged, opened=not waits):
                return True
            if not self._room.empty:
                return False
        return self._open_in_place(batch)

    def merge(self) -> None:
        """Merge read chunks into the queues of their jobs while too many chunks are listed and the commit has room."""
        left = list(self._frontier.read)
        while left and self._frontier.crowded:
            batch = left.pop()  # The youngest first: the tasks of the others start sooner.
            while batch.number is None and batch.chunks and (merged := self._gather(batch)).names:
                if not self._merge(batch, merged, opened=False):
                    return

    def close(self) -> bool:
        """Delete chunks of closed jobs, and count their tasks as cancelled. Return whether the commit deletes any."""
        before = len(self._changes)
        for job in self._closed:
            if job in self._record.queues:
                self._close_queue(job, self._record.queues[job])
        for batch in [batch for batch in self._frontier.read if batch.job in self._closed]:
            while batch.chunks and self._close_listed(batch):
                pass
        return len(self._changes) > before

    def _close_queue(self, job: str, queue: JobQueue) -> None:
        """Delete the chunks of a queue. Only the sum of their tasks is known, so they count with the last chunk."""
        for batch in [batch for batch in self._frontier.read if batch.job == job and batch.number is not None]:
            self._frontier.read.remove(batch)
        while queue.damaged or queue.head < queue.tail:
            number = queue.damaged[0] if queue.damaged else queue.head
            key = self._keys.chunk(self._number, queued_name(job, number))
            if not self._room.reserve(len(key), 1):
                self._frontier.queued(job)
                return
            self._changes.append(Delete(key))
            if queue.damaged:
                queue.damaged.pop(0)
            else:
                queue.head += 1
        if queue.tasks:
            self._record.count(job, "cancelled", queue.tasks)
            queue.tasks = 0

    def _close_listed(self, batch: Batch) -> bool:
        """Delete the first chunk of a batch; return False if the commit has no room."""
        name, tasks = batch.chunks[0]
        if not self._reserve(0, opened=True, job=batch.job, marks=len(tasks), deleted=[name]):
            return False
        self._take(batch, 1)
        seen = self._backlog.seen.of(batch.job)
        fresh = [mark for task in tasks if seen.add(mark := digest(task.id))]
        self._note(batch.job, fresh, len(tasks) - len(fresh))
        self._record.count(batch.job, "cancelled", len(fresh))
        self._changes.append(Delete(self._keys.chunk(self._number, name)))
        return True

    def _open_queued(self, batch: Batch, number: int) -> bool:
        """Open the first chunk of a queue; put the chunk aside if it is not readable."""
        queue = self._record.queues[batch.job]
        others = queue.tail - queue.head + len(queue.damaged) - 1
        whole = bool(batch.chunks) and batch.tasks <= queue.tasks - max(0, others)
        if whole and not self._reserve(OPEN_CHUNK_BYTES + batch.tasks // 2, opened=True):
            return False
        self._frontier.read.popleft()
        if number in queue.damaged:
            queue.damaged.remove(number)
        else:
            queue.head = number + 1
            queue.tail = max(queue.tail, queue.head)
        if whole:
            ((name, tasks),) = batch.chunks
            queue.tasks -= len(tasks)
            self._backlog.open(name, tasks)
        else:
            queue.damaged.append(number)
        if queue.tasks and queue.head == queue.tail:
            self._frontier.queued(batch.job)
        return True

    def _open_in_place(self, batch: Batch) -> bool:
        """Open the first chunk of a batch where it lies."""
        name, tasks = batch.chunks[0]
        marks = [digest(task.id) for task in tasks]
        growth = OPEN_CHUNK_BYTES + len(tasks) // 2
        if not self._reserve(growth, opened=True, job=batch.job, marks=len(tasks), deleted=[name]):
            return False
        self._take(batch, 1)
        seen, fresh, repeats = self._backlog.seen.of(batch.job), list[bytes](), set[int]()
        for index, mark in enumerate(marks):
            if seen.add(mark):
                fresh.append(mark)
            else:
                repeats.add(index)
        self._note(batch.job, fresh, len(repeats))
        if fresh:
            self._backlog.open(name, tasks, repeats)
        else:
            self._changes.append(Delete(self._keys.chunk(self._number, name)))
        return True

    def _gather(self, batch: Batch) -> _Merged:
        """Merge as many chunks as fit into one, up to the first chunk with an unreadable task."""
        found, seen, most = _Merged(), self._backlog.seen.of(batch.job), largest_chunk(self._limits)
        # The merged chunk and the digests are operations, too. Half of a commit is left for outcomes.
        most_names = min(self._limits.most_operations // 2, self._room.operations_left - 2)
        for name, tasks in batch.chunks:
            fresh: dict[bytes, Task] = {}
            for task in tasks:
                if isinstance(task, UnreadableTask):
                    return found
                mark = digest(task.id)
                if mark not in seen and mark not in found.tasks:
                    fresh.setdefault(mark, task)
            texts = [encode_task(task) for task in fresh.values()]
            size = found.size + sum(len(text) + 1 for text in texts)
            full = size > most or len(found.tasks) + len(fresh) > CHUNK_TASKS
            if full or len(found.names) >= most_names:
                return found
            found.names.append(name)
            found.tasks |= fresh
            found.texts += texts
            found.size, found.repeats = size, found.repeats + len(tasks) - len(fresh)
        return found

    def _merge(self, batch: Batch, merged: _Merged, *, opened: bool) -> bool:
        """Replace the *merged* chunks by one, and open it or leave it in the queue; return False without room."""
        count, job = len(merged.tasks), batch.job
        growth = OPEN_CHUNK_BYTES + count // 2 if opened else QUEUE_BYTES
        size = merged.size + len(self._keys.queue(self._number)) + len(job) + KEY_END_BYTES
        if not self._reserve(growth, opened=opened, job=job, marks=count, deleted=merged.names, created=size):
            return False
        self._take(batch, len(merged.names))
        self._changes += [Delete(self._keys.chunk(self._number, name)) for name in merged.names]
        seen = self._backlog.seen.of(job)
        for mark in merged.tasks:
            seen.add(mark)
        self._note(job, list(merged.tasks), merged.repeats)
        if not count:
            return True
        queue = self._record.queues.setdefault(job, JobQueue())
        name = queued_name(job, queue.tail)
        queue.tail += 1
        self._changes.append(Create(self._keys.chunk(self._number, name), f"[{','.join(merged.texts)}]".encode()))
        if opened:
            queue.head = queue.tail
            self._backlog.open(name, list[ReadTask](merged.tasks.values()))
        else:
            queue.tasks += count
            self._frontier.queued(job)
        return True

    def _take(self, batch: Batch, chunks: int) -> None:
        """Take so many chunks out of a batch that was read."""
        for _ in range(chunks):
            batch.tasks -= len(batch.chunks.popleft()[1])
        if not batch.chunks:
            self._frontier.read.remove(batch)

    def _note(self, job: str, fresh: list[bytes], repeats: int) -> None:
        """Note the digests of new tasks, and count the repeats."""
        self._backlog.note_admitted(job, fresh)
        self.marks.setdefault(job, []).extend(fresh)
        if repeats:
            self._record.count(job, "skipped", repeats)

    def _reserve(  # parameters: the kinds of changes
        self, growth: int, *, opened: bool, job: str = "", marks: int = 0, deleted: Iterable[str] = (), created: int = 0
    ) -> bool:
        """Reserve room for the growth of the record and for all changes; return whether there is enough.

        The digests of a job are one record in each commit.
        """
        if not self._room.reserve_growth(growth, needed=opened and not self._record.open):
            return False
        keys = [self._keys.chunk(self._number, name) for name in deleted]
        size, operations = growth + sum(map(len, keys)) + created, len(keys) + (created > 0)
        if marks:
            size += DIGEST_BYTES * marks
            before = len(self.marks.get(job, ()))
            if DIGEST_BYTES * (before + marks) > self._limits.largest_value:
                return False
            if not before:
                size, operations = size + len(self._keys.seen(job, self._number)) + KEY_END_BYTES, operations + 1
        return self._room.reserve(size, operations)
