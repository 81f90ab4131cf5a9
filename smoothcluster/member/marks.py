"""Marks of jobs under ``control``: a member runs and adds nothing more of a job that is cancelled or deleted.

A client creates the mark in the commit that changes the state of the job. The mark goes when the job has ended and
nothing is left to do.
"""

from typing import final

from smoothcluster.backend import Watch
from smoothcluster.clock import Signal
from smoothcluster.group.store import GroupStore
from smoothcluster.records.keys import last_part
from smoothcluster.work.closed_jobs import ClosedJobs


@final
class Marks:
    """Reads the marks into *closed*: after each change, and after each claim of a shard."""

    def __init__(self, store: GroupStore, closed: ClosedJobs, wake: Signal) -> None:
        self._store, self._closed, self._wake = store, closed, wake
        self._watch: Watch | None = None

    def read(self) -> bool:
        """Read the marks again if there may be others. Return whether there are any. Raise any BackendError.

        Called before the workload starts tasks, in each turn without an urgent claim.
        """
        if not self._closed.stale:
            return False
        if self._watch is None:
            self._watch = self._store.backend.watch(self._store.keys.control, self._notify, values=False)
        self._closed.stale = False  # Before the read: a mark that comes meanwhile must not be forgotten.
        try:
            jobs = frozenset(map(last_part, self._store.backend.keys(self._store.keys.control)))
        except BaseException:
            self._closed.stale = True
            raise
        self._closed.jobs = jobs
        return bool(jobs)

    def close(self) -> None:
        """End the watch."""
        if self._watch is not None:
            self._watch.close()

    def _notify(self) -> None:
        self._closed.stale = True  # The flag first: the woken loop must find it.
        self._wake.set()
