"""Cleanup after finished jobs: drop the digests of ids, and the counts in the shards' records.

The owner of shard 0 checks from time to time whether a sealed job has finished, and marks the job's record, with the
sums of the counts. Then the owner of each shard drops the job's data of this shard: the counts in the shard's record,
and the digests under ``seen``. The owner does so in fenced commits. The results stay.

The owner of shard 0 also reports jobs that cannot finish, because the store has lost tasks.
"""

import logging
from collections.abc import Mapping

from smoothcluster.errors import UsageError
from smoothcluster.group.events import EventLog
from smoothcluster.group.store import GroupStore
from smoothcluster.group.view import View
from smoothcluster.jobs.access import read_jobs
from smoothcluster.jobs.progress import find_loss, mark_cancelled, mark_finished
from smoothcluster.records.group import Spec
from smoothcluster.records.job import JOB_CANCELLING, JOB_SEALED
from smoothcluster.work import ShardWork
from smoothcluster.work.closed_jobs import ClosedJobs

log = logging.getLogger("smoothcluster")

CLOSED_JOBS_CHECK_SECONDS = 0.5
"""Seconds between two checks while a job is being cancelled or deleted."""


def finished_jobs(store: GroupStore, spec: Spec | None) -> set[str]:
    """Return the finished jobs. Given *spec*, also find and mark the sealed jobs that have finished since.

    A job that another member marks at the same moment is returned next time. Raise any BackendError.
    """
    finished: set[str] = set()
    for job, record in read_jobs(store).items():
        if record.ended or (
            record.state in (JOB_SEALED, JOB_CANCELLING) and spec is not None and mark_finished(store, job, spec)
        ):
            finished.add(job)
    return finished


def tidy(store: GroupStore, work: ShardWork, finished: set[str]) -> None:
    """Have the shard's next commits drop the counts and digests of *finished* jobs."""
    for job in sorted(finished & work.record.counts.keys()):
        if work.outbox is not None and work.outbox.holds(job):
            continue  # The counts tell the next owner that the job has outcomes to move.
        work.forget(job, store.backend.keys(store.keys.seen(job, work.number)))


class Cleanup:
    """The cleanup of one incarnation: every *every* seconds, and only if a shard of ours has counts of a job."""

    def __init__(self, store: GroupStore, every: float, events: EventLog, closed: ClosedJobs) -> None:
        self._store, self._every, self._events, self._closed = store, every, events, closed
        self._next, self._hurried = 0.0, False
        self._reported: set[str] = set()
        """Jobs whose lost tasks are in an event of this incarnation."""

    def hurry(self) -> None:
        """Have the next turn clean up: a job was cancelled, or is being deleted."""
        self._next, self._hurried = 0.0, True

    def run(self, view: View | None, works: Mapping[int, ShardWork]) -> None:
        """Clean up the shards *works*, if the time has come. Called in each turn, except while leaving.

        Raise any BackendError.
        """
        now = self._store.clock.monotonic()
        if view is None or now < self._next:
            return
        if not self._hurried and not any(work.record.counts for work in works.values()):
            return
        judge = view.spec.record if 0 in works else None  # So only one member checks.
        finished = finished_jobs(self._store, judge)
        for work in works.values():
            tidy(self._store, work, finished)
        if judge is not None:
            self._report_losses(judge)
        every = min(self._every, CLOSED_JOBS_CHECK_SECONDS) if self._closed.jobs else self._every
        self._next, self._hurried = now + every, False  # Only now: after an error, the cleanup stays due.

    def _report_losses(self, spec: Spec) -> None:
        """Report the jobs that cannot finish because the store has lost tasks, once each."""
        for job, record in read_jobs(self._store).items():
            if record.state not in (JOB_SEALED, JOB_CANCELLING) or job in self._reported:
                continue
            try:
                loss = find_loss(self._store, job, spec)
                if loss is not None and record.state == JOB_CANCELLING:
                    mark_cancelled(self._store, job, spec, loss)
                    continue
            except UsageError:
                continue  # The store has lost the record of the job.
            if loss is not None:
                self._reported.add(job)
                log.warning("%s", loss.describe(job))
                self._events.add("tasks_lost", job=job, **loss.numbers())
