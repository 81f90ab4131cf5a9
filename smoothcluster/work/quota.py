"""Bound on the tasks of a job: tasks that handlers add beyond the job's ``max_tasks`` are refused.

The shards count the tasks of a job, so only a reading of all shards gives the number. A member reads before a commit
that may add more than the member's allowance, or if the last reading is too old. The allowance is the share of a single
shard in the tasks that were left at the reading. Near the bound each commit reads. So members add a commit for each
shard beyond the bound at most, and no task is refused below the bound.

The number includes repeats that no owner has recognized yet.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf

from smoothcluster.group.store import GroupStore
from smoothcluster.group.view import Versioned
from smoothcluster.jobs.access import read_job
from smoothcluster.jobs.progress import sum_counts
from smoothcluster.pool import Run
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.shard import Shard

log = logging.getLogger("smoothcluster")

READING_SECONDS = 1.0
"""Seconds for which a reading is good. A full job has room again after owners have skipped repeats."""

MOST_TASKS_PER_SECOND = 200_000
"""More tasks than a whole group can add in a second: a reading with many tasks left is good for longer."""


@dataclass(slots=True)
class Allowance:
    """Tasks of a job that this member may add without another reading."""

    left: int = 0
    full: bool = False
    """Whether the job had its most tasks at the last reading."""
    until: float = -inf
    """Time until which the reading is good."""
    told: bool = False

    def is_unsure(self, count: int, now: float) -> bool:
        """Whether only another reading can tell if *count* tasks may be added."""
        return self.until <= now or (self.left < count and not self.full)


class Quota:
    """The allowances of a member, for all jobs.

    Args:
        store: the group's records.
        shards: number of shards of the group.
        max_tasks: most tasks of a job that was submitted without a bound.
        note: notes an event.
    """

    def __init__(self, store: GroupStore, shards: int, max_tasks: int, note: Callable[..., object]) -> None:
        self._store, self._shards, self._max_tasks, self._note = store, shards, max_tasks, note
        self._jobs: dict[str, Allowance] = {}

    def prepare(self, runs: Iterable[Run]) -> None:
        """Before a commit with the outcomes of *runs*: read the counts if necessary.

        Raise any BackendError.
        """
        wanted = Counter[str]()
        for run in runs:
            if run.added:
                wanted[run.context.job] += len(run.added)
        now = self._store.clock.monotonic()
        unsure = [job for job, count in wanted.items() if self._jobs.setdefault(job, Allowance()).is_unsure(count, now)]
        shards = self._store.read_shards(range(self._shards)) if unsure else []
        for job in unsure:
            left, allowance = self._read_left(job, shards), self._jobs[job]
            allowance.left, allowance.full = max(0, left // self._shards, min(left, wanted[job])), left <= 0
            allowance.until = now + max(READING_SECONDS, left / MOST_TASKS_PER_SECOND)

    def take(self, job: str, count: int) -> int:
        """Return how many of *count* tasks the member may add to the job now."""
        allowance = self._jobs[job]
        granted = min(count, allowance.left)
        allowance.left -= granted
        if granted < count and not allowance.told:
            allowance.told = True
            log.warning("job %s has reached its max_tasks: further tasks added by handlers are refused", job)
            self._note("tasks_refused", job=job)
        return granted

    def forget_job(self, job: str) -> None:
        """Drop the allowance of a finished job."""
        self._jobs.pop(job, None)

    def _read_left(self, job: str, shards: Sequence[Versioned[Shard] | None]) -> int:
        """Return how many tasks are left until the bound of the job, by a reading of all *shards*."""
        try:
            read = read_job(self._store, job)
        except GarbageError as error:
            self._store.report(self._store.keys.job(job), str(error))
            read = None
        if read is None:  # The store has lost the record of the job, and so the bound.
            return self._max_tasks
        counted = sum_counts(job, read, shards)
        most = read.record.max_tasks
        return (self._max_tasks if most is None else most) - (counted.written - counted.counts["skipped"])
