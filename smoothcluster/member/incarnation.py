"""One incarnation of a member: from the join until the lease or the member record is gone.

An incarnation reads the group, tries the moves due, and works on the own shards. The store alone says which
shards a member owns: after each read, the incarnation takes up the shards recorded as its own and drops all others. So
a move with an unknown outcome needs no special care.
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
    """A member for the time of one lease. One thread at a time calls the methods; any thread may call `role`.

    Methods with reads or commits raise LeaseLostError if the member record is gone, or any other BackendError.
    """

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
        """Whether another member changed our record before the last read, so the view may lack shards of ours."""
        self._hurried = self._unsure = False

    # News from the loop, and news for the group

    def proved_gone(self, incarnation: str, after: float) -> None:
        """Take note of a proof of death, found *after* seconds from the end of the connection. The next turn acts."""
        self._takeovers.proved(incarnation, after)
        self._monitor.forget(incarnation)
        self._hurried = True

    def unsure(self) -> None:
        """After a commit with an unknown outcome, have the group read again, with a `sync`, before any decision."""
        self._unsure = self._schedule.overdue = True

    def tell(self, *, running: bool) -> None:
        """Publish in the member record whether we work, and the readiness results. Called before each turn."""
        if running and not self.me.record.running:
            self.me.set_running()
        if self.view is not None:
            self.me.set_fitness(self._environment.fitness(), self.view, apart=self._environment.apart.able is not False)

    @property
    def settled(self) -> bool:
        """Whether there is no reason to read the group again at once."""
        return not self._schedule.overdue

    def role(self) -> Role:
        """Return the role in the last view; Backup Runner before the first view."""
        return role_of(self.view, self.id) if self.view is not None else Role.BACKUP_RUNNER

    # One turn of the loop

    def turn(self, *, leaving: bool = False) -> None:
        """Read the group if there is a reason, try the move now due, and work; if *leaving*, claim nothing."""
        self._schedule.settle()
        # After an urgent move the claimed tasks start first, in this turn. The next turn reads the group.
        moved = self._hurried and not leaving and self._hurry()
        if not moved and self._schedule.due():
            self.look(leaving=leaving)
        self.workload.turn()
        if self.view is not None and self._rebalancer.give(self.view, self.me.record):
            self._schedule.look_again()
        if not leaving:
            self._monitor.follow(self.view, first=self._schedule.first)
            self._cleanup.turn(self.view, self.workload.works)
        # Last, because the workload completes the events of claims with the time of the first start.
        self.events.flush()

    def next_time(self) -> float:
        """Return the latest time for the next turn, if no wake-up comes before."""
        work = self.workload.next_time()
        return self._schedule.next_look if work is None else min(work, self._schedule.next_look)

    def look(self, *, leaving: bool = False) -> View:
        """Read the group, take up and drop shards, and try the move now due. Called before the first turn, too."""
        view = self._read()
        now = self._clock.monotonic()
        self._schedule.next_look = now + self.session.ttl / 3  # Decisions below only bring this time forward.
        self._match(view)
        if not leaving:
            self._act(view, now)
        return view

    def _read(self) -> View:
        # Cleared before the read: a watch may report a change while we read, too late for the view, and set the flag.
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
        # The shards are read before the members. Another member may transfer a shard to us between the two reads: then
        # the view lacks the shard, but our record has a version unknown to us.
        self._gifted = mine.version != self.me.read.version
        self.view, self.me.read, self._claims.tried = view, mine, False
        self._schedule.first = first_in_line(view, self.id, self._settings.order)
        return view

    def _hurry(self) -> bool:
        """Act at once on proofs of death. Return whether a move was tried; if not, a read of the group is scheduled.

        A member with nothing to claim reads the group a little later, to leave the processor and the store to the
        successor. In a group without seats, each member has shards to claim or a record to remove.
        """
        self._hurried = False
        # The view may lack a commit without an answer (`_unsure`), a later claim of ours (`tried`) or a transfer to us
        # (`_gifted`). With another claim on this view, we could take a second seat or exceed the capacity.
        if self.view is None or self._unsure or self._claims.tried or self._gifted:
            self._schedule.overdue = True
            return False
        now, gone = self._clock.monotonic(), dict(self._takeovers.known)
        known = replace(self.view, gone=gone)
        seat = self._candidacy.seat(known, now)
        if seat is not None and seat.holder in known.members:  # Else this claim could not remove the record.
            self._glance(known, known.owned(seat.holder), now, seat.number)
            return True
        self._adoption.look(known, now)
        claims = self._plan(known, now).claim
        if known.all_run and claims:
            self._glance(known, claims, now)
            return True
        if seat is not None or claims or known.all_run:
            # A candidate may have joined since the last view: read all members before a claim on shards alone.
            self._schedule.overdue = True
        else:
            self._schedule.look_by(now + SETTLE)
        return False

    def _glance(self, known: View, shards: Sequence[int], now: float, seat: int | None = None) -> None:
        """Try the move now due, after a fast read: the last view, with *shards*, *seat* and the breaker renewed."""
        # The next turn must read the whole group. Set before the read, which may fail.
        self._schedule.overdue = True
        view, self.workload.ahead = refresh(self._backend, self._keys, known.gone, self._report, known, shards, seat)
        self._act(view, now)

    def _match(self, view: View) -> None:
        """Take up the shards that are ours in *view*, and drop all others."""
        mine = {n: read for n in view.owned(self.id) if (read := view.shards[n]) is not None}
        for number, work in list(self.workload.works.items()):
            # A shard may go to another member and come back to us between two reads: then the epoch differs.
            if number not in mine or mine[number].record.epoch != work.record.epoch:
                self._fenced(number)
                self.workload.drop(number)
        # May drop shards with lost commits, which `_act` claims again.
        self._rollback.settle(view)
        for number in sorted(mine.keys() - self.workload.works.keys() - set(self._rollback.begun_before(view))):
            self.workload.adopt(number, mine[number])

    def _fenced(self, shard: int) -> None:
        """Report that the shard has another owner, so the store refuses our commits. The workload calls this, too."""
        self.events.add("fenced", shard=shard, incarnation=self.id)
        self._schedule.look_again()

    # Moves

    def _plan(self, view: View, now: float) -> Plan:
        """Return the shards to claim or to transfer."""
        heir = self._candidacy.has_successor(view, now)
        busy = [work.number for work in self.workload.works.values() if work.outstanding]
        return plan(view, self.id, busy=busy, successor=heir, adopt=self._adoption.most(view, now))

    def _act(self, view: View, now: float) -> None:
        """Try the first move now due, and schedule the transfers and the next read."""
        self._adoption.look(view, now)
        again = self._rollback.begun_before(view)
        if again:
            self._claims.claim(view, None, again, now)
            return
        self._candidacy.look(view, now)
        if self._candidacy.waiting:
            self._schedule.look_by(now + PATIENCE / 2)
        if self._gifted:
            # The view may lack a shard transferred to us: with a claim on top, we could exceed our limits.
            self._schedule.look_again()
            return
        seat = self._candidacy.seat(view, now)
        if seat is not None:
            shards = view.owned(seat.holder)[: room(view, self.id)] if self.me.record.running else []
            shards = shards[: self._adoption.most(view, now)]  # Without a seat, we may still own some.
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
        """Begin to leave: set the stop flag of the handlers, and take back the tasks that have not started."""
        self.stopping.set()
        self.workload.stopping = True
        self.workload.hand_back()

    def release(self) -> bool:
        """Release the shards without an unsettled commit; with the last of them, the seat and the member record.

        Return whether the member record is deleted; if not, call again.
        """
        # A transfer to us may land between this read and the commit. The commit compares our record, which a transfer
        # changes: the store then refuses, and the next call releases this shard, too.
        view = self._read()
        self._match(view)
        works = self.workload.works
        # A pending commit may have landed or not, but its changes are in `work.record` already: leave such a shard as
        # the store has it, to the successor.
        held = {n: Versioned(work.record, work.version) for n, work in works.items() if work.pending is None}
        move = leave(self._keys, view, self.me.read, held, self._environment.new_id(), self._backend.guarantees)
        if isinstance(self._backend.commit([], move.changes), Refused):
            return False
        for number in move.shards:
            self.workload.drop(number)
        self.released = not move.rest
        return self.released

    def close(self) -> None:
        """End the incarnation: set the stop flag of the handlers, drop all shards, and close all watches."""
        self.stopping.set()
        self.workload.drop_all()
        self._monitor.close()
