"""One incarnation of a member: from the moment it has joined until its lease, or its record, is gone.

It looks at the group, makes the moves that are its to make, and works on what is its own. What
it holds is what the store says it holds: each look adopts the shards that are ours by the store
and drops those that are not, so a move whose outcome is unknown needs no care of its own.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from smoothcluster.assignment import Plan, plan
from smoothcluster.backend import Committed, CoordinationBackend, Delete, Guarantees, Refused, Update
from smoothcluster.clock import Signal
from smoothcluster.deaths import Deaths
from smoothcluster.election import SeatClaim, candidates, first_in_line, role_of, seat_to_claim
from smoothcluster.errors import LeaseLostError, MisplacedKeyError
from smoothcluster.events import EventLog
from smoothcluster.handover import claim, give, leave
from smoothcluster.housekeeping import finished_jobs, tidy
from smoothcluster.model import Role
from smoothcluster.outlook import Outlook
from smoothcluster.pool import Pool
from smoothcluster.progress import Sent, Terms
from smoothcluster.records import Keys, Member, Shard
from smoothcluster.session import Session
from smoothcluster.stopping import Stopping
from smoothcluster.surroundings import Settings, Surroundings
from smoothcluster.view import Read, View, glance, read_view
from smoothcluster.workload import Workload

SOON = 0.2
"""Seconds until the next look when something is amiss that others ought to mend."""

SETTLE = 0.03
"""Seconds that those who have nothing to take leave to those who have, before they look."""

HEIR = 0.5
"""Seconds that a dead member's heir gets before another one who knows ends the dead one's incarnation."""


class Incarnation:
    """A member as long as one lease lasts."""

    def __init__(
        self, backend: CoordinationBackend, keys: Keys, settings: Settings, around: Surroundings,
        session: Session, me: Read[Member], shards: int, pool: Pool, wake: Signal, report: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        self.me = me
        self.name, self.id = me.record.name, me.record.incarnation
        self.session = session
        self.stopping = Stopping(session, around.clock)
        self.events = EventLog(backend, keys, self.name, around.clock)
        self.view: View | None = None
        self.released = False
        self._backend, self._keys, self._settings, self._around = backend, keys, settings, around
        self._clock, self._wake, self._report = around.clock, wake, report
        terms = Terms(
            keys, shards, self.name, self.id, backend.guarantees, settings.max_attempts, settings.retry_delay,
            self.stopping, around.new_id, report, Sent(), around.apart, self.events.add, around.clock.wall,
        )  # fmt: skip
        self.workload = Workload(backend, pool, around.clock, terms, settings.concurrency, session.held)
        self.workload.wake = wake.set
        self._deaths = Deaths(around.clock, self.events, self.name)
        self._outlook = Outlook(backend, keys, settings, around, self.id, self._look_again, self._look_soon)
        self.workload.on_start = lambda shard, tasks: self._deaths.resumed(shard)
        self.workload.on_lost = self._fenced
        self._first = False
        self._claimed = False
        """Whether a claim was tried since the last look, which so does not show what is ours."""
        self._dirty, self._stirred, self._hurried, self._unsure = True, False, False, False
        self._next_look = self._next_tidying = 0.0
        self._idle: dict[str, tuple[str | None, float]] = {}
        self._moving: dict[int, str] = {}

    def _look_again(self) -> None:
        self._dirty = True
        self._wake.set()

    def _look_soon(self) -> None:
        """Something has changed that concerns whoever is first in line, and can wait a little for all others."""
        if self._first:
            self._dirty = True
        else:
            self._stirred = True
        self._wake.set()

    # What others tell it

    def proved_gone(self, incarnation: str, after: float) -> None:
        """A member's process is dead, as was known *after* seconds of looking into it."""
        self._deaths.proved(incarnation, after)
        self._outlook.forget(incarnation)
        self._hurried = True

    def unsure(self) -> None:
        """The outcome of something is not known: read what everybody sees before the next decision."""
        self._unsure = self._dirty = True

    @property
    def settled(self) -> bool:
        """Whether the last look found nothing to do."""
        return not self._dirty

    # One turn of the loop

    def turn(self, *, leaving: bool = False) -> None:
        """Look if there is reason to, move, and work."""
        if self._stirred:
            self._stirred = False
            self._next_look = min(self._next_look, self._clock.monotonic() + SETTLE)
        moved = self._hurried and not leaving and self._hurry()
        if not moved and (self._dirty or self._clock.monotonic() >= self._next_look):
            self.look(leaving=leaving)
        self.workload.turn()
        self._give()
        if not leaving:
            self._outlook.follow(self.view)
            self._keep_house()
        self.events.flush()

    def next_time(self) -> float:
        """When the next turn is due at the latest."""
        work = self.workload.next_time()
        return self._next_look if work is None else min(work, self._next_look)

    def look(self, *, leaving: bool = False) -> View:
        """Read the group, adopt and drop shards, and try the moves that are ours to make."""
        view = self._read()
        now = self._clock.monotonic()
        self._next_look = now + self.session.ttl / 3
        self._note_idle(view, now)
        self._match(view)
        if not leaving:
            self._act(view, now)
        return view

    def _read(self) -> View:
        self._dirty = False
        try:
            if self._unsure:
                self._backend.sync()
            view = read_view(self._backend, self._keys, dict(self._deaths.known), self._report, self.view)
        except BaseException:
            self._dirty = True
            raise
        self._unsure = False
        if view is None or self.id not in view.members:
            raise LeaseLostError("the member's record is gone: somebody has taken this process for dead")
        self.view, self.me, self._claimed = view, view.members[self.id], False
        self._first = first_in_line(view, self.id, self._settings.order)
        return view

    def _hurry(self) -> bool:
        """Somebody has died: take over at once a seat that is ours to take; whether a claim was tried.

        Whoever has nothing to take looks a little later, so as not to take processor and store
        from the one who has.
        """
        self._hurried = False
        if self.view is None or self._unsure or self._claimed:
            self._dirty = True
            return False
        now, gone = self._clock.monotonic(), dict(self._deaths.known)
        known = replace(self.view, gone=gone)
        seat = self._seat(known, now)
        if seat is not None and seat.holder in known.members:  # If not, it could not be buried with this claim.
            self._dirty = True
            self._act(glance(self._backend, self._keys, gone, self._report, self.view, seat.number), now)
            return True
        if seat is not None or self._plan(known).claim:
            self._dirty = True  # Who takes shards without a seat must see all members, lest one stands by for it.
        else:
            self._next_look = min(self._next_look, now + SETTLE)
        return False

    def _match(self, view: View) -> None:
        """Hold what the store says we hold."""
        mine = {n: read for n in view.owned(self.id) if (read := view.shards[n]) is not None}
        for number, work in list(self.workload.works.items()):
            if number not in mine or mine[number].record.epoch != work.record.epoch:
                self._fenced(number)
                self.workload.drop(number)
        for number in sorted(mine.keys() - self.workload.works.keys()):
            self.workload.adopt(number, mine[number])

    def _note_idle(self, view: View, now: float) -> None:
        """Since when, by our clock, each member that does not run has stood unchanged."""
        idle = {name: read.version for name, read in view.members.items() if not read.record.running}
        since = {name: seen for name, (version, seen) in self._idle.items() if idle.get(name) == version}
        self._idle = {name: (version, since.get(name, now)) for name, version in idle.items()}

    # Moves

    def _seat(self, view: View, now: float) -> SeatClaim | None:
        """The seat to claim now, if any."""
        idle = {name: since for name, (_, since) in self._idle.items()}
        return seat_to_claim(view, self.id, idle, now, self.session.ttl, self._settings.order)

    def _plan(self, view: View) -> Plan:
        """The shards to claim or give away."""
        heir = any(member.running for member in candidates(view, self.id, self._settings.order))
        busy = [work.number for work in self.workload.works.values() if work.outstanding]
        return plan(view, self.id, busy=busy, heir=heir)

    def _act(self, view: View, now: float) -> None:
        """Take a seat, or shards, or bury the dead: at most one commit, then look again if it was late."""
        seat = self._seat(view, now)
        if seat is not None:
            shards = view.owned(seat.holder) if self.me.record.running else []
            self._claim(view, seat, shards)
            return
        todo = self._plan(view)
        if todo.claim:
            self._claim(view, None, todo.claim)
            return
        self._plan_gifts(todo)
        if not todo.patient:
            self._next_look = min(self._next_look, now + SOON)
        self._bury(view, now)

    def _new_id(self) -> str:
        return self._around.new_id()

    @property
    def _limits(self) -> Guarantees:
        return self._backend.guarantees

    def _claim(self, view: View, seat: SeatClaim | None, shards: Iterable[int]) -> None:
        """Send a claim. Late: look again. Done: work on what it brought, and look for the rest."""
        self._claimed = True
        starts = self.workload.room()
        now = self._clock.wall()
        move = claim(self._keys, view, self.me, seat, shards, self._new_id(), self._limits, starts, now)
        try:
            result = self._backend.commit([], move.changes)
        except MisplacedKeyError as error:
            self._report(error.key, error.what)
            self._next_look = min(self._next_look, self._clock.monotonic() + SOON)
            return
        self._look_again()
        if isinstance(result, Refused):
            return
        self.me = Read(move.me, result.versions[self._keys.member(self.id)])
        for number, shard in move.shards.items():
            self.workload.adopt(number, Read(shard, result.versions[self._keys.shard(number)]))
        if move.shards or move.former:
            self._deaths.tell(move, view)

    def _bury(self, view: View, now: float) -> None:
        """End the incarnations of the dead that nobody claims from: because they own nothing, or nobody else knows."""
        seated = {read.record.holder for read in view.seats}
        for name in self._deaths.known.keys() & view.members.keys():
            if (name not in seated and not view.owned(name)) or now >= self._deaths.since(name) + HEIR:
                self._backend.commit([], [Delete(self._keys.member(name))])
            self._next_look = min(self._next_look, now + SOON)

    def _plan_gifts(self, todo: Plan) -> None:
        gifts = dict(todo.give)
        for number, work in self.workload.works.items():
            work.moving = number in gifts
        self._moving = {number: target for number, target in gifts.items() if number in self.workload.works}
        if self._moving:
            self.workload.hand_back(lambda work: work.moving)

    def _give(self) -> None:
        """Hand over the shards that are to move and on which nothing runs any more."""
        gifts: dict[str, dict[int, Read[Shard]]] = {}
        for number, target in self._moving.items():
            work = self.workload.works.get(number)
            if work is not None and work.quiet():
                gifts.setdefault(target, {})[number] = Read(work.record, work.version)
        for target, gift in gifts.items():
            self._give_to(target, gift)

    def _give_to(self, target: str, gift: Mapping[int, Read[Shard]]) -> None:
        assert self.view is not None
        for number in gift:
            del self._moving[number]
        self._look_again()
        if target not in self.view.members:
            return
        move = give(self._keys, self.me.record, self.view.members[target], gift, self._new_id())
        if isinstance(self._backend.commit([], move.changes), Committed):
            self._deaths.tell_gift(move)
            for number in gift:
                self.workload.drop(number)

    def _keep_house(self) -> None:
        """Now and then, and only if there is anything to be tidied up."""
        now, works = self._clock.monotonic(), self.workload.works
        if self.view is None or now < self._next_tidying or not any(work.record.counts for work in works.values()):
            return
        self._next_tidying = now + self.session.ttl / 3
        judge = self.view.spec.record if 0 in works else None  # One member decides, so that not all do.
        finished = finished_jobs(self._backend, self._keys, judge, self._new_id, self._report)
        for work in works.values():
            tidy(self._backend, self._keys, work, finished)

    def set_running(self) -> None:
        """Tell the group that this member works from now on."""
        after = replace(self.me.record, running=True, id=self._new_id())
        result = self._backend.commit([], [Update(self._keys.member(self.id), after.to_json(), self.me.version)])
        if isinstance(result, Committed):
            self.me = Read(after, result.versions[self._keys.member(self.id)])
        self._dirty = True

    def stop_starting(self) -> None:
        """Leaving begins: handlers are told, and what has not started is taken back."""
        self.stopping.set()
        self.workload.stopping = True
        self.workload.hand_back()

    def release(self) -> bool:
        """Let go of everything that is settled; whether nothing is left."""
        view = self._read()
        self._match(view)
        works = self.workload.works
        held = {n: Read(work.record, work.version) for n, work in works.items() if work.pending is None}
        move = leave(self._keys, view, self.me, held, self._new_id(), self._limits)
        if isinstance(self._backend.commit([], move.changes), Refused):
            return False
        for number in move.shards:
            self.workload.drop(number)
        self.released = not move.rest
        return self.released

    # What it tells

    def close(self) -> None:
        """The incarnation is over: nothing of it may go on."""
        self.stopping.set()
        self.workload.drop_all()
        self._outlook.close()

    def role(self) -> Role:
        """By the last look."""
        return role_of(self.view, self.id) if self.view is not None else Role.BACKUP_RUNNER

    def _fenced(self, shard: int) -> None:
        """The shard has another owner: what we still had to say about it was, or would be, refused."""
        self.events.add("fenced", shard=shard, incarnation=self.id)
        self._look_again()
