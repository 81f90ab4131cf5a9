"""A handle on a job, for clients."""

from collections.abc import Iterator

from smoothcluster.arguments import check_timeout
from smoothcluster.errors import TasksLostError
from smoothcluster.jobs.access import Access
from smoothcluster.jobs.progress import Loss, LossCheck, Progress, find_loss, read_progress
from smoothcluster.jobs.results import read_outcomes
from smoothcluster.model import Outcome

SHORTEST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.001, 0.25
"""Seconds between two looks at a job: a tenth of the time waited so far."""


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

        Raise TasksLostError if the store has lost tasks of the job, so the job cannot finish.
        """
        check_timeout(timeout)
        clock = self._access.store.clock
        began, check = clock.monotonic(), LossCheck(clock)
        deadline = None if timeout is None else began + timeout
        while not (progress := self.progress()).finished:
            if deadline is not None and clock.monotonic() >= deadline:
                raise TimeoutError(f"job {self.id!r} is not finished after {timeout} s: {progress}")
            if check.due(progress) and (loss := self.loss()) is not None:
                raise TasksLostError(loss.describe(self.id))
            waited = clock.monotonic() - began
            clock.sleep(min(max(SHORTEST_POLL_SECONDS, waited / 10), LONGEST_POLL_SECONDS))
        return progress

    def results(self) -> Iterator[Outcome]:
        """Iterate over the outcomes recorded so far, shard by shard. Each record is read when needed.

        Outcomes in a results sink are read from there: raise SinkUnavailableError if the sink is away.
        """
        spec = self._access.spec()
        for shard in range(spec.shards):
            yield from read_outcomes(self._access, self.id, shard, sink=spec.results_id is not None)
