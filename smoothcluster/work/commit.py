"""Commits of a shard's owner: build a commit within the store's limits, and keep the commit until settled.

Everything is counted before the builder puts it into the commit, in bytes and in operations. A part without room waits
for the next commit. An outcome that is too large even for an empty commit becomes a failure.
"""

from collections.abc import Mapping
from itertools import islice
from json.encoder import encode_basestring_ascii as quote

from smoothcluster.backend import Change, Create, Delete, Update
from smoothcluster.jobs.chunks import digest, encode_task, job_of, largest_chunk
from smoothcluster.model import State, Task
from smoothcluster.pool import Run
from smoothcluster.records.quarantine import QuarantinedTask
from smoothcluster.records.results import encode_outcome, encode_outcomes
from smoothcluster.records.shard import Shard
from smoothcluster.work.added import AddedTasks
from smoothcluster.work.admission import KEY_END_BYTES, Admission
from smoothcluster.work.backlog import Backlog, place_of
from smoothcluster.work.context import WorkContext
from smoothcluster.work.outbox import Moved
from smoothcluster.work.pauses import Place
from smoothcluster.work.pending_commit import PendingCommit
from smoothcluster.work.room import Room
from smoothcluster.work.sent_tasks import Mark

OUTCOME_BYTES = 64
"""Bytes reserved for the framing of an outcome."""

OUTCOMES_HEAD_BYTES = 256
"""Bytes reserved for a record of outcomes besides the outcomes."""


class NoRoomError(Exception):
    """The shard's record alone leaves no room in a commit for any outcome. `ShardWork.prepare` catches this error."""


class CommitBuilder:
    """Builder of a commit within a *share* of the store's limits. `Room` counts.

    Changes to the shard's record are made in the record at once.
    """

    def __init__(self, number: int, record: Shard, backlog: Backlog, context: WorkContext, share: int = 1) -> None:
        self.changes: list[Change] = []
        self.starts: list[Run] = []
        self.quarantined: list[QuarantinedTask] = []
        self.unreadable: dict[str, list[str]] = {}
        self._limits = context.limits
        self._largest_chunk, self._most_kept = largest_chunk(self._limits), self._limits.largest_commit // share
        self.room = Room(record, self._limits, share)
        self._number, self._record, self._backlog, self._context = number, record, backlog, context
        self._added = AddedTasks(context.shards, self._largest_chunk)
        self._results: dict[str, list[str]] = {}
        self._kept: dict[Place, str] = {}
        """Tasks that are kept with their failed outcomes."""
        self._sizes: dict[str, int] = {}
        """Bytes of each job's results, estimated from above."""
        self.admission = Admission(number, record, backlog, context, self.room, self.changes)

    # Outcomes

    def make_room(self, run: Run) -> bool:
        """Reserve room for the outcome of *run* and for the tasks added by *run*; return whether there is enough.

        Few tasks are added together with the outcome. Of many tasks, those that have room are added before the outcome.
        If this process dies in between, the task runs again and adds the same tasks again. Repeats are skipped.

        If the store takes no commit with the outcome, or with one of the tasks, the run fails. Raise NoRoomError if
        there is no room for the failure, either.
        """
        if run.added or len(run.encoded) > self._largest_chunk - 3:
            self._fail_if_unfit(run)
        if run.added:
            fresh = self._fresh(run)
            size, chunks = self._added.cost(fresh)
            many = size > self._limits.largest_commit // 4 or chunks > self._limits.most_operations // 2
            if not many and self._reserve_run(run, size, chunks):
                self._add(run.context.job, fresh)
                return True
            if (many or self.room.empty) and self._spill(run, fresh) and self._reserve_run(run):
                return True
        elif self._reserve_run(run):
            return True
        if not self.room.empty:
            return False
        reason = "the store takes no commit with what the handler returned and submitted: it is too large"
        if not self.reserve_failure(place_of(run), run.task, reason):
            raise NoRoomError(f"the record of shard {self._number} leaves no room in a commit for an outcome")
        self.fail(run, reason)
        return True

    def _fail_if_unfit(self, run: Run) -> None:
        """Fail the run if a returned or submitted value is larger than a chunk may be on this store."""
        most = self._largest_chunk - 3
        if len(run.encoded) > most:
            deed = f"returned {len(run.encoded)} bytes of JSON"
        elif large := [task for task, text in zip(run.added, run.added_encoded, strict=True) if len(text) > most]:
            deed = f"submitted task {large[0].id[:100]!r}, which is larger"
        else:
            return
        self.fail(run, f"the handler {deed}; the store takes values of {most} bytes at most")

    @staticmethod
    def fail(run: Run, reason: str) -> None:
        """Fail a run whose outcome is too large for the store."""
        run.fail(reason)
        run.encoded, run.added, run.added_encoded = "null", [], []

    def _reserve_run(self, run: Run, added: int = 0, chunks: int = 0) -> bool:
        """Reserve room for the outcome of *run*, and for so many *chunks* with *added* bytes of tasks."""
        if run.error is not None:
            return self.reserve_failure(place_of(run), run.task, run.error)
        size = len(run.encoded) + len(quote(run.task.id))
        if chunks:
            added += chunks * self._key_bytes(run.context.job)
        return self.reserve_outcome(place_of(run), size, added, chunks)

    def reserve_failure(self, place: Place, task: Task, error: str, others: int = 0, operations: int = 0) -> bool:
        """Reserve room for an outcome with an *error*, and with the task: a retry submits the task again.

        The outcome goes without the task if the store takes no commit with both.
        """
        size, text = len("null") + len(quote(task.id)) + len(quote(error)), encode_task(task)
        if len(text) <= self._most_kept and self.reserve_outcome(place, size + len(text), others, operations):
            self._kept[place] = text
            return True
        return self.room.empty and self.reserve_outcome(place, size, others, operations)

    def reserve_outcome(self, place: Place, size: int, others: int = 0, operations: int = 0) -> bool:
        """Reserve room for a task's outcome of *size* bytes, and for *operations* more with *others* bytes."""
        name = place[0]
        job, chunk = job_of(name), self._record.open[name]
        results = self._sizes.get(job, OUTCOMES_HEAD_BYTES) + size + OUTCOME_BYTES
        if results > self._limits.largest_value:
            return False
        size += OUTCOME_BYTES + others
        if job not in self._results:
            size += OUTCOMES_HEAD_BYTES + len(self._context.store.keys.results(job, self._number)) + KEY_END_BYTES
            operations += 1
        if chunk.closed.bit_count() + 1 >= chunk.size:
            size += len(self._context.store.keys.chunk(self._number, name))
            operations += 1
        if not self.room.reserve(size, operations):
            return False
        self._sizes[job] = results
        return True

    def record_outcome(
        self, place: Place, task: str, state: State, value: str, error: str | None, attempts: int
    ) -> None:
        """Record the only outcome of a task, and close the task."""
        job = job_of(place[0])
        self._results.setdefault(job, []).append(
            encode_outcome(task, state, value, error, attempts, self._kept.pop(place, ""))
        )
        self._record.count(job, state)
        self._close(place)

    def close(self, place: Place) -> bool:
        """Close a waiting task of a closed job as cancelled; return False if the commit has no room."""
        name, chunk = place[0], self._record.open[place[0]]
        last = chunk.closed.bit_count() + 1 >= chunk.size
        if last and not self.room.reserve(len(self._context.store.keys.chunk(self._number, name)), 1):
            return False
        self._record.count(job_of(name), "cancelled")
        self._close(place)
        return True

    def _close(self, place: Place) -> None:
        name, index = place
        chunk = self._record.open[name]
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

    def _fresh(self, run: Run) -> dict[Mark, str]:
        """Return, as text, the tasks added by *run*, without those known to be in the store or in this commit."""
        if run.context.job in self._context.closed.jobs:
            return {}
        fresh: dict[Mark, str] = {}
        for task, text in zip(run.added, run.added_encoded, strict=True):
            mark = (run.context.job, digest(task.id))
            if mark not in self._context.sent and mark not in self._added.marks:
                fresh.setdefault(mark, text)
        return fresh

    def _add(self, job: str, texts: Mapping[Mark, str]) -> None:
        """Add tasks to the commit, as many as the bound of the job allows; count the others as refused."""
        granted = self._context.quota.take(job, len(texts))
        if granted < len(texts):
            self._record.count(job, "refused", len(texts) - granted)
        self._added.add(dict(islice(texts.items(), granted)))

    def _key_bytes(self, job: str) -> int:
        """Return the bytes to reserve for the key of a new chunk of *job*, in any shard."""
        return len(self._context.store.keys.chunk(self._context.shards, job)) + KEY_END_BYTES

    def _spill(self, run: Run, fresh: Mapping[Mark, str]) -> bool:
        """Add the *fresh* tasks of *run*, shard by shard, while the commit has room; return whether all had room.

        Each chunk is an operation. In the order of shards, the tasks of as few chunks as possible wait.
        """
        key_bytes, left = self._key_bytes(run.context.job), dict(fresh)
        for mark in sorted(fresh, key=self._added.shard):
            text = {mark: fresh[mark]}
            size, chunks = self._added.cost(text)
            if not self.room.reserve(size + chunks * key_bytes, chunks):
                break
            self._add(run.context.job, text)
            del left[mark]
        pairs = [*zip(run.added, run.added_encoded, strict=True)] if left else []
        pairs = [pair for pair in pairs if (run.context.job, digest(pair[0].id)) in left]
        # New lists: the lists of before are put back if the commit has to be built anew.
        run.added, run.added_encoded = [task for task, _ in pairs], [text for _, text in pairs]
        return not left

    def add_tasks(self) -> None:
        """Write the tasks added by runs, in chunks of their shards; `make_room` has reserved the room."""
        for job, packet in self._added.chunks():
            # Shard, epoch and sequence number: no other applied commit has the same three.
            unique = f"{self._number:x}.{self._record.epoch:x}.{self._record.seq:x}.{len(self.changes):x}"
            name = packet.name(job, unique)
            self.changes.append(Create(self._context.store.keys.chunk(packet.shard, name), packet.value()))
            self._record.count(job, "added", len(packet.texts))

    # The records of finished jobs

    def delete_finished_jobs(self, keys_by_job: dict[str, list[str]]) -> None:
        """Delete the keys of finished jobs, while the commit has room. The counts go with the last key."""
        for job, keys in list(keys_by_job.items()):
            while keys and self.room.reserve(len(keys[-1]), 1):
                self.changes.append(Delete(keys.pop()))
            if not keys:
                del keys_by_job[job]
                self._record.counts.pop(job, None)
                self._record.queues.pop(job, None)
                self._backlog.forget_job(job)

    def delete_moved(self, moved_by_job: dict[str, Moved]) -> None:
        """Set the tails of outcomes that the results sink has, and delete the records, while the commit has room."""
        for job, moved in list(moved_by_job.items()):
            if moved.tail is not None:
                key = self._context.store.keys.tail(job, self._number)
                if not self.room.reserve(len(key) + len(moved.tail), 1):
                    return
                self.changes.append(Create(key, moved.tail) if moved.fresh else Update(key, moved.tail))
                moved.tail = None
            while moved.keys and self.room.reserve(len(moved.keys[-1]), 1):
                self.changes.append(Delete(moved.keys.pop()))
            if not moved.keys:
                del moved_by_job[job]

    # The finished commit

    def built(self, version: str | None) -> PendingCommit:
        """Build the commit. The store applies the commit only if the shard's record is still at *version*."""
        record, keys = self._record, self._context.store.keys
        for job, outcomes in self._results.items():
            key = f"{keys.results(job, self._number)}/{record.seq:010d}"
            self.changes.append(Create(key, encode_outcomes(self._context.member, record.epoch, outcomes)))
        for job, marks in self.admission.marks.items():
            if marks:
                self.changes.append(Create(f"{keys.seen(job, self._number)}/{record.seq:010d}", b"".join(marks)))
        record.seq += 1
        record.id = self._context.store.new_id()
        fence = Update(keys.shard(self._number), record.to_json(), version)
        sent = list(self._added.marks)
        return PendingCommit(record.id, [fence, *self.changes], sent, self.starts, self.quarantined, self.unreadable)
