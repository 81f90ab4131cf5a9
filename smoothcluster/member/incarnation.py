"""One incarnation of a member: from the moment it has joined until its lease, or its record, is gone.

It looks at the group, makes the moves that are its to make, and works on what is its own. What
it holds is what the store says it holds: each look adopts the shards that are ours by the store
and drops those that are not, so a move whose outcome is unknown needs no care of its own.
"""

from collections.abc import Sequence
from dataclasses import replace

from smoothcluster.backend import CoordinationBackend, Refused
from smoothcluster.clock import Signal
from smoothcluster.errors import LeaseLostError
from smoothcluster.group.assignment import Plan, plan, room
from smoothcluster.group.election import PATIENCE, first_in_line, role_of
from smoothcluster.group.events import EventLog
from smoothcluster.group.handover import leave
from smoothcluster.group.reading import read_view, refresh
from smoothcluster.group.view import Report, Versioned, View
from smoothcluster.member.adoption import Adoption
from smoothcluster.member.candidacy import Candidacy
from smoothcluster.member.claims import Claims
from smoothcluster.member.cleanup import Cleanup
from smoothcluster.member.environment import Environment
from smoothcluster.member.monitoring import Monitor
from smoothcluster.member.own_record import OwnRecord
from smoothcluster.member.rebalancing import Rebalancer
from smoothcluster.member.rollback import RollbackRecovery
from smoothcluster.member.schedule import SETTLE, SOON, Schedule
from smoothcluster.member.settings import Settings
from smoothcluster.member.stopping import Stopping
from smoothcluster.member.takeover_log import TakeoverLog
from smoothcluster.model import Role
from smoothcluster.pool import Pool
from smoothcluster.recipes.session import Session
from smoothcluster.records.group import Member
from smoothcluster.records.keys import Keys
from smoothcluster.work import SentTasks, WorkContext
from smoothcluster.work.workload import Workload


class Incarnation:
    """A member as long as one lease lasts."""

    def __init__(
        self, backend: CoordinationBackend, keys: Keys, settings: Settings, environment: Environment,
        session: Session, me: Versioned[Member], shards: int, pool: Pool, wake: Signal, report: Report,
    ) -> None:  # fmt: skip
        self.name, self.id = me.record.name, me.record.incarnation
        self.session = session
        self.stopping = Stopping(session, environment.clock)
        self.events = EventLog(backend, keys, self.name, environment.clock)
        self.view: View | None = None
        self._backend, self._keys, self._settings, self._environment = backend, keys, settings, environment
        self._clock, self._report = environment.clock, report
        context = WorkContext(
            keys, shards, self.name, self.id, backend.guarantees, settings.retries, self.stopping,
            environment.new_id, report, SentTasks(), environment.apart, self.events.add,
            environment.clock.wall,
        )  # fmt: skip
        self.workload = Workload(backend, pool, environment.clock, context, settings.concurrency, session.held)
        self.workload.wake = wake.set
        self._schedule = schedule = Schedule(environment.clock, wake.set)
        self.me = OwnRecord(backend, keys, me, self.events, schedule, environment.new_id)
        self._takeovers = TakeoverLog(environment.clock, self.events, self.name)
        self._adoption = Adoption(backend, keys, settings.pacing, self.events, self.id)
        self._claims = Claims(
            backend, keys, environment, self.me, self.workload, self._adoption, self._takeovers, schedule, report
        )
        self._rebalancer = Rebalancer(
            backend, keys, settings, environment, self.workload, self.stopping, self._takeovers, report
        )
        self._rollback = RollbackRecovery(backend, self.workload, self.events, self.id, schedule.look_again)
        self._monitor = Monitor(backend, keys, settings, environment, self.id, schedule.look_again, schedule.look_soon)
        self._candidacy = Candidacy(self.id, settings.order, session.ttl)
        self._cleanup = Cleanup(backend, keys, environment, session.ttl / 3, report)
        self.workload.on_start = self._takeovers.resumed
        self.workload.on_lost = self._fenced
        self.released = False
        self._gifted = False
        """Whether our record was changed by others before the last look, which so may not show all that is ours."""
        self._hurried = self._unsure = False

    # What others tell it, and what it tells

    def proved_gone(self, incarnation: str, after: float) -> None:
        """A member's process is dead, as was known *after* seconds of looking into it."""
        self._takeovers.proved(incarnation, after)
        self._monitor.forget(incarnation)
        self._hurried = True

    def unsure(self) -> None:
        """The outcome of something is not known: read what everybody sees before the next decision."""
        self._unsure = self._schedule.overdue = True

    def tell(self, *, running: bool) -> None:
        """Tell the group what is news of this member: that it works, and what it has found out about itself."""
        if running and not self.me.record.running:
            self.me.set_running()
        if self.view is not None:
            self.me.set_fitness(self._environment.fitness(), self.view, apart=self._environment.apart.able is not False)

    @property
    def settled(self) -> bool:
        """Whether the last look found nothing to do."""
        return not self._schedule.overdue

    def role(self) -> Role:
        """By the last look."""
        return role_of(self.view, self.id) if self.view is not None else Role.BACKUP_RUNNER

    # One turn of the loop

    def turn(self, *, leaving: bool = False) -> None:
        """Look if there is reason to, move, and work."""
        self._schedule.settle()
        moved = self._hurried and not leaving and self._hurry()
        if not moved and self._schedule.due():
            self.look(leaving=leaving)
        self.workload.turn()
        if self.view is not None and self._rebalancer.give(self.view, self.me.record):
            self._schedule.look_again()
        if not leaving:
            self._monitor.follow(self.view, first=self._schedule.first)
            self._cleanup.turn(self.view, self.workload.works)
        self.events.flush()

    def next_time(self) -> float:
        """When the next turn is due at the latest."""
        work = self.workload.next_time()
        return self._schedule.next_look if work is None else min(work, self._schedule.next_look)

    def look(self, *, leaving: bool = False) -> View:
        """Read the group, adopt and drop shards, and try the moves that are ours to make."""
        view = self._read()
        now = self._clock.monotonic()
        self._schedule.next_look = now + self.session.ttl / 3
        self._match(view)
        if not leaving:
            self._act(view, now)
        return view

    def _read(self) -> View:
        self._schedule.overdue = False
        try:
            if self._unsure:
                self._backend.sync()
            view = read_view(self._backend, self._keys, dict(self._takeovers.known), self._report, self.view)
        except BaseException:
            self._schedule.overdue = True
            raise
        self._unsure = False
        if view is None or self.id not in view.members:
            raise LeaseLostError("the member's record is gone: somebody has taken this process for dead")
        mine = view.members[self.id]
        self._gifted = mine.version != self.me.read.version
        self.view, self.me.read, self._claims.tried = view, mine, False
        self._schedule.first = first_in_line(view, self.id, self._settings.order)
        return view

    def _hurry(self) -> bool:
        """Somebody has died: take over at once what is ours to take; whether a claim was tried.

        Whoever has nothing to take looks a little later, so as not to take processor and store
        from the one who has. Where there are no seats all have something to take, or to tell.
        """
        self._hurried = False
        if self.view is None or self._unsure or self._claims.tried or self._gifted:
            self._schedule.overdue = True
            return False
        now, gone = self._clock.monotonic(), dict(self._takeovers.known)
        known = replace(self.view, gone=gone)
        seat = self._candidacy.seat(known, now)
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
            self._schedule.overdue = True
        else:
            self._schedule.look_by(now + SETTLE)
        return False

    def _glance(self, known: View, shards: Sequence[int], now: float, seat: int | None = None) -> None:
        """Decide on the last look, brought up to date only where it matters now."""
        self._schedule.overdue = True
        view, self.workload.ahead = refresh(self._backend, self._keys, known.gone, self._report, known, shards, seat)
        self._act(view, now)

    def _match(self, view: View) -> None:
        """Hold what the store says we hold."""
        mine = {n: read for n in view.owned(self.id) if (read := view.shards[n]) is not None}
        for number, work in list(self.workload.works.items()):
            if number not in mine or mine[number].record.epoch != work.record.epoch:
                self._fenced(number)
                self.workload.drop(number)
        self._rollback.settle(view)
        for number in sorted(mine.keys() - self.workload.works.keys() - set(self._rollback.begun_before(view))):
            self.workload.adopt(number, mine[number])

    def _fenced(self, shard: int) -> None:
        """The shard has another owner: what we still had to say about it was, or would be, refused."""
        self.events.add("fenced", shard=shard, incarnation=self.id)
        self._schedule.look_again()

    # Moves

    def _plan(self, view: View, now: float) -> Plan:
        """The shards to claim or give away."""
        heir = self._candidacy.has_successor(view, now)
        busy = [work.number for work in self.workload.works.values() if work.outstanding]
        return plan(view, self.id, busy=busy, successor=heir, adopt=self._adoption.most(view, now))

    def _act(self, view: View, now: float) -> None:
        """Take a seat, or shards, or bury the dead: at most one commit, then look again if it was late."""
        self._adoption.look(view, now)
        again = self._rollback.begun_before(view)
        if again:
            self._claims.claim(view, None, again, now)
            return
        self._candidacy.look(view, now)
        if self._candidacy.waiting:
            self._schedule.look_by(now + PATIENCE / 2)
        if self._gifted:
            # Lest what was just given, and what we claim, be more than we have room for, or more than one dose.
            self._schedule.look_again()
            return
        seat = self._candidacy.seat(view, now)
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
        self._schedule.look_by(self._rebalancer.plan(todo), now + SOON)
        if not todo.patient or self._candidacy.starting(view, now):
            self._schedule.look_by(now + SOON)
        if self._adoption.close(view, now, self._environment.new_id()) or self._claims.exchange(view, todo, now):
            self._schedule.look_again()
            return
        self._schedule.look_by(self._adoption.next_time(todo), now + 0.001)
        self._claims.remove_dead(view, now)

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
        held = {n: Versioned(work.record, work.version) for n, work in works.items() if work.pending is None}
        move = leave(self._keys, view, self.me.read, held, self._environment.new_id(), self._backend.guarantees)
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
        self._monitor.close()
