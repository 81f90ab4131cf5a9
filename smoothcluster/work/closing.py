"""Closing: a job that is being cancelled or deleted runs no more tasks, and its waiting tasks count as cancelled.

A mark of the job under ``control`` tells the members. The owner of each shard then takes back the runs that have not
started, closes the waiting tasks of open chunks, and deletes the chunks that are not open. Repeats are recognized as
ever, and each task counts once: as skipped, as cancelled, or by its outcome. Running tasks finish, and their outcomes
are recorded; the tasks that they add are dropped.

All this is part of the shard's fenced commits, as many as the limits of the store take. A member that has not seen the
mark yet goes on running and adding tasks of the job: the owners of these tasks close them when they have seen the mark.
The job has ended once all counts add up, as any other job.
"""

from collections.abc import Collection

from smoothcluster.jobs.chunks import job_of
from smoothcluster.work.backlog import Backlog
from smoothcluster.work.commit import CommitBuilder
from smoothcluster.work.pauses import Place


def close_waiting(draft: CommitBuilder, backlog: Backlog, jobs: Collection[str]) -> bool:
    """Close the waiting tasks of *jobs*, while the commit *draft* has room. Return whether any task was closed."""
    if not jobs:
        return False
    places = _take_waiting(backlog, jobs)
    closed = [draft.close(place) for place in places]
    for place, done in zip(places, closed, strict=True):
        if not done:
            backlog.put_back(place)
    return draft.admission.close() or any(closed)


def _take_waiting(backlog: Backlog, jobs: Collection[str]) -> list[Place]:
    """Take out every admitted task of *jobs* that waits, whatever for."""

    def wanted(place: Place) -> bool:
        return job_of(place[0]) in jobs

    taken = backlog.pauses.take(wanted)
    for queue in (
        backlog.restarts, backlog.queue, backlog.suspects, backlog.to_quarantine, backlog.unreadable,
    ):  # fmt: skip
        mine = [*filter(wanted, queue)]
        if mine:
            taken += mine
            others = [place for place in queue if not wanted(place)]
            queue.clear()
            queue.extend(others)
    return taken
