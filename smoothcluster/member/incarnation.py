"""One incarnation of a member: from the join until the lease or the member record is gone.

An incarnation reads the group, tries the moves due, and works on the own shards. The store alone says which
shards a member owns: after each read, the incarnation takes up the shards recorded as its own and drops all others. So
a move with an unknown outcome needs no special care.
"""

from dataclasses import dataclass, replace

from smoothcluster.errors import LeaseLostError
from smoothcluster.group.election import first_in_line, role_of
from smoothcluster.group.events import EventLog
from smoothcluster.group.store import GroupStore
from smoothcluster.group.view import Versioned, View
from smoothcluster.member.adoption import Adoption
from smoothcluster.member.candidacy import Candidacy
from smoothcluster.member.claims import Claims
from smoothcluster.member.cleanup import Cleanup
from smoothcluster.member.environment import Environment
from smoothcluster.member.marks import Marks
from smoothcluster.member.monitoring import Monitor
from smoothcluster.member.moves import Moves
from smoothcluster.member.moving import Destination, Mover
from smoothcluster.member.outboxes import Outboxes
from smoothcluster.member.own_record import OwnRecord
from smoothcluster.member.ownership import Ownership
from smoothcluster.member.rebalancing import Rebalancer
from smoothcluster.member.rollback import RollbackRecovery, StoreHistory
from smoothcluster.member.schedule import Schedule
from smoothcluster.member.settings import Settings
from smoothcluster.member.stopping import Stopping
from smoothcluster.member.takeover_log import TakeoverLog
from smoothcluster.member.task_search import TaskSearch
from smoothcluster.member.work_news import WorkNews
from smoothcluster.model import Role
from smoothcluster.pool import Pool
from smoothcluster.recipes.session import Session
from smoothcluster.records.group import Member, Spec
from smoothcluster.work import Quota, SentTasks, WorkContext
from smoothcluster.work.workload import Workload

WHY_REMOVED = (
    "another member took this process for dead and removed the member's record, although the lease was alive (a proxy"
    " may have misled the other member). From now on this process announces no port: other members notice a death of"
    " this process only when the lease ends"
)


@dataclass(frozen=True, slots=True)
class Joined:
    """The result of a join: the session, the member record, and the group's numbers.

    The store's history goes with it, because a rollback may have ended the incarnation before.
    """

    session: Session
    me: Versioned[Member]
    spec: Spec
    history: StoreHistory


def make_outboxes(store: GroupStore, spec: Spec, settings: Settings, environment: Environment) -> Outboxes | None:
    """Return the outboxes of a group with a results sink; None if outcomes stay in the store."""
    if spec.results is None or spec.results_id is None or environment.background is None:
        return None
    mover = Mover(
        store,
        Destination(spec.results, spec.results_id, ours=spec.results_id == settings.wanted.results_id),
        environment.sinks,
    )
    return Outboxes(mover, environment.background, store.clock, environment.inbox.wake.set)


class Incarnation:
    """A member for the time of one lease. One thread at a time calls the methods; any thread may call `role`.

    Methods with reads or commits raise LeaseLostError if the member record is gone, or any other BackendError.
    """

    def __init__(
        self, store: GroupStore, settings: Settings, environment: Environment, joined: Joined, pool: Pool
    ) -> None:  # long: a line for each part
        self.name, self.id = joined.me.record.name, joined.me.record.incarnation
        self.session = session = joined.session
        self.stopping = Stopping(session, store.clock)
        self.events = EventLog(store, self.name)
        self.view: View | None = None
        self._store, self._settings, self._environment, wake = store, settings, environment, environment.inbox.wake
        self._schedule = schedule = Schedule(store.clock, wake.set)
        self._takeovers = TakeoverLog(store.clock, self.events, self.name)
        self.me = OwnRecord(store, joined.me, self.events, schedule)
        news = WorkNews(self.id, self.events, schedule, self._takeovers, wake)
        context = WorkContext(
            store, joined.spec.shards, self.name, self.id, settings.retries, self.stopping, SentTasks(),
            environment.apart, self.events.add,
            Quota(store, joined.spec.shards, settings.max_tasks, self.events.add),
        )  # fmt: skip
        self.workload = Workload(pool, context, settings.concurrency, session.held, news)
        self._search = TaskSearch(self.workload, store.clock, self.id, environment.search_seconds)
        adoption = Adoption(store, settings.pacing, self.events, self.id)
        self._claims = Claims(store, self.me, self.workload, adoption, self._takeovers, schedule)
        self._rebalancer = Rebalancer(store, settings.grace, self.workload, self.stopping, self._takeovers)
        rollback = RollbackRecovery(joined.history, self.workload, self.events, self.id, news)
        self._ownership = Ownership(self.id, self.workload, rollback, news)
        candidacy = Candidacy(self.id, settings.order, session.ttl)
        self._moves = Moves(self._claims, candidacy, self._rebalancer, rollback, schedule)
        self._monitor = Monitor(store, settings, environment, self.id, schedule)
        self._marks = Marks(store, context.closed, wake)
        self._cleanup = Cleanup(store, session.ttl / 3, self.events, context.closed)
        self._outboxes = make_outboxes(store, joined.spec, settings, environment)
        self.released = self.removed = False
        self._given_more = False
        """Whether another member changed our record before the last read, so the view may lack shards of ours."""
        self._hurried = self._unsure = False

    # News from the loop, and news for the group

    def proved_gone(self, incarnation: str, after: float) -> None:
        """Take note of a proof of death, found *after* seconds from the end of the connection. The next turn acts."""
        self._takeovers.proved(incarnation, after)
        self._monitor.forget(incarnation)
        self._hurried = True

    def interrupted(self, *, unknown: bool) -> None:
        """After an error of the store in a turn, have the group read again: the moves of that turn are still due.

        After a commit with an *unknown* outcome, a `sync` comes before the read.
        """
        self._unsure = self._unsure or unknown
        self._schedule.overdue = True

    def publish(self, *, running: bool) -> None:
        """Publish in the member record whether we work, and the readiness results. Called before each turn."""
        if running and not self.me.record.running:
            self.me.set_running()
        if self.view is not None:
            self.me.set_results_wait(self._outboxes.trouble if self._outboxes is not None else None)
            self.me.set_fitness(self._environment.fitness(), self.view, apart=self._environment.apart.able is not False)

    def can_commit(self) -> bool:
        """Return whether the store accepts a commit of this member. Raise any BackendError."""
        return self.me.write_again()

    @property
    def settled(self) -> bool:
        """Whether there is no reason to read the group again at once."""
        return not self._schedule.overdue

    def role(self) -> Role:
        """Return the role in the last view; Backup Runner before the first view."""
        return role_of(self.view, self.id) if self.view is not None else Role.BACKUP_RUNNER

    # One turn of the loop

    def step(self, *, leaving: bool = False) -> None:
        """Read the group if there is a reason, try the move now due, and work; if *leaving*, claim nothing."""
        self._schedule.delay_stirred()
        # After an urgent move the claimed tasks start first, in this turn. The next turn reads the group.
        moved = self._hurried and not leaving and self._hurry()
        if not moved and self._schedule.due():
            self.read_and_act(leaving=leaving)
        # Behind an urgent claim one turn later: a takeover takes one read and one commit, and the watch has reported
        # all marks but the latest. A task that starts nevertheless ends with its outcome, as those that run already.
        if not moved and self._marks.read():
            self._cleanup.hurry()
            self._environment.inbox.wake.set()  # The next turn commits what the cleanup of this turn finds.
        self._search.step()
        if self._outboxes is not None:  # First: the workload commits finished moves in this turn.
            self._outboxes.step(self.workload.works, leaving=leaving)
        self.workload.step()
        if self.view is not None and self._rebalancer.transfer(self.view, self.me.record):
            self._schedule.read_again()
        if not leaving:
            self._monitor.follow(self.view, first=self._schedule.first)
            self._cleanup.run(self.view, self.workload.works)
        # Last, because the workload completes the events of claims with the time of the first start.
        self._takeovers.release(leaving=leaving)
        self.events.flush()

    def next_time(self) -> float:
        """Return the latest time for the next turn, if no wake-up comes before."""
        times = [self.workload.next_time(), self._search.next_time(), self._takeovers.next_time()]
        if self._outboxes is not None:
            times.append(self._outboxes.next_time(self.workload.works))
        return min([self._schedule.next_read, *(time for time in times if time is not None)])

    def read_and_act(self, *, leaving: bool = False) -> View:
        """Read the group, take up and drop shards, and try the move now due. Called before the first turn, too."""
        view = self._read()
        now = self._store.clock.monotonic()
        self._schedule.next_read = now + self.session.ttl / 3  # Decisions below only bring this time forward.
        self._ownership.match(view)
        if not leaving:
            self._moves.act(view, now, given_more=self._given_more)
        return view

    def _read(self) -> View:
        # Cleared before the read: a watch may report a change while we read, too late for the view, and set the flag.
        self._schedule.overdue = False
        try:
            if self._unsure:
                self._store.backend.sync()
            view = self._store.read_view(dict(self._takeovers.known), self.view)
        except BaseException:
            self._schedule.overdue = True
            raise
        self._unsure = False
        if view is None or self.id not in view.members:
            self.removed = view is not None and self._lease_is_alive()
            raise LeaseLostError(WHY_REMOVED if self.removed else "the member's record is gone")
        mine = view.members[self.id]
        # The shards are read before the members. Another member may transfer a shard to us between the two reads: then
        # the view lacks the shard, but our record has a version unknown to us.
        self._given_more = mine.version != self.me.read.version
        self.view, self.me.read, self._claims.tried = view, mine, False
        self._schedule.first = first_in_line(view, self.id, self._settings.order)
        return view

    def _lease_is_alive(self) -> bool:
        """Whether the lease of the missing record is alive, so another member has deleted the record."""
        if self.workload.stopping:  # The own commit that deletes the record may have landed without an answer.
            return False
        self.session.renew_once()  # A store that was rolled back, or emptied, has lost the lease, too.
        return self.session.held()

    def _hurry(self) -> bool:
        """Act at once on proofs of death. Return whether a move was tried; if not, a read of the group is scheduled."""
        self._hurried = False
        # The view may lack a commit without an answer (`_unsure`), a later claim of ours (`tried`) or a transfer to us
        # (`_given_more`). With another claim on this view, we could take a second seat or exceed the capacity.
        if self.view is None or self._unsure or self._claims.tried or self._given_more:
            self._schedule.overdue = True
            return False
        now = self._store.clock.monotonic()
        known = replace(self.view, gone=dict(self._takeovers.known))
        target = self._moves.urgent(known, now)
        if target is None:
            return False
        # The next turn must read the whole group. Set before the read, which may fail.
        self._schedule.overdue = True
        view, chunks = self._store.refresh(known, target.shards, target.seat)
        self.workload.restarts.preload(chunks)
        self._moves.act(view, now, given_more=False)
        return True

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
        self._ownership.match(view)
        self.released = self._claims.release(view)
        return self.released

    def close(self) -> None:
        """End the incarnation: set the stop flag of the handlers, drop all shards, and close all watches."""
        self.stopping.set()
        self.workload.drop_all()
        self._monitor.close()
        self._marks.close()
