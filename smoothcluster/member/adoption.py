"""Adoption: take the shards of dead members in rounds, within the capacity, and not while the circuit breaker is open.

Safety does not depend on this module, because the fence protects every shard. The limits keep handed-over load from
killing one survivor after another. In a group without capacity for all shards, exchanges still bring every task to a
member: a member that owns a shard without tasks swaps the shard for an unassigned shard that has tasks.
"""

import logging
from collections.abc import Iterable, Sequence

from smoothcluster.backend import Committed, Refused, Update
from smoothcluster.group.assignment import Plan, orphaned, workers
from smoothcluster.group.breaker import DeathWindow, Pacing, exempt
from smoothcluster.group.events import EventLog
from smoothcluster.group.store import GroupStore, put
from smoothcluster.group.view import View
from smoothcluster.records.breaker import Breaker
from smoothcluster.work import ShardWork

log = logging.getLogger("smoothcluster")

EXCHANGE_INTERVAL_SECONDS = 0.5
"""Seconds between two attempts to exchange a drained shard for an unassigned shard."""


class Adoption:
    """Limits on the adoptions of one incarnation, and reports on unassigned shards."""

    def __init__(self, store: GroupStore, pacing: Pacing, events: EventLog, me: str) -> None:
        self._store, self._pacing, self._events, self._me = store, pacing, events, me
        self._death_window = DeathWindow(pacing)
        self._next_round = self._next_exchange = 0.0
        self._unassigned: tuple[int, ...] = ()

    def observe(self, view: View, now: float) -> None:
        """Record the deaths that *view* shows. Call this with every new view, before any other method."""
        self._death_window.observe(view, now)

    def most(self, view: View, now: float) -> int | None:
        """Return how many shards of dead members may be claimed now; None for any number."""
        if exempt(view, self._me):
            return None
        stopped = view.breaker.record.open or self._death_window.series(now) or now < self._next_round
        return 0 if stopped else self._pacing.shards

    def adopted(self, now: float) -> None:
        """Begin the pause before the next round of adoption. Called after each claim on shards of dead members."""
        self._next_round = now + self._pacing.pause

    def next_time(self, todo: Plan) -> float | None:
        """Return when to read the group again, for moves put off in *todo* or to close the breaker; None if never."""
        times = [self._next_round] if todo.later else []
        times += [self._next_exchange] if todo.unplaced else []
        closes = self._death_window.closes_at()
        return min(times + ([closes] if closes is not None else []), default=None)

    # The breaker

    def breaker_after(self, view: View, now: float, commit_id: str) -> Breaker | None:
        """Return the breaker's record with the deaths in *view* added; None if there is no change.

        Each claim writes this record in the same commit, so no shard is adopted before the death is recorded.
        """
        return self._death_window.breaker_after(view, now, commit_id)

    def record_deaths(self, view: View, now: float, *, removed: bool) -> bool:
        """Write the breaker's record, if members are about to be *removed* or if the breaker must open.

        Return False if the store refused, because another member wrote the record since *view* was read. The caller
        then reads the group again. Raise any BackendError.
        """
        told = self.breaker_after(view, now, self._store.new_id())
        if told is None or not (removed or told.open != view.breaker.record.open):
            return True
        change = put(self._store.keys.breaker, told.to_json(), view.breaker.version)
        if isinstance(self._store.backend.commit([], [change]), Refused):
            return False
        self.report_opening(view, told)
        return True

    def report_opening(self, view: View, breaker: Breaker | None) -> None:
        """Report an opening of the breaker by the record *breaker*. Called after the commit of this record."""
        if breaker is not None and breaker.open and not view.breaker.record.open:
            dead = [death.name for death in breaker.dead.values()]
            # After a rollback, the store may have no trace of the deaths that we saw. They still count as a series, so
            # the breaker may open without a recorded death.
            last = dead[-1] if dead else "a member unknown to the store"
            log.warning(
                "the circuit breaker opens, because too many members died within a short time; the last was %s", last
            )
            self._events.add("breaker", state="open", dead=dead)

    def close_breaker(self, view: View, now: float) -> bool:
        """Close the breaker, if it is open and no member has died for long enough. Return whether a commit was tried.

        Raise any BackendError.
        """
        at = self._death_window.closes_at()
        if at is None or now < at or view.breaker.version is None:
            return False
        closed = Breaker(open=False, dead=view.breaker.record.dead, id=self._store.new_id())
        # Another member may record a new death between the read of *view* and this commit. The commit compares the
        # version, so the breaker does not close over this death.
        change = Update(self._store.keys.breaker, closed.to_json(), view.breaker.version)
        if isinstance(self._store.backend.commit([], [change]), Committed):
            self._events.add("breaker", state="closed", dead=[])
        return True

    # Unassigned shards

    def report_unassigned(self, view: View, todo: Plan) -> None:
        """Report the unassigned shards and the reason, when the list changes. Only the first working member reports.

        Called with each plan that claims nothing.
        """
        if workers(view)[:1] != [self._me]:
            return
        stopped = view.breaker.record.open
        waiting = [n for n, read in enumerate(view.shards) if read is not None and orphaned(view, n)] if stopped else ()
        unassigned = tuple(todo.unplaced or waiting)
        if unassigned != self._unassigned:
            self._unassigned = unassigned
            why = "capacity" if todo.unplaced else "breaker"
            self._events.add("unassigned", shards=list(unassigned), why=why if unassigned else None)
            if unassigned:
                log.warning("%d shards are unassigned: %s", len(unassigned), _advice(why))

    def exchange(
        self, view: View, unplaced: Sequence[int], works: Iterable[ShardWork], now: float
    ) -> tuple[int, ShardWork] | None:
        """Choose an unassigned shard with tasks, and an own shard without tasks to release in exchange.

        Return None if there is no such pair, or if the last attempt was too recent. Shards of dead members are left
        out while none of them may be adopted. Raise any BackendError.
        """
        if not unplaced or now < self._next_exchange:
            return None
        self._next_exchange = now + EXCHANGE_INTERVAL_SECONDS
        drained = next((work for work in works if work.drained()), None)
        if drained is None:
            return None
        able = workers(view)
        start = able.index(self._me) * len(unplaced) // len(able)  # So the members begin at different shards.
        for number in (*unplaced[start:], *unplaced[:start]):
            if self._waits(view, number) and not (self.most(view, now) == 0 and orphaned(view, number)):
                self._next_exchange = now  # There may be more such shards: no pause.
                return number, drained
        return None

    def _waits(self, view: View, number: int) -> bool:
        """Whether a shard has tasks, open or waiting."""
        read = view.shards[number]
        if read is None:
            return False
        return read.record.has_tasks() or bool(self._store.backend.keys(self._store.keys.tasks(number)))


def _advice(why: str) -> str:
    if why == "capacity":
        return "no member has room for them; start another member, or raise capacity"
    return "too many members died, and the others have shards already; start another member, or wait"
