"""Keeping house: a finished job needs no memory of its ids, and no line in every shard's record.

The owner of the first shard looks now and then whether a job has finished, and says so in its
record, with the sums. Every owner then drops what its own shards kept for it: the counts in the
shard's record and the digests under ``seen``, in its own fenced commits. Results stay.
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
    """All jobs and their states."""
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
    """The jobs that are finished; given *spec*, those also that nobody has said so of yet are found, and marked."""
    finished: set[str] = set()
    for job, state in states(backend, keys, report).items():
        if state == FINISHED or (
            state == SEALED and spec is not None and mark_finished(backend, keys, job, spec, new_id(), report)
        ):
            finished.add(job)
    return finished


def tidy(backend: CoordinationBackend, keys: Keys, work: ShardWork, finished: set[str]) -> None:
    """Have the shard's next commit drop what it keeps for *finished* jobs."""
    for job in sorted(finished & work.record.counts.keys()):
        work.forget(job, backend.keys(keys.seen(job, work.number)))


class Cleanup:
    """What one incarnation tidies up, *every* so many seconds, and only if there is anything."""

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
        """Do so, if it is time."""
        now = self._environment.clock.monotonic()
        if view is None or now < self._next or not any(work.record.counts for work in works.values()):
            return
        self._next = now + self._every
        judge = view.spec.record if 0 in works else None  # One member decides, so that not all do.
        finished = finished_jobs(self._backend, self._keys, judge, self._environment.new_id, self._report)
        for work in works.values():
            tidy(self._backend, self._keys, work, finished)
