"""Progress of a job: exact task counts, read without listing the tasks."""

from dataclasses import dataclass, replace

from smoothcluster.backend import Refused, Update
from smoothcluster.errors import UsageError
from smoothcluster.group.store import GroupStore
from smoothcluster.jobs.access import read_job
from smoothcluster.records.group import Spec
from smoothcluster.records.job import JOB_FINISHED, JOB_SEALED, Job
from smoothcluster.records.shard import COUNT_NAMES


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

    @property
    def pending(self) -> int:
        """Tasks without an outcome: waiting or running."""
        return self.total - self.done - self.failed - self.quarantined


@dataclass(frozen=True, slots=True)
class JobCounts:
    """A single reading of a job: the job's record, and the sums of the shards' counts."""

    version: str | None
    job: Job
    counts: tuple[int, ...]
    whole: bool = True
    """False if the record of a shard was unreadable: the counts of this shard are missing from the sums."""

    def progress(self, *, finished: bool) -> Progress:
        added, skipped, done, failed, quarantined = self.counts
        return Progress(self.job.tasks + added - skipped, done, failed, quarantined, finished)

    def add_up(self) -> bool:
        added, skipped, *ended = self.counts
        return self.whole and self.job.state == JOB_SEALED and self.job.tasks + added == skipped + sum(ended)


def read_counts(store: GroupStore, job: str, spec: Spec) -> JobCounts:
    """Read all counts of a job once. Raise UsageError if there is no such job."""
    found = store.read_ownership(spec)
    shards = found.shards if found is not None else []
    tallies = [read.record.counts.get(job, {}) for read in shards if read is not None]
    # Read the job's record last: once the job is finished, the sums in this record are final.
    record = read_job(store, job)
    if record is None:
        raise UsageError(f"there is no job {job!r}")
    if record.record.state == JOB_FINISHED:
        return JobCounts(record.version, record.record, tuple(getattr(record.record, what) for what in COUNT_NAMES))
    sums = tuple(sum(tally.get(what, 0) for tally in tallies) for what in COUNT_NAMES)
    return JobCounts(record.version, record.record, sums, whole=len(tallies) == len(shards))


def read_progress(store: GroupStore, job: str, spec: Spec) -> Progress:
    """Return the progress of the job. ``finished`` is exact: two equal readings in a row prove the sums."""
    counted = read_counts(store, job, spec)
    finished = counted.job.state == JOB_FINISHED
    if counted.add_up():
        finished = counted == read_counts(store, job, spec)
    return counted.progress(finished=finished)


def mark_finished(store: GroupStore, job: str, spec: Spec) -> bool:
    """Mark the job as finished, with the final sums, if all counts add up. Return whether the job is finished."""
    try:
        counted = read_counts(store, job, spec)
        if not counted.add_up() or counted != read_counts(store, job, spec):
            return counted.job.state == JOB_FINISHED
    except UsageError:
        return False  # The job existed a moment ago, so the store has lost the record.
    added, skipped, done, failed, quarantined = counted.counts
    after = replace(
        counted.job, state=JOB_FINISHED, id=store.new_id(),
        added=added, skipped=skipped, done=done, failed=failed, quarantined=quarantined,
    )  # fmt: skip
    return not isinstance(
        store.backend.commit([], [Update(store.keys.job(job), after.to_json(), counted.version)]), Refused
    )
