"""Restarts: tasks that ran in a dead member start again before all fresh tasks, whatever shard they lie in.

Such tasks are suspects, because any of them may have killed the member. They run in children, several at once, while
fresh tasks get only the workers that no suspect waits for. Where no child can run the handler, each suspect runs alone
in this process, once everything else has ended and is recorded: a death then is clear evidence.
"""

from collections.abc import Mapping
from typing import Protocol

from smoothcluster.backend import Entry
from smoothcluster.work.context import WorkContext
from smoothcluster.work.shard_work import ShardWork

CHILD_CHECK_SECONDS = 0.05
"""Seconds between checks whether waiting suspects could use more children."""


class Commit(Protocol):
    """Send the shard's next commit with up to *want* tasks and *apart* suspects; return the number of started tasks."""

    def __call__(self, work: ShardWork, want: int, now: float, *, apart: int = 0, alone: bool = False) -> int: ...


class Restarts:
    """The suspects of all shards that a member owns. *works* is the workload's own mapping."""

    def __init__(self, works: Mapping[int, ShardWork], context: WorkContext, commit: Commit) -> None:
        self.alone = False
        """Whether a suspect runs alone in this process."""
        self.solitary = False
        """Whether a suspect runs alone in this process, or waits to: nothing else may start."""
        self.coming = 0
        """Number of tasks that ran in a dead member, in shards that the next claim takes."""
        self._works, self._apart, self._commit = works, context.apart, commit
        self._backend = context.store.backend
        self._waiting = 0
        self._preloaded: Mapping[str, Entry] = {}

    @property
    def reserved(self) -> int:
        """Number of workers to keep free for suspects that wait for a child, or come with the next claim."""
        return self._waiting + self.coming

    def claimable(self, in_flight: int, room: int) -> tuple[int, int]:
        """How many tasks a claim may mark, of *in_flight* tasks that ran in the former owners, and of fresh tasks.

        The former come first: fresh tasks get only those of *room* workers that the former leave free.
        """
        if not (in_flight and room):
            return 0, room
        if self._apart.able is False:
            return 0, 0  # Each of them must run alone in this process.
        ready = room if self._apart.every else self._apart.ready(in_flight)
        return min(room, ready, in_flight), max(0, room - in_flight)

    def preload(self, chunks: Mapping[str, Entry]) -> None:
        """Keep *chunks*, by key, which were read before the claim that marks their tasks, until these tasks start."""
        self._preloaded = chunks

    def step(self, now: float) -> None:
        """Start suspects in available children; or one suspect alone here, if no child can run the handler."""
        self._reopen()
        works = [work for work in self._works.values() if work.backlog.suspects and work.free()]
        for work in works:
            work.suspects.report()
        if self.alone and not self._running():
            # The lone suspect finished. Until this is recorded, the task would share the blame for the next suspect.
            self.alone = not self._record(now)
        self._waiting = 0
        self.solitary = self.alone or (bool(works) and self._apart.able is False)
        if self.solitary:
            self._start_alone(now)
        elif works:
            self._start_apart(works, now)

    def _reopen(self) -> None:
        """Read, with one request, the open chunks of all shards with tasks that must start before fresh tasks."""
        works = [work for work in self._works.values() if work.marked or work.backlog.unread_restarts()]
        keys = [key for work in works for key in work.backlog.unread() if key not in self._preloaded]
        if keys:
            found = self._backend.get_many(keys)
            self._preloaded = {**self._preloaded, **{entry.key: entry for entry in found if entry is not None}}
        for work in works:
            work.backlog.reopen(self._preloaded)
        self._preloaded = {}

    def _start_apart(self, works: list[ShardWork], now: float) -> None:
        waiting = sum(len(work.backlog.suspects) for work in works)
        room = self._apart.ready(waiting) - sum(work.suspects.in_children for work in self._works.values())
        for work in works:
            if room > 0:
                room -= self._commit(work, 0, now, apart=room)
        if not self._apart.every:
            self._waiting = sum(len(work.backlog.suspects) for work in works)

    def _start_alone(self, now: float) -> None:
        if self._running() or any(work.marked for work in self._works.values()):
            return
        recorded = self._record(now)
        able = [work for work in self._works.values() if work.backlog.suspects and work.free()]
        if able and recorded:
            self.alone = self._commit(able[0], 0, now, alone=True) > 0

    def _running(self) -> bool:
        return any(work.outstanding for work in self._works.values())

    def _record(self, now: float) -> bool:
        """Commit all news at once; return whether the store has everything."""
        for work in list(self._works.values()):
            if work.unsaid():
                self._commit(work, 0, now)
        return not any(work.unsaid() for work in self._works.values())
