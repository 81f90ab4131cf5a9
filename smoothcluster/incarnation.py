"""One incarnation of a member: from the moment it has joined until its lease, or its record, is gone.

It looks at the group, makes the moves that are its to make, and works on what is its own. What
it holds is what the store says it holds: each look adopts the shards that are ours by the store
and drops those that are not, so a move whose outcome is unknown needs no care of its own.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from smoothcluster.adoption import Adoption
from smoothcluster.assignment import Plan, orphaned, plan, room
from smoothcluster.backend import Change, Committed, CoordinationBackend, Delete, Guarantees, Refused, Update
from smoothcluster.clock import Signal
from smoothcluster.deaths import Deaths
from smoothcluster.doubts import Doubts
from smoothcluster.election import PATIENCE, SeatClaim, first_in_line, role_of
from smoothcluster.errors import LeaseLostError, MisplacedKeyError
from smoothcluster.events import EventLog
from smoothcluster.gifts import Gifts
from smoothcluster.handover import claim, leave
from smoothcluster.housekeeping import finished_jobs, tidy
from smoothcluster.model import Role
from smoothcluster.outlook import Outlook
from smoothcluster.patience import Patience
from smoothcluster.pool import Pool
from smoothcluster.progress import Sent, Terms
from smoothcluster.readiness import Fitness
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
        self._backend, self._keys, self._settings, self._around = backend, keys, settings, around
        self._clock, self._wake, self._report = around.clock, wake, report
        terms = Terms(
            keys, shards, self.name, self.id, backend.guarantees, settings.max_attempts, settings.retry_delay,
            self.stopping, around.new_id, report, Sent(), around.apart, self.events.add, around.clock.wall,
        )  # fmt: skip
        self.workload = Workload(backend, pool, around.clock, terms, settings.concurrency, session.held)
        self.workload.wake = wake.set
        self._deaths = Deaths(around.clock, self.events, self.name)
        self._adoption = Adoption(backend, keys, settings.pacing, self.events, self.id)
        self._doubts = Doubts(backend, self.workload, self.events, self.id, self._look_again)
        self._outlook = Outlook(backend, keys, settings, around, self.id, self._look_again, self._look_soon)
        self.workload.on_start = lambda shard, tasks: self._deaths.resumed(shard)
        self.workload.on_lost = self._fenced
        self.released = self._first = False
        self._claimed = False
        """Whether a claim was tried since the last look, which so does not show what is ours."""
        self._gifted = False
        """Whether our record was changed by others before the last look, which so may not show all that is ours."""
        self._dirty, self._stirred, self._hurried, self._unsure = True, False, False, False
        self._next_look = self._next_tidying = 0.0
        self._patience = Patience(self.id, settings.order, session.ttl)
        self._gifts = Gifts(backend, keys, settings, around, self.workload, self.stopping, self._deaths, report)

    def _look_again(self) -> None:
        self._dirty = True
        self._wake.set()

    def _look_by(self, time: float | None, earliest: float = 0.0) -> None:
        """Look at *time* at the latest, if there is one, or at *earliest* if that is later."""
        if time is not None:
            self._next_look = min(self._next_look, max(time, earliest))

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
            self._look_by(self._clock.monotonic() + SETTLE)
        moved = self._hurried and not leaving and self._hurry()
        if not moved and (self._dirty or self._clock.monotonic() >= self._next_look):
            self.look(leaving=leaving)
        self.workload.turn()
        if self.view is not None and self._gifts.give(self.view, self.me.record):
            self._look_again()
        if not leaving:
            self._outlook.follow(self.view, first=self._first)
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
        mine = view.members[self.id]
        self._gifted = mine.version != self.me.version
        self.view, self.me, self._claimed = view, mine, False
        self._first = first_in_line(view, self.id, self._settings.order)
        return view

    def _hurry(self) -> bool:
        """Somebody has died: take over at once what is ours to take; whether a claim was tried.

        Whoever has nothing to take looks a little later, so as not to take processor and store
        from the one who has. Where there are no seats all have something to take, or to tell.
        """
        self._hurried = False
        if self.view is None or self._unsure or self._claimed or self._gifted:
            self._dirty = True
            return False
        now, gone = self._clock.monotonic(), dict(self._deaths.known)
        known = replace(self.view, gone=gone)
        seat = self._patience.seat(known, now)
        if seat is not None and seat.holder in known.members:  # If not, it could not be buried with this claim.
            self._glance(known, known.owned(seat.holder), now, seat.number)
            return True
        self._adoption.look(known, now)
        claims = self._plan(known, now).claim
        if known.all_run and claims:
            self._glance(known, claims, now)
            return True
        if seat is not None or claims or known.all_run:
            self._dirty = True  # Who takes shards without a seat must see all members, lest one stands by for it.
        else:
            self._look_by(now + SETTLE)
        return False

    def _glance(self, known: View, shards: Sequence[int], now: float, seat: int | None = None) -> None:
        """Decide on the last look, brought up to date only where it matters now."""
        self._dirty = True
        view, self.workload.ahead = glance(self._backend, self._keys, known.gone, self._report, known, shards, seat)
        self._act(view, now)

    def _match(self, view: View) -> None:
        """Hold what the store says we hold."""
        mine = {n: read for n in view.owned(self.id) if (read := view.shards[n]) is not None}
        for number, work in list(self.workload.works.items()):
            if number not in mine or mine[number].record.epoch != work.record.epoch:
                self._fenced(number)
                self.workload.drop(number)
        self._doubts.settle(view)
        for number in sorted(mine.keys() - self.workload.works.keys() - set(self._doubts.begun_before(view))):
            self.workload.adopt(number, mine[number])

    # Moves

    def _plan(self, view: View, now: float) -> Plan:
        """The shards to claim or give away."""
        heir = self._patience.heir(view, now)
        busy = [work.number for work in self.workload.works.values() if work.outstanding]
        return plan(view, self.id, busy=busy, heir=heir, adopt=self._adoption.most(view, now))

    def _act(self, view: View, now: float) -> None:
        """Take a seat, or shards, or bury the dead: at most one commit, then look again if it was late."""
        self._adoption.look(view, now)
        again = self._doubts.begun_before(view)
        if again:
            self._claim(view, None, again, now)
            return
        self._patience.look(view, now)
        if self._patience.waiting:
            self._look_by(now + PATIENCE / 2)
        if self._gifted:
            # Lest what was just given, and what we claim, be more than we have room for, or more than one dose.
            self._look_again()
            return
        seat = self._patience.seat(view, now)
        if seat is not None:
            shards = view.owned(seat.holder)[: room(view, self.id)] if self.me.record.running else []
            shards = shards[: self._adoption.most(view, now)]  # One that has just lost a seat has some already.
            self._claim(view, seat, shards, now)
            return
        todo = self._plan(view, now)
        if todo.claim:
            self._claim(view, None, todo.claim, now)
            return
        self._adoption.tell(view, todo)
        self._look_by(self._gifts.plan(todo), now + SOON)
        if not todo.patient or self._patience.starting(view, now):
            self._look_by(now + SOON)
        if self._adoption.close(view, now, self._new_id()) or self._exchange(view, todo, now):
            self._look_again()
            return
        self._look_by(self._adoption.next_time(todo), now + 0.001)
        self._bury(view, now)

    def _exchange(self, view: View, todo: Plan, now: float) -> bool:
        """Give up a shard without tasks for one with some that nobody has room for; whether that was tried."""
        pair = self._adoption.exchange(view, todo.unplaced, self.workload.works.values(), now)
        if pair is None:
            return False
        number, drained = pair
        self._claim(view, None, [number], now, spare=(drained.number, Read(drained.record, drained.version)))
        return True

    def _new_id(self) -> str:
        return self._around.new_id()

    @property
    def _limits(self) -> Guarantees:
        return self._backend.guarantees

    def _claim(
        self,
        view: View,
        seat: SeatClaim | None,
        shards: Iterable[int],
        now: float,
        spare: tuple[int, Read[Shard]] | None = None,
    ) -> None:
        """Send a claim. Late: look again. Done: work on what it brought, and look for the rest."""
        self._claimed = True
        starts, new_id, at = self.workload.room(), self._new_id(), self._clock.wall()
        told = self._adoption.told(view, now, new_id)
        move = claim(self._keys, view, self.me, seat, shards, new_id, self._limits, starts, told, spare, at)
        try:
            result = self._backend.commit(move.conditions, move.changes)
        except MisplacedKeyError as error:
            self._report(error.key, error.what)
            self._look_by(self._clock.monotonic() + SOON)
            return
        self._look_again()
        if isinstance(result, Refused):
            return
        self.me = Read(move.me, result.versions[self._keys.member(self.id)])
        if spare is not None:
            self.workload.drop(spare[0])
        for number, shard in move.shards.items():
            self.workload.adopt(number, Read(shard, result.versions[self._keys.shard(number)]))
        if any(orphaned(view, number) for number in move.shards):
            self._adoption.adopted(now)
        if self.id not in move.former.values():  # Nothing is handed over where one takes from oneself.
            self._deaths.tell(move, view)
        self._adoption.note(view, told)

    def _bury(self, view: View, now: float) -> None:
        """End the incarnations of the dead that nobody claims from: because they own nothing, or nobody else knows.

        Where there are no seats all others learn of a death from that, and take their shares.
        """
        seated = {read.record.holder for read in view.seats}
        known = sorted(self._deaths.known.keys() & view.members.keys())
        dead = [
            name
            for name in known
            if view.all_run or (name not in seated and not view.owned(name)) or now >= self._deaths.since(name) + HEIR
        ]
        if known:
            self._look_by(now + SOON)
        if not self._adoption.record(view, now, self._new_id(), buried=bool(dead)):
            self._look_again()
            return
        for name in dead:
            self._backend.commit([], [Delete(self._keys.member(name))])

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
        self._rewrite(replace(self.me.record, running=True, id=self._new_id()))
        self._dirty = True

    def set_fitness(self, found: Fitness) -> None:
        """Tell the group what this member has found out about itself, if that is news.

        Only who stands by says whether it could take over. Who becomes unfit goes to the end of the
        queue: when it is well again it must push out nobody who has taken its place.
        """
        before, apart = self.me.record, self._around.apart.able is not False
        found = found if self.role() is Role.BACKUP_RUNNER else Fitness(None, before.checked)
        if self.view is None or (found.unfit, found.checked, apart) == (before.unfit, before.checked, before.apart):
            return
        after = replace(before, unfit=found.unfit, checked=found.checked, apart=apart, id=self._new_id())
        queue: list[Change] = []
        if found.unfit is not None and before.unfit is None:
            spec = self.view.spec
            after = replace(after, join=spec.record.joins + 1)
            last = replace(spec.record, joins=after.join, id=after.id)
            queue = [Update(self._keys.spec, last.to_json(), spec.version)]
        if self._rewrite(after, *queue) and found.unfit != before.unfit:
            self.events.add("fitness", unfit=found.unfit)
        self._look_again()

    def _rewrite(self, after: Member, *others: Change) -> bool:
        """Have our own record be *after*, together with *others*; whether that was in time."""
        key = self._keys.member(self.id)
        result = self._backend.commit([], [*others, Update(key, after.to_json(), self.me.version)])
        if isinstance(result, Committed):
            self.me = Read(after, result.versions[key])
        return isinstance(result, Committed)

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
