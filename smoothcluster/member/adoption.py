"""How one incarnation adopts what others have left: with care.

It does so in small doses, within its capacity, and not while members die in series.
Nothing here is needed for safety: the fence sees to that. It is what keeps load that was handed
over from killing one survivor after another, and what lets a group whose members have no room for
all shards still come to all tasks: who has a shard without tasks gives it up for one that has some.
"""

import logging
from collections.abc import Iterable, Sequence

from smoothcluster.backend import Committed, CoordinationBackend, Refused, Update
from smoothcluster.group.assignment import Plan, orphaned, workers
from smoothcluster.group.breaker import DeathWindow, Pacing, exempt
from smoothcluster.group.events import EventLog
from smoothcluster.group.handover import put
from smoothcluster.group.view import View
from smoothcluster.records.breaker import Breaker
from smoothcluster.records.keys import Keys
from smoothcluster.work import ShardWork

log = logging.getLogger("smoothcluster")

EXCHANGE = 0.5
"""Seconds between two attempts to exchange a drained shard for one that nobody has room for."""


class Adoption:
    """What one incarnation may adopt, and when."""

    def __init__(self, backend: CoordinationBackend, keys: Keys, pacing: Pacing, events: EventLog, me: str) -> None:
        self._backend, self._keys, self._pacing, self._events, self._me = backend, keys, pacing, events, me
        self._death_window = DeathWindow(pacing)
        self._next_round = self._next_exchange = 0.0
        self._unassigned: tuple[int, ...] = ()

    def look(self, view: View, now: float) -> None:
        """Take note of who has died. To be called with every look, before anything else is asked."""
        self._death_window.look(view, now)

    def most(self, view: View, now: float) -> int | None:
        """How many of the dead's shards may be claimed now; None for any number."""
        if exempt(view, self._me):
            return None
        stopped = view.breaker.record.open or self._death_window.series(now) or now < self._next_round
        return 0 if stopped else self._pacing.shards

    def adopted(self, now: float) -> None:
        """A round of adoption is done: the next one is due after a pause."""
        self._next_round = now + self._pacing.pause

    def next_time(self, todo: Plan) -> float | None:
        """When to look again, if nothing else happens, for what was put off."""
        times = [self._next_round] if todo.later else []
        times += [self._next_exchange] if todo.unplaced else []
        closes = self._death_window.closes_at()
        return min(times + ([closes] if closes is not None else []), default=None)

    # The breaker

    def told(self, view: View, now: float, commit_id: str) -> Breaker | None:
        """The breaker's record, once it is told of what *view* shows; None if that is no news."""
        return self._death_window.told(view, now, commit_id)

    def record(self, view: View, now: float, commit_id: str, *, removed: bool) -> bool:
        """Tell the breaker, of *removed* members, or if it must open; False if too late."""
        told = self.told(view, now, commit_id)
        if told is None or not (removed or told.open != view.breaker.record.open):
            return True
        change = put(self._keys.breaker, told.to_json(), view.breaker.version)
        if isinstance(self._backend.commit([], [change]), Refused):
            return False
        self.note(view, told)
        return True

    def note(self, view: View, breaker: Breaker | None) -> None:
        """It was made so: tell people, if it opens."""
        if breaker is not None and breaker.open and not view.breaker.record.open:
            dead = [death.name for death in breaker.dead.values()]
            # A store that went back may have forgotten those whose deaths we saw: their loss is a series all the same.
            last = dead[-1] if dead else "one that the store has forgotten"
            log.warning("the breaker opens: members died in series, the last was %s", last)
            self._events.add("breaker", state="open", dead=dead)

    def close(self, view: View, now: float, commit_id: str) -> bool:
        """Close the breaker, if it is open and nobody has died for long enough; whether that was tried."""
        at = self._death_window.closes_at()
        if at is None or now < at or view.breaker.version is None:
            return False
        closed = Breaker(open=False, dead=view.breaker.record.dead, id=commit_id)
        change = Update(self._keys.breaker, closed.to_json(), view.breaker.version)
        if isinstance(self._backend.commit([], [change]), Committed):
            self._events.add("breaker", state="closed", dead=[])
        return True

    # What nobody has room for

    def tell(self, view: View, todo: Plan) -> None:
        """Tell of shards that stay unassigned, and why, when that changes. One member does it, so that not all do."""
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
        """A shard with tasks that nobody has room for, and one of ours without any to be given up for it."""
        if not unplaced or now < self._next_exchange:
            return None
        self._next_exchange = now + EXCHANGE
        drained = next((work for work in works if work.drained()), None)
        if drained is None:
            return None
        able = workers(view)
        start = able.index(self._me) * len(unplaced) // len(able)  # Not all at the same one.
        for number in (*unplaced[start:], *unplaced[:start]):
            if self._waits(view, number) and not (self.most(view, now) == 0 and orphaned(view, number)):
                self._next_exchange = now  # There may be more.
                return number, drained
        return None

    def _waits(self, view: View, number: int) -> bool:
        """Whether a shard has tasks."""
        read = view.shards[number]
        return read is not None and bool(read.record.open or self._backend.keys(self._keys.tasks(number)))


def _advice(why: str) -> str:
    if why == "capacity":
        return "no member has room for them; start another, or raise capacity"
    return "members died in series, and the others have shards already; start another, or wait"
