"""Progress of a job: exact task counts, read without listing the tasks."""

from dataclasses import dataclass, replace

from smoothcluster.backend import CoordinationBackend, Refused, Update
from smoothcluster.errors import UsageError
from smoothcluster.group.reading import read_ownership
from smoothcluster.group.view import Report
from smoothcluster.jobs.access import read_job
from smoothcluster.records.group import Spec
from smoothcluster.records.job import FINISHED, SEALED, Job
from smoothcluster.records.keys import Keys
from smoothcluster.records.shard import COUNTS


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
        return self.whole and self.job.state == SEALED and self.job.tasks + added == skipped + sum(ended)


def read_counts(backend: CoordinationBackend, keys: Keys, job: str, spec: Spec, report: Report) -> JobCounts:
    """Read all counts of a job once. Raise UsageError if there is no such job."""
    found = read_ownership(backend, keys, spec, report)
    shards = found.shards if found is not None else []
    tallies = [read.record.counts.get(job, {}) for read in shards if read is not None]
    # Read the job's record last: once the job is finished, the sums in this record are final.
    record = read_job(backend, keys, job)
    if record is None:
        raise UsageError(f"there is no job {job!r}")
    if record.record.state == FINISHED:
        return JobCounts(record.version, record.record, tuple(getattr(record.record, what) for what in COUNTS))
    sums = tuple(sum(tally.get(what, 0) for tally in tallies) for what in COUNTS)
    return JobCounts(record.version, record.record, sums, whole=len(tallies) == len(shards))


def read_progress(backend: CoordinationBackend, keys: Keys, job: str, spec: Spec, report: Report) -> Progress:
    """Return the progress of the job. ``finished`` is exact: two equal readings in a row prove the sums."""
    books = read_counts(backend, keys, job, spec, report)
    finished = books.job.state == FINISHED
    if books.add_up():
        finished = books == read_counts(backend, keys, job, spec, report)
    return books.progress(finished=finished)


def mark_finished(backend: CoordinationBackend, keys: Keys, job: str, spec: Spec, new_id: str, report: Report) -> bool:
    """Mark the job as finished, with the final sums, if all counts add up. Return whether the job is finished."""
    try:
        books = read_counts(backend, keys, job, spec, report)
        if not books.add_up() or books != read_counts(backend, keys, job, spec, report):
            return books.job.state == FINISHED
    except UsageError:
        return False  # The job existed a moment ago, so the store has lost the record.
    added, skipped, done, failed, quarantined = books.counts
    after = replace(
        books.job, state=FINISHED, id=new_id,
        added=added, skipped=skipped, done=done, failed=failed, quarantined=quarantined,
    )  # fmt: skip
    return not isinstance(backend.commit([], [Update(keys.job(job), after.to_json(), books.version)]), Refused)
