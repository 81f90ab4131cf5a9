"""Cleanup after finished jobs: drop the digests of ids, and the counts in the shards' records.

The owner of shard 0 checks from time to time whether a sealed job has finished, and marks the job's record, with the
sums of the counts. Then the owner of each shard drops the job's data of this shard: the counts in the shard's record,
and the digests under ``seen``. The owner does so in fenced commits. The results stay.
"""

from collections.abc import Callable, Mapping

from smoothcluster.backend import CoordinationBackend
from smoothcluster.group.view import Report, View
from smoothcluster.jobs.progress import mark_finished
from smoothcluster.member.environment import Environment
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.group import Spec
from smoothcluster.records.job import FINISHED, SEALED, Job
from smoothcluster.records.keys import Keys, last_part
from smoothcluster.work import ShardWork


def states(backend: CoordinationBackend, keys: Keys, report: Report) -> dict[str, str]:
    """Return the state of each job. Report unreadable records and leave them out."""
    found: dict[str, str] = {}
    for entry in backend.list(keys.jobs):
        try:
            found[last_part(entry.key)] = Job.from_json(entry.value).state
        except GarbageError as error:
            report(entry.key, str(error))
    return found


def finished_jobs(
    backend: CoordinationBackend, keys: Keys, spec: Spec | None, new_id: Callable[[], str], report: Report
) -> set[str]:
    """Return the finished jobs. Given *spec*, also find and mark the sealed jobs that have finished since.

    A job that another member marks at the same moment is returned next time. Raise any BackendError.
    """
    finished: set[str] = set()
    for job, state in states(backend, keys, report).items():
        if state == FINISHED or (
            state == SEALED and spec is not None and mark_finished(backend, keys, job, spec, new_id(), report)
        ):
            finished.add(job)
    return finished


def tidy(backend: CoordinationBackend, keys: Keys, work: ShardWork, finished: set[str]) -> None:
    """Have the shard's next commits drop the counts and digests of *finished* jobs."""
    for job in sorted(finished & work.record.counts.keys()):
        work.forget(job, backend.keys(keys.seen(job, work.number)))


class Cleanup:
    """The cleanup of one incarnation: every *every* seconds, and only if a shard of ours has counts of a job."""

    def __init__(
        self, backend: CoordinationBackend, keys: Keys, environment: Environment, every: float, report: Report
    ) -> None:
        self._backend, self._keys, self._environment, self._every, self._report = (
            backend,
            keys,
            environment,
            every,
            report,
        )
        self._next = 0.0

    def turn(self, view: View | None, works: Mapping[int, ShardWork]) -> None:
        """Clean up the shards *works*, if the time has come. Called in each turn, except while leaving.

        Raise any BackendError.
        """
        now = self._environment.clock.monotonic()
        if view is None or now < self._next or not any(work.record.counts for work in works.values()):
            return
        self._next = now + self._every
        judge = view.spec.record if 0 in works else None  # So only one member checks.
        finished = finished_jobs(self._backend, self._keys, judge, self._environment.new_id, self._report)
        for work in works.values():
            tidy(self._backend, self._keys, work, finished)
