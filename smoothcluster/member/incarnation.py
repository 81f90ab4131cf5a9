"""One incarnation of a member: from the moment it has joined until its lease, or its record, is gone.

It looks at the group, makes the moves that are its to make, and works on what is its own. What
it holds is what the store says it holds: each look adopts the shards that are ours by the store
and drops those that are not, so a move whose outcome is unknown needs no care of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from smoothcluster.backend import CoordinationBackend, Refused
from smoothcluster.clock import Signal
from smoothcluster.errors import LeaseLostError
from smoothcluster.group.assignment import Plan, plan, room
from smoothcluster.group.election import PATIENCE, first_in_line, role_of
from smoothcluster.group.events import EventLog
from smoothcluster.group.handover import leave
from smoothcluster.group.view import Read, View, glance, read_view
from smoothcluster.member.adoption import Adoption
from smoothcluster.member.candidacy import Patience
from smoothcluster.member.claims import Claims
from smoothcluster.member.cleanup import Housekeeping
from smoothcluster.member.environment import Settings, Surroundings
from smoothcluster.member.monitoring import Outlook
from smoothcluster.member.own_record import OwnRecord
from smoothcluster.member.rebalancing import Gifts
from smoothcluster.member.rollback import Doubts
from smoothcluster.member.schedule import SETTLE, SOON, Agenda
from smoothcluster.member.stopping import Stopping
from smoothcluster.member.takeover_log import Deaths
from smoothcluster.model import Role
from smoothcluster.pool import Pool
from smoothcluster.recipes.session import Session
from smoothcluster.records.group import Keys, Member
from smoothcluster.work import Sent, Terms
from smoothcluster.work.workload import Workload


class Incarnation:
    """A member as long as one lease lasts."""

    def __init__(
        self, backend: CoordinationBackend, keys: Keys, settings: Settings, around: Surroundings,
        session: Session, me: Read[Member], shards: int, pool: Pool, wake: Signal, report: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        self.name, self.id = me.record.name, me.record.incarnation
        self.session = session
        self.stopping = Stopping(session, around.clock)
        self.events = EventLog(backend, keys, self.name, around.clock)
        self.view: View | None = None
        self._backend, self._keys, self._settings, self._around = backend, keys, settings, around
        self._clock, self._report = around.clock, report
        terms = Terms(
            keys, shards, self.name, self.id, backend.guarantees, settings.max_attempts, settings.retry_delay,
            self.stopping, around.new_id, report, Sent(), around.apart, self.events.add, around.clock.wall,
        )  # fmt: skip
        self.workload = Workload(backend, pool, around.clock, terms, settings.concurrency, session.held)
        self.workload.wake = wake.set
        self._agenda = agenda = Agenda(around.clock, wake.set)
        self.me = OwnRecord(backend, keys, me, self.events, agenda, around.new_id)
        self._deaths = Deaths(around.clock, self.events, self.name)
        self._adoption = Adoption(backend, keys, settings.pacing, self.events, self.id)
        self._claims = Claims(
            backend, keys, around, self.me, self.workload, self._adoption, self._deaths, agenda, report
        )
        self._gifts = Gifts(backend, keys, settings, around, self.workload, self.stopping, self._deaths, report)
        self._doubts = Doubts(backend, self.workload, self.events, self.id, agenda.look_again)
        self._outlook = Outlook(backend, keys, settings, around, self.id, agenda.look_again, agenda.look_soon)
        self._patience = Patience(self.id, settings.order, session.ttl)
        self._housekeeping = Housekeeping(backend, keys, around, session.ttl / 3, report)
        self.workload.on_start = self._deaths.resumed
        self.workload.on_lost = self._fenced
        self.released = False
        self._gifted = False
        """Whether our record was changed by others before the last look, which so may not show all that is ours."""
        self._hurried = self._unsure = False

    # What others tell it, and what it tells

    def proved_gone(self, incarnation: str, after: float) -> None:
        """A member's process is dead, as was known *after* seconds of looking into it."""
        self._deaths.proved(incarnation, after)
        self._outlook.forget(incarnation)
        self._hurried = True

    def unsure(self) -> None:
        """The outcome of something is not known: read what everybody sees before the next decision."""
        self._unsure = self._agenda.overdue = True

    def tell(self, *, running: bool) -> None:
        """Tell the group what is news of this member: that it works, and what it has found out about itself."""
        if running and not self.me.record.running:
            self.me.set_running()
        if self.view is not None:
            self.me.set_fitness(self._around.fitness(), self.view, apart=self._around.apart.able is not False)

    @property
    def settled(self) -> bool:
        """Whether the last look found nothing to do."""
        return not self._agenda.overdue

    def role(self) -> Role:
        """By the last look."""
        return role_of(self.view, self.id) if self.view is not None else Role.BACKUP_RUNNER

    # One turn of the loop

    def turn(self, *, leaving: bool = False) -> None:
        """Look if there is reason to, move, and work."""
        self._agenda.settle()
        moved = self._hurried and not leaving and self._hurry()
        if not moved and self._agenda.due():
            self.look(leaving=leaving)
        self.workload.turn()
        if self.view is not None and self._gifts.give(self.view, self.me.record):
            self._agenda.look_again()
        if not leaving:
            self._outlook.follow(self.view, first=self._agenda.first)
            self._housekeeping.turn(self.view, self.workload.works)
        self.events.flush()

    def next_time(self) -> float:
        """When the next turn is due at the latest."""
        work = self.workload.next_time()
        return self._agenda.next_look if work is None else min(work, self._agenda.next_look)

    def look(self, *, leaving: bool = False) -> View:
        """Read the group, adopt and drop shards, and try the moves that are ours to make."""
        view = self._read()
        now = self._clock.monotonic()
        self._agenda.next_look = now + self.session.ttl / 3
        self._match(view)
        if not leaving:
            self._act(view, now)
        return view

    def _read(self) -> View:
        self._agenda.overdue = False
        try:
            if self._unsure:
                self._backend.sync()
            view = read_view(self._backend, self._keys, dict(self._deaths.known), self._report, self.view)
        except BaseException:
            self._agenda.overdue = True
            raise
        self._unsure = False
        if view is None or self.id not in view.members:
            raise LeaseLostError("the member's record is gone: somebody has taken this process for dead")
        mine = view.members[self.id]
        self._gifted = mine.version != self.me.read.version
        self.view, self.me.read, self._claims.tried = view, mine, False
        self._agenda.first = first_in_line(view, self.id, self._settings.order)
        return view

    def _hurry(self) -> bool:
        """Somebody has died: take over at once what is ours to take; whether a claim was tried.

        Whoever has nothing to take looks a little later, so as not to take processor and store
        from the one who has. Where there are no seats all have something to take, or to tell.
        """
        self._hurried = False
        if self.view is None or self._unsure or self._claims.tried or self._gifted:
            self._agenda.overdue = True
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
            # Who takes shards without a seat must see all members, lest one stands by for it.
            self._agenda.overdue = True
        else:
            self._agenda.look_by(now + SETTLE)
        return False

    def _glance(self, known: View, shards: Sequence[int], now: float, seat: int | None = None) -> None:
        """Decide on the last look, brought up to date only where it matters now."""
        self._agenda.overdue = True
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

    def _fenced(self, shard: int) -> None:
        """The shard has another owner: what we still had to say about it was, or would be, refused."""
        self.events.add("fenced", shard=shard, incarnation=self.id)
        self._agenda.look_again()

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
            self._claims.claim(view, None, again, now)
            return
        self._patience.look(view, now)
        if self._patience.waiting:
            self._agenda.look_by(now + PATIENCE / 2)
        if self._gifted:
            # Lest what was just given, and what we claim, be more than we have room for, or more than one dose.
            self._agenda.look_again()
            return
        seat = self._patience.seat(view, now)
        if seat is not None:
            shards = view.owned(seat.holder)[: room(view, self.id)] if self.me.record.running else []
            shards = shards[: self._adoption.most(view, now)]  # One that has just lost a seat has some already.
            self._claims.claim(view, seat, shards, now)
            return
        todo = self._plan(view, now)
        if todo.claim:
            self._claims.claim(view, None, todo.claim, now)
            return
        self._adoption.tell(view, todo)
        self._agenda.look_by(self._gifts.plan(todo), now + SOON)
        if not todo.patient or self._patience.starting(view, now):
            self._agenda.look_by(now + SOON)
        if self._adoption.close(view, now, self._around.new_id()) or self._claims.exchange(view, todo, now):
            self._agenda.look_again()
            return
        self._agenda.look_by(self._adoption.next_time(todo), now + 0.001)
        self._claims.bury(view, now)

    # Leaving

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
        move = leave(self._keys, view, self.me.read, held, self._around.new_id(), self._backend.guarantees)
        if isinstance(self._backend.commit([], move.changes), Refused):
            return False
        for number in move.shards:
            self.workload.drop(number)
        self.released = not move.rest
        return self.released

    def close(self) -> None:
        """The incarnation is over: nothing of it may go on."""
        self.stopping.set()
        self.workload.drop_all()
        self._outlook.close()
