"""A handle on a job, for clients."""

from collections.abc import Iterator

from smoothcluster.arguments import check_timeout
from smoothcluster.errors import TasksLostError, UsageError
from smoothcluster.jobs.access import Access, read_job
from smoothcluster.jobs.cancelling import cancel, end_without_lost
from smoothcluster.jobs.deletion import Deletion, Step
from smoothcluster.jobs.progress import Loss, LossCheck, Progress, find_loss, read_progress
from smoothcluster.jobs.results import read_outcomes
from smoothcluster.jobs.retrying import retry
from smoothcluster.model import Outcome, State
from smoothcluster.records.job import JOB_CANCELLING, JOB_DELETED, JOB_DELETING

SHORTEST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.001, 0.25
"""Seconds between two looks at a job: a tenth of the time waited so far."""

DELETION_POLL_SECONDS = 0.1
"""Seconds between two looks at a job that is being deleted."""


class JobHandle:
    """Handle on a job of a group: read the progress, wait for the end, read the outcomes."""

    def __init__(self, access: Access, job_id: str) -> None:
        self.id = job_id
        self._access = access

    def __repr__(self) -> str:
        return f"<job {self.id} of group {self._access.group}>"

    def progress(self) -> Progress:
        """Return the progress of the job, in tasks. `Progress.finished` is exact."""
        access, spec = self._access, self._access.spec()
        return access.ask(lambda: read_progress(access.store, self.id, spec))

    def loss(self) -> Loss | None:
        """Return how many tasks the store has lost, if the job cannot finish for this reason; otherwise None.

        The search reads the names of all waiting chunks, so call this only for a job without progress.
        """
        access, spec = self._access, self._access.spec()
        return access.ask(lambda: find_loss(access.store, self.id, spec))

    def wait(self, timeout: float | None = None) -> Progress:
        """Wait until every task has an outcome; raise TimeoutError after *timeout* seconds, never if None.

        A cancelled job ends once its running tasks have ended: `Progress.state` says so.

        Raise TasksLostError if the store has lost tasks of the job, so the job cannot finish.
        """
        check_timeout(timeout)
        clock = self._access.store.clock
        began, check = clock.monotonic(), LossCheck(clock)
        deadline = None if timeout is None else began + timeout
        while not (progress := self.progress()).finished:
            if deadline is not None and clock.monotonic() >= deadline:
                raise TimeoutError(f"job {self.id!r} is not finished after {timeout} s: {progress}")
            if check.due(progress):
                self._look_for_loss(progress)
            waited = clock.monotonic() - began
            clock.sleep(min(max(SHORTEST_POLL_SECONDS, waited / 10), LONGEST_POLL_SECONDS))
        return progress

    def _look_for_loss(self, progress: Progress) -> None:
        """End a cancelled job of which the store has lost tasks; raise TasksLostError if the job is not cancelled."""
        if progress.state == JOB_CANCELLING:
            end_without_lost(self._access, self.id, self._access.spec())
        elif (loss := self.loss()) is not None:
            raise TasksLostError(loss.describe(self.id))

    def results(self) -> Iterator[Outcome]:
        """Iterate over the outcomes recorded so far, shard by shard. Each record is read when needed.

        Outcomes in a results sink are read from there. Raise SinkUnavailableError if the sink is away, UsageError if
        the job is deleted before the last outcome was read.
        """
        self._refuse_if_deleted()
        spec = self._access.spec()
        for shard in range(spec.shards):
            yield from read_outcomes(self._access, self.id, shard, sink=spec.results_id is not None)
        self._refuse_if_deleted()

    def errors(self) -> Iterator[Outcome]:
        """Iterate over the outcomes recorded so far that are not ``done``, with their tasks. See `results`."""
        return (each for each in self.results() if each.state != State.DONE)

    def _refuse_if_deleted(self) -> None:
        read = self._access.ask(lambda: read_job(self._access.store, self.id))
        if read is not None and read.record.state in (JOB_DELETING, JOB_DELETED):
            raise UsageError(f"job {self.id!r} is {read.record.state}: its outcomes are gone")

    def cancel(self) -> None:
        """Cancel the job: its tasks start no more. Return at once; `wait` waits until the running tasks have ended.

        Tasks without an outcome then count as ``cancelled``. Outcomes stay. The job takes no more tasks. A job that has
        ended stays as it is, so the call can be repeated. Members act when they run: without a member, the job
        ends at the next start of a member.

        Raise UsageError if there is no such job.
        """
        cancel(self._access, self.id)

    def delete(self) -> None:
        """Delete the job with its outcomes, its tasks in quarantine, and all else that the job has in the store.

        A job that has not ended is cancelled first, and the call waits until running tasks have ended. Only a small
        record stays, the tombstone: no job can have the same id again. If the call is interrupted, call `delete` again.

        Raise UsageError if there is no such job, UnavailableError if the job has tasks left to end, and no member.
        """
        clock = self._access.store.clock
        for step in self.deletion():
            if step.wait:
                clock.sleep(DELETION_POLL_SECONDS)

    def deletion(self) -> Iterator[Step]:
        """Delete the job step by step, as `delete` does: the caller pauses after each step with ``wait``."""
        return Deletion(self._access, self.id).steps()

    def retry(self) -> "JobHandle":
        """Submit the failed tasks of an ended job as a new job; return the handle of the new job.

        The new job has exactly the tasks whose outcome is ``failed``. Its id depends on the job and these tasks only,
        so repeating the call submits nothing twice. Tasks in quarantine stay there: see `Cluster.release`.

        Raise UsageError if the job has not ended, or has no failed tasks.
        """
        return JobHandle(self._access, retry(self._access, self.id, self.results))
