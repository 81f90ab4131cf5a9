"""Closes the jobs that are being cancelled or deleted on all shards of a member; see `closing`."""

from collections.abc import Callable, Collection, Mapping
from typing import final

from smoothcluster.jobs.chunks import job_of
from smoothcluster.pool import Pool, Run
from smoothcluster.work.context import WorkContext
from smoothcluster.work.restarts import Commit
from smoothcluster.work.shard_work import ShardWork


@final
class Closer:
    """Closes jobs on all shards of a member. *works* is the workload's own mapping.

    Args:
        works: the owned shards, by number.
        context: has the jobs to close.
        pool: runs the tasks.
        take: takes a run back from the pool to its shard.
        commit: sends the next commit of a shard.
        wake: has the loop make another turn.
    """

    def __init__(  # parameters: what the workload shares with this part of it
        self, works: Mapping[int, ShardWork], context: WorkContext, pool: Pool,
        take: Callable[[Run, float], None], commit: Commit, wake: Callable[[], None],
    ) -> None:  # fmt: skip
        self._works, self._context, self._pool = works, context, pool
        self._take, self._commit, self._wake = take, commit, wake
        self._seen: frozenset[str] = frozenset()
        """The jobs whose runs were taken back from the pool."""

    def step(self, now: float) -> None:
        """Go on closing. Called in each turn before anything starts."""
        jobs = self._context.closed.jobs
        if jobs != self._seen:
            self._take_back(jobs, now)
            self._seen = jobs
        for work in list(self._works.values()) if jobs else ():
            work.unmark(lambda place: job_of(place[0]) in jobs)
            if work.free() and self._has_more(work, jobs):
                self._commit(work, 0, now)
                if work.free() and self._has_more(work, jobs):
                    self._wake()

    def _take_back(self, jobs: Collection[str], now: float) -> None:
        """Take the runs of *jobs* that have not started back from the pool."""
        others: list[Run] = []
        for run in self._pool.take_back() if jobs else ():
            if run.context.job in jobs:
                self._take(run, now)
            else:
                others.append(run)
        if others:
            self._pool.put(others)

    @staticmethod
    def _has_more(work: ShardWork, jobs: Collection[str]) -> bool:
        """Whether tasks of *jobs* wait on the shard; the store may have to be asked."""
        if work.backlog.fill_of(jobs):
            return True
        chunks = (chunk for name, chunk in work.record.open.items() if job_of(name) in jobs)
        return any((chunk.closed | chunk.run).bit_count() < chunk.size for chunk in chunks)
