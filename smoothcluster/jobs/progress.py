"""Progress of a job: exact task counts, read without listing the tasks; and the tasks that the store has lost.

A store that evicts or loses keys may lose the chunks of waiting tasks. Such tasks never get an outcome. They are proved
lost by two equal readings of the counts, and in between a search that finds no readable chunk of the job: no count
changed, so no chunk was written or finished during the search.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from smoothcluster.backend import Change, Delete, Entry, Refused, Update
from smoothcluster.clock import Clock
from smoothcluster.errors import UsageError
from smoothcluster.group.store import GroupStore
from smoothcluster.group.view import Versioned
from smoothcluster.jobs.access import read_job
from smoothcluster.jobs.chunk_reading import read_chunk
from smoothcluster.jobs.chunks import job_of
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.group import Spec
from smoothcluster.records.job import JOB_CANCELLED, JOB_CANCELLING, JOB_FINISHED, JOB_SEALED, Job
from smoothcluster.records.keys import last_part
from smoothcluster.records.shard import COUNT_NAMES, Shard

LOSS_CHECK_SECONDS = 5.0
"""Seconds without progress after which a waiting client searches for lost tasks, and between two searches."""

CHUNKS_PER_READ = 16
"""How many chunks of a job one read fetches in the search for a readable chunk."""

_END_OF = {JOB_SEALED: JOB_FINISHED, JOB_CANCELLING: JOB_CANCELLED}
"""States of jobs that take no more tasks of submitters, and the state in which each of them ends."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a job, counted in tasks."""

    total: int
    """Tasks written by submitters or added by handlers, repeats left out."""
    done: int
    failed: int
    quarantined: int
    finished: bool
    """Every task has an outcome, and no submitter is still writing."""
    lost: int = 0
    """Tasks that the store has lost, as found by a wait without progress: the job cannot finish."""
    skipped: int = 0
    """Repeats: tasks written by submitters or added by handlers, with an id that the job had already."""
    unreadable: int = 0
    """Failed tasks that no member could read; `failed` includes them."""
    refused: int = 0
    """Tasks that handlers added beyond the job's ``max_tasks``; `total` does not include them."""
    cancelled: int = 0
    """Tasks without an outcome, because the job was cancelled before they ran."""
    state: str = field(default="", compare=False)
    """State of the job: open, sealed, finished, cancelling, cancelled, deleting or deleted."""

    @property
    def pending(self) -> int:
        """Tasks without an outcome: waiting or running."""
        return self.total - self.done - self.failed - self.quarantined - self.cancelled - self.lost


@dataclass(frozen=True, slots=True)
class JobCounts:
    """A single reading of a job: the job's record, and the sums of the shards' counts."""

    version: str | None
    job: Job
    counts: Mapping[str, int]
    """The sums of all counts of the shards, by name."""
    whole: bool = True
    """False if the record of a shard was unreadable: the counts of this shard are missing from the sums."""
    open_chunks: int = 0
    """How many chunks of the job members have admitted and not finished, where each queue counts as one chunk."""

    @property
    def written(self) -> int:
        """Tasks written by submitters, or added by handlers."""
        return self.job.tasks + self.counts["added"]

    @property
    def accounted(self) -> int:
        """Tasks with an outcome, cancelled, or skipped as repeats."""
        return sum(self.counts[what] for what in ("skipped", "done", "failed", "quarantined", "cancelled"))

    def progress(self, *, finished: bool) -> Progress:
        shown = {what: self.counts[what] for what in COUNT_NAMES if what != "added"}
        state = _END_OF[self.job.state] if finished and self.job.state in _END_OF else self.job.state
        return Progress(self.written - self.counts["skipped"], finished=finished, state=state, **shown)

    def add_up(self) -> bool:
        return self.whole and self.job.state in _END_OF and self.written == self.accounted

    def loss(self) -> "Loss | None":
        """The loss if no chunk of the job waits in the store; None if open chunks or submitters explain the rest."""
        if not self.whole or self.open_chunks or self.job.state not in _END_OF or self.written <= self.accounted:
            return None
        return Loss(self.written, self.accounted)


@dataclass(frozen=True, slots=True)
class Loss:
    """Tasks of a job that the store has lost, so the job cannot finish."""

    written: int
    """Tasks written by submitters, or added by handlers."""
    accounted: int
    """Tasks with an outcome, or skipped as repeats."""

    @property
    def lost(self) -> int:
        """Tasks without an outcome, of which nothing is left to run."""
        return self.written - self.accounted

    def numbers(self) -> dict[str, int]:
        """The numbers by name, for ``status --json`` and events."""
        return {"written": self.written, "accounted": self.accounted, "lost": self.lost}

    def describe(self, job: str) -> str:
        """Say what was lost, and what to do."""
        return (
            f"the store has lost {self.lost} tasks of job {job}: {self.written} were written, {self.accounted} are"
            " accounted for, and nothing readable is left, so the job cannot finish: submit the lost tasks again as"
            " another job"
        )


def read_counts(store: GroupStore, job: str, spec: Spec) -> JobCounts:
    """Read all counts of a job once. Raise UsageError if there is no such job."""
    found = store.read_ownership(spec)
    shards = found.shards if found is not None else []
    # Read the job's record last: once the job is finished, the sums in this record are final.
    record = read_job(store, job)
    if record is None:
        raise UsageError(f"there is no job {job!r}")
    return count_job(job, record, shards)


def count_job(job: str, record: Versioned[Job], shards: Sequence[Versioned[Shard] | None]) -> JobCounts:
    """Return the sums in the record of a job that has ended; of any other job, the sums over the *shards*."""
    if record.record.ended:
        return JobCounts(record.version, record.record, {what: getattr(record.record, what) for what in COUNT_NAMES})
    return sum_counts(job, record, shards)


def sum_counts(job: str, record: Versioned[Job], shards: Sequence[Versioned[Shard] | None]) -> JobCounts:
    """Return the sums of the counts of a job in the records of all shards."""
    readable = [read.record for read in shards if read is not None]
    tallies = [shard.counts.get(job, {}) for shard in readable]
    sums = {what: sum(tally.get(what, 0) for tally in tallies) for what in COUNT_NAMES}
    chunks = sum(job_of(name) == job for shard in readable for name in shard.open)
    chunks += sum(job in shard.queues and shard.queues[job].tasks > 0 for shard in readable)
    return JobCounts(record.version, record.record, sums, len(readable) == len(shards), chunks)


def read_progress(store: GroupStore, job: str, spec: Spec) -> Progress:
    """Return the progress of the job. ``finished`` is exact: two equal readings in a row prove the sums."""
    counted = read_counts(store, job, spec)
    finished = counted.job.ended
    if counted.add_up():
        finished = counted == read_counts(store, job, spec)
    return counted.progress(finished=finished)


def mark_finished(store: GroupStore, job: str, spec: Spec) -> bool:
    """Mark the job as finished, with the final sums, if all counts add up. Return whether the job is finished."""
    try:
        counted = read_counts(store, job, spec)
        if not counted.add_up() or counted != read_counts(store, job, spec):
            return counted.job.ended
    except UsageError:
        return False  # The job existed a moment ago, so the store has lost the record.
    return _mark_ended(store, job, counted, counted.counts)


def mark_cancelled(store: GroupStore, job: str, spec: Spec, loss: Loss) -> bool:
    """Mark a job that is being cancelled as cancelled, although the store has lost tasks: they count as cancelled.

    *loss* is the answer of `find_loss`. Return whether the job is marked.
    """
    counted = read_counts(store, job, spec)
    if counted.job.state != JOB_CANCELLING or counted.loss() != loss:
        return False
    return _mark_ended(store, job, counted, {**counted.counts, "cancelled": counted.counts["cancelled"] + loss.lost})


def _mark_ended(store: GroupStore, job: str, counted: JobCounts, sums: Mapping[str, Any]) -> bool:
    after = replace(counted.job, state=_END_OF[counted.job.state], id=store.new_id(), **sums)
    changes: list[Change] = [Update(store.keys.job(job), after.to_json(), counted.version)]
    if store.backend.get(store.keys.mark(job)) is not None:
        changes.append(Delete(store.keys.mark(job)))
    return not isinstance(store.backend.commit([], changes), Refused)


def find_loss(store: GroupStore, job: str, spec: Spec) -> Loss | None:
    """Return the loss if the store has lost all that is left of the job; None if the job can finish.

    Raise UsageError if there is no such job, or any BackendError.
    """
    counted = read_counts(store, job, spec)
    loss = counted.loss()
    # In this order: between two equal readings no chunk was written or finished, so the search misses no chunk.
    if loss is None or any(_has_readable_chunk(store, job, shard) for shard in range(spec.shards)):
        return None
    return loss if counted == read_counts(store, job, spec) else None


def _has_readable_chunk(store: GroupStore, job: str, shard: int) -> bool:
    keys = [key for key in store.backend.keys(store.keys.tasks(shard)) if _is_of(last_part(key), job)]
    for first in range(0, len(keys), CHUNKS_PER_READ):
        entries = store.backend.get_many(keys[first : first + CHUNKS_PER_READ])
        if any(entry is not None and _is_readable(entry) for entry in entries):
            return True
    return False


def _is_of(chunk: str, job: str) -> bool:
    try:
        return job_of(chunk) == job
    except GarbageError:
        return False


def _is_readable(chunk: Entry) -> bool:
    """Return whether the owner of the shard can record an outcome for each task of the chunk."""
    try:
        return bool(read_chunk(last_part(chunk.key), chunk.value))
    except GarbageError:
        return False


class LossCheck:
    """Tell a waiting client when to search for lost tasks: only after a time without progress."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: Progress | None = None
        self._next = 0.0

    def due(self, progress: Progress) -> bool:
        """Return whether to search now, given the latest *progress*."""
        now = self._clock.monotonic()
        if progress == self._last and now < self._next:
            return False
        due, self._last, self._next = progress == self._last, progress, now + LOSS_CHECK_SECONDS
        return due
