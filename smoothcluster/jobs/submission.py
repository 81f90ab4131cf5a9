"""Submit tasks to a job: exact counts, safe to repeat.

Every commit of a submit also compares and sets ``jobs/<id>``, which counts the tasks written. Shards count the tasks
they add, skip and record. So a reader can check that all counts add up without listing any task. No task is
unfinished exactly when

    written + added == skipped + done + failed + quarantined

at one moment. A reader reads the shards one after another, and a task may move from a shard not read yet to a shard
already read. So the counts of an unfinished job may seem to add up. But every count only rises. If two readings in a
row are equal, all counts had these values at the moment between the readings.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, islice

from smoothcluster.arguments import check_tasks, shown
from smoothcluster.backend import Change, Create, Refused
from smoothcluster.errors import (
    BackendError,
    CommitTooLargeError,
    DuplicateTaskError,
    JobClosedError,
    OutcomeUnknownError,
    UsageError,
)
from smoothcluster.group.store import GroupStore, put
from smoothcluster.group.view import Versioned
from smoothcluster.jobs.access import ensure_spec, read_job
from smoothcluster.jobs.chunks import Packer, Packet, digest, encode_task, largest_chunk, pack
from smoothcluster.jobs.digest_set import DigestSet
from smoothcluster.model import Task
from smoothcluster.records.job import JOB_CANCELLING, JOB_FINISHED, JOB_OPEN, JOB_SEALED, Job
from smoothcluster.retry import patiently

PACKET_HEAD_BYTES = 512
"""Bytes counted for the key and the framing of a chunk in a commit."""

JOB_RECORD_BYTES = 2048
"""Bytes counted for the job's record in a commit."""


class Submission:
    """One call of ``submit``: writes tasks in chunks, with many chunks in a commit."""

    def __init__(self, store: GroupStore, job: str, patience: float, max_tasks: int | None = None) -> None:
        self._store, self._job, self._patience, self._max_tasks = store, job, patience, max_tasks
        self._backend, self._keys, self._clock = store.backend, store.keys, store.clock
        self._limits = store.backend.guarantees
        self._room = self._limits.largest_commit - JOB_RECORD_BYTES
        """Bytes of a commit for chunks."""
        self._waiting: list[Packet] = []
        self._size = 0
        self._state: str | None = None
        """The state of the job after the latest commit of this call; None if this call certainly wrote nothing."""
        self.written = 0
        """Number of tasks written to the store."""

    def run(self, tasks: Iterable[Task]) -> None:
        """Write all *tasks* and seal the job.

        Raise UsageError if *tasks* holds anything but tasks, DuplicateTaskError if two tasks of a collection have the
        same id, JobClosedError if the job takes no more tasks. A collection is checked as a whole before the first
        commit, an iterator up to the first task. Repeats of an iterator are written; the shards' owners skip and count
        them, as all repeats in the job. So a submit of an iterator needs no memory that grows.

        After a failure half-way, the job stays open and the written tasks run. Submit the same tasks to the same job
        again to complete the job: repeats are skipped. The same holds after OutcomeUnknownError, by which the store
        may have lost acknowledged tasks meanwhile. Before the job is sealed, `run` itself writes the tasks again
        after such a loss, if *tasks* is a collection.
        """
        check_tasks("submit", tasks)
        encoded = self._encoded(tasks)
        whole = [*encoded] if isinstance(tasks, Collection) else None
        parts = chain([*islice(encoded, 1)], encoded) if whole is None else whole
        while True:
            history = self._history()
            if whole and self._write_at_once(whole):
                break
            self._write(parts)
            if whole is None or history == self._history():
                self._commit([], 0, JOB_SEALED)
                break
        now = self._history()
        if now != history:
            raise OutcomeUnknownError(
                f"during the submit of job {self._job}, the store may have lost acknowledged writes (history before: "
                f"{history}; now: {now}). Submit the same tasks to the same job again: repeats are skipped"
            )

    def left_behind(self, error: BaseException) -> str:
        """Describe the job after *error* interrupted `run`, and the way to continue."""
        job = f"job {self._job!r}"
        if self._state is None:
            return "nothing was written"
        if self._state == JOB_SEALED:
            return f"all tasks of this submit are in {job}, unless the store has lost them since"
        if isinstance(error, JobClosedError):
            return f"earlier, this submit wrote {self.written} tasks to the job"
        certain = isinstance(error, Exception) and not isinstance(error, OutcomeUnknownError)
        return (
            f"{job} {'is' if certain else 'may be'} open now, with at least"
            f" {self.written} tasks of this submit. To complete the job, submit the same tasks with job={self._job!r}:"
            f" repeats are skipped. To end the job without more tasks, call submit([], job={self._job!r})"
        )

    def _write_at_once(self, whole: Sequence[tuple[bytes, str]]) -> bool:
        """Write all tasks and seal the job in one commit; return False if the tasks need several commits."""
        if sum(len(text) for _, text in whole) > self._room:
            return False
        spec = patiently(self._clock, self._patience, lambda: ensure_spec(self._store))
        packets = pack(whole, spec.shards, largest_chunk(self._limits))
        size = sum(packet.size + PACKET_HEAD_BYTES for packet in packets)
        if size > self._room or len(packets) + 1 > self._limits.most_operations:
            return False
        try:
            self._commit(packets, len(whole), JOB_SEALED)
        except CommitTooLargeError:
            return False  # The server takes less than promised.
        self.written = len(whole)
        return True

    def _history(self) -> str | None:
        return patiently(self._clock, self._patience, self._store.history)

    def _write(self, parts: Iterable[tuple[bytes, str]]) -> None:
        spec = patiently(self._clock, self._patience, lambda: ensure_spec(self._store))
        self._commit([], 0, JOB_OPEN)
        self.written = 0
        packer = Packer(spec.shards, largest_chunk(self._limits))
        for mark, text in parts:
            full = packer.add(mark, text)
            if full is not None:
                self._queue(full)
        for packet in packer.remaining():
            self._queue(packet)
        self._flush()

    def _encoded(self, tasks: Iterable[Task]) -> Iterator[tuple[bytes, str]]:
        # An iterator may have any number of tasks, so there is no memory of them: the shards' owners skip its repeats.
        seen = DigestSet() if isinstance(tasks, Collection) else None
        for task in tasks:
            if not isinstance(task, Task):  # pyright: ignore[reportUnnecessaryIsInstance]  # users may not check types
                raise UsageError(f"submit takes Tasks, not {shown(task)}")
            mark = digest(task.id)
            if seen is not None and not seen.add(mark):
                raise DuplicateTaskError(f"task {task.id!r:.100} appears twice in one submit; remove the repeat")
            text = encode_task(task)
            if len(text) + 3 > largest_chunk(self._limits):
                raise UsageError(
                    f"task {task.id!r:.100} takes {len(text)} bytes as JSON; this store takes tasks of"
                    f" {largest_chunk(self._limits) - 3} bytes at most"
                )
            yield mark, text

    def _queue(self, packet: Packet) -> None:
        size = packet.size + PACKET_HEAD_BYTES
        if self._waiting and (self._size + size > self._room or len(self._waiting) + 2 > self._limits.most_operations):
            self._flush()
        self._waiting.append(packet)
        self._size += size

    def _flush(self) -> None:
        if self._waiting:
            self._write_packets(self._waiting)
            self._waiting, self._size = [], 0

    def _write_packets(self, packets: list[Packet]) -> None:
        tasks = sum(len(packet.texts) for packet in packets)
        try:
            self._commit(packets, tasks, JOB_OPEN)
        except CommitTooLargeError:
            # The server takes less than promised. Even if the commit was sent before and lands late, the store refuses
            # the commit then: each half changes the job's record.
            if len(packets) == 1:
                raise
            self._write_packets(packets[: len(packets) // 2])
            self._write_packets(packets[len(packets) // 2 :])
        else:
            self.written += tasks

    def _commit(self, packets: list[Packet], tasks: int, state: str) -> None:
        """Write *packets* and what they add to the job's record, exactly once."""
        while True:
            before = patiently(self._clock, self._patience, self._read)
            if state == JOB_SEALED and not packets and before is not None and before.record.state == JOB_FINISHED:
                return  # A finished job was sealed before, and every task written here has an outcome.
            job = self._next_record(before, packets, tasks, state)
            if self._commit_until_known(self._changes(before, job, packets), job):
                self._state = state
                return

    def _read(self) -> Versioned[Job] | None:
        return read_job(self._store, self._job)

    def _next_record(self, before: Versioned[Job] | None, packets: list[Packet], tasks: int, state: str) -> Job:
        commit_id = self._store.new_id()
        if before is None:
            at = datetime.fromtimestamp(self._clock.wall(), UTC).isoformat(timespec="seconds")
            return Job(state, tasks, len(packets), at, commit_id, submitted=commit_id, max_tasks=self._max_tasks)
        job = before.record
        if self._max_tasks not in (None, job.max_tasks):
            bound = "no max_tasks of its own" if job.max_tasks is None else f"max_tasks={job.max_tasks}"
            raise UsageError(
                f"job {self._job!r} has {bound} since its first submit: leave max_tasks={self._max_tasks} out, or"
                " submit to a new job"
            )
        if job.ended or job.state == JOB_CANCELLING:
            raise JobClosedError(f"job {self._job!r} is {job.state} and takes no more tasks; submit to a new job")
        written, chunks = job.tasks + tasks, job.chunks + len(packets)
        return replace(job, state=state, tasks=written, chunks=chunks, id=commit_id, submitted=commit_id)

    def _changes(self, before: Versioned[Job] | None, job: Job, packets: list[Packet]) -> list[Change]:
        key = self._keys.job(self._job)
        record: Change = put(key, job.to_json(), before.version if before else None)
        first = job.chunks - len(packets)
        changes: list[Change] = [record]
        for number, packet in enumerate(packets, start=first):
            # The count is in the name: of all commits that start from this count, the store applies only one.
            name = packet.name(self._job, f"{number:08d}")
            changes.append(Create(self._keys.chunk(packet.shard, name), packet.value()))
        return changes

    def _commit_until_known(self, changes: list[Change], job: Job) -> bool:
        """Send a commit until the outcome is known; return whether the store applied the commit.

        Every try sends the same changes with the version first expected, so the store applies them once at most.
        """
        until = self._clock.monotonic() + self._patience
        said: OutcomeUnknownError | None = None

        def attempt() -> bool | None:
            nonlocal said
            # From here on the job may be open: Ctrl-C may come between the commit and the answer.
            before, self._state = self._state, self._state or JOB_OPEN
            try:
                if not isinstance(self._backend.commit([], changes), Refused):
                    return True
                self._state = before
            except OutcomeUnknownError as error:
                said = error
            except BackendError:
                self._state = before
                raise
            self._backend.sync()
            now = self._read()
            if now is not None and job.id in (now.record.id, now.record.submitted):
                return True
            return None if self._unchanged(now, changes[0]) else False

        while (answer := patiently(self._clock, self._patience, attempt)) is None:
            if said is not None and self._clock.monotonic() > until:  # It answers, and takes nothing: a full disk.
                raise said
            self._clock.sleep(0.01)
        return answer

    @staticmethod
    def _unchanged(now: Versioned[Job] | None, record: Change) -> bool:
        return now is None if isinstance(record, Create) else now is not None and now.version == record.version
