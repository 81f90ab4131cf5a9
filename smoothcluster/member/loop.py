"""The loop of a member: join, work, survive failures of the store, join again after a lost lease, and leave.

One thread owns the loop. Other threads only wake the loop: watches, the failure detector with a proof of death, the
handler pool after a finished task, and a caller that asks the member to leave.

While the store is away, the loop collects outcomes. They wait in memory, never more than there were tasks marked as
running, and are committed when the store is back. A lost lease ends the incarnation, which loses the seat and all
shards, and the loop joins again under the same name.
"""

import logging

from smoothcluster.backend import CoordinationBackend
from smoothcluster.errors import (
    BackendClosedError,
    BackendError,
    CommitTooLargeError,
    LeaseLostError,
    MisplacedKeyError,
    NameInUseError,
    OutcomeUnknownError,
)
from smoothcluster.group.joining import try_join
from smoothcluster.group.store import GroupStore
from smoothcluster.member.environment import Environment
from smoothcluster.member.incarnation import Incarnation, Joined
from smoothcluster.member.outage import Outage
from smoothcluster.member.rollback import StoreHistory
from smoothcluster.member.settings import Settings
from smoothcluster.model import Role
from smoothcluster.pool import Run
from smoothcluster.recipes.session import Session
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.group import Member
from smoothcluster.records.keys import Keys

log = logging.getLogger("smoothcluster")

FIRST_RETRY_PAUSE_SECONDS, LONGEST_RETRY_PAUSE_SECONDS = 0.02, 1.0
"""Seconds between two attempts to reach an unreachable store: the first pause, doubled each time, and the longest."""


class MemberLoop:
    """A member of a group, through all incarnations."""

    def __init__(self, backend: CoordinationBackend, settings: Settings, environment: Environment) -> None:
        self.life: Incarnation | None = None
        self.name: str | None = None
        """The name, fixed by the first join; None before."""
        self.working = False
        """Whether a thread is in `run`."""
        self.inbox = environment.inbox
        self.pool = environment.make_pool(self.inbox.ring, self._may_start)
        self._settings, self._environment, self._clock = settings, environment, environment.clock
        self._store = GroupStore(
            backend.for_group(settings.group), Keys(settings.group), self._report, self._clock, environment.new_id
        )
        self._address, self._port = environment.address
        """Numeric host and port in the member record; port 0 after another member has removed a living incarnation."""
        self._history = StoreHistory(self._store)
        self.session: Session | None = None
        self._incarnation = ""
        self._ended: tuple[str, str] | None = None
        """The last incarnation and the reason for the end, until an event reports both."""
        self._running = False
        self._away_until, self._pause = 0.0, FIRST_RETRY_PAUSE_SECONDS
        self._outage = Outage(self._clock)

    def _may_start(self, _: Run) -> bool:
        session = self.session  # Read once: a worker's thread asks, while the loop ends the session.
        return session is not None and session.held() and not self.inbox.leaving.is_set()

    @property
    def role(self) -> Role | None:
        """The role in the last view; None without an incarnation or a view, and once the lease may be over."""
        life = self.life  # Read once: any thread may ask, while the loop ends the incarnation.
        return life.role() if life is not None and life.view is not None and life.session.held() else None

    # Joining

    def try_join(self) -> bool:
        """Try once to join the group. Return False if another member was faster: then call again.

        Each lease gets a new incarnation id: the store may still hold the record of the former lease, and a join with
        the same id would take this record for a successful join.

        Raise NameInUseError or SpecMismatchError if the group refuses the name or the numbers, or any BackendError.
        """
        if self.session is None or self.session.lost.is_set():
            self.session = Session(self._store.backend, self._settings.lease_ttl, self._clock)
            self.session.on_lost(self.inbox.wake.set)
            self._incarnation = self._environment.new_id()
            self._environment.keep_alive(self.session)
        wanted = self._settings.wanted if self.name is None else self._settings.wanted.rejoining(self.name)
        card = Member(
            wanted.name, self._incarnation, 0, self._environment.host, self._environment.pid, self._address, self._port,
            self._settings.concurrency, self._running, None, "", self._settings.capacity,
            apart=self._environment.apart.able is not False,
        )  # fmt: skip
        me = try_join(self._store, wanted, card, self.session.lease)
        spec = self._store.read_spec() if me is not None else None
        if me is None or spec is None:
            return False
        self.name = me.record.name
        self._environment.announce(self._settings.group, self.name, self._incarnation)
        joined = Joined(self.session, me, spec.record, self._history)
        self.life = Incarnation(self._store, self._settings, self._environment, joined, self.pool)
        if self._ended is not None:
            self.life.events.add("lease_lost", incarnation=self._ended[0], why=self._ended[1])
            self._ended = None
        self.life.events.add("joined", incarnation=self._incarnation)
        return True

    def mark_results(self) -> None:
        """If this member brings the results sink to the group, leave the group's mark there. Call before the join.

        Members then notice if their URL leads to another place. Raise SinkUnavailableError if the sink is away, or any
        BackendError.
        """
        wanted, spec = self._settings.wanted, self._store.read_spec()
        if wanted.results and wanted.results_id and (spec is None or spec.record.results != wanted.results):
            self._environment.sinks.get(wanted.results).mark(wanted.results_id)

    def take_seat(self) -> Role:
        """Take a seat if one is free for us, and return the role. Call after the join. Raise any BackendError."""
        assert self.life is not None, "join first"
        while True:
            self.life.read_and_act()
            if self.life.settled:
                return self.life.role()

    def recover(self, error: OutcomeUnknownError | LeaseLostError) -> None:
        """After an *error* of `try_join` or `take_seat`, end the incarnation, or have the group read again."""
        if isinstance(error, LeaseLostError):
            self._end(str(error))
        elif self.life is not None:
            self.life.interrupted(unknown=True)

    def _report(self, key: str, what: str) -> None:
        log.warning("garbage at %s: %s", key, what)
        if self.life is not None:
            self.life.events.garbage(key, what)

    # The loop

    def run(self) -> None:
        """Work until asked to leave, then leave. Raise SpecMismatchError if the group refuses the numbers at a join.

        Raise BackendClosedError once the backend is closed: the member can no longer work, nor leave the group.
        """
        self.working = self._running = True
        try:
            while not self.inbox.leaving.is_set():
                self.inbox.wake.wait(self.step())
            self._leave()
        except BackendClosedError as error:
            self._drop_incarnation()
            raise BackendClosedError(
                f"the backend was closed before {self.name} left the group, and the group waits until the lease runs"
                " out: call stop() first, and then close the backend"
            ) from error
        finally:
            self.working = False

    def close(self) -> None:
        """End what is left after an error of `run` or of a join: the incarnation and the session. Repeatable."""
        if self.life is not None or self.session is not None:
            self._end("the member has stopped")

    def step(self, *, leaving: bool = False) -> float:
        """Make one turn. Return the seconds until the next turn is due, unless `wake` is set before.

        Errors of the store end the turn: a lost lease also ends the incarnation, other errors begin a pause. Only
        BackendClosedError escapes, because a closed backend never comes back. A pause also follows a spec that is
        unreadable when the member must join again. An outage is over once all that was due has succeeded, and a commit,
        too: a full store answers reads and renewals, and refuses commits.
        """
        # Clear the signal before the turn reads any flag or queue: a wake-up in between then leads to another turn.
        self.inbox.wake.clear()
        now = self._clock.monotonic()
        if now < self._away_until:
            if self.life is not None:
                self.life.workload.collect(now)
            return self._away_until - now
        try:
            self._turn(leaving=leaving)
        except LeaseLostError as error:
            self._end(str(error))
            return 0.0
        except NameInUseError:
            return self._stay_away()
        except (BackendError, GarbageError) as error:
            return self._pause_after(error)
        self._away_until, self._pause = 0.0, FIRST_RETRY_PAUSE_SECONDS
        if self.life is None or self.inbox.wake.is_set():
            return 0.0
        return max(0.0, self.life.next_time() - self._clock.monotonic())

    def _turn(self, *, leaving: bool) -> None:
        if self.session is not None and self.session.lost.is_set():
            raise self.session.loss
        if self.life is None and (leaving or not self.try_join()):
            return
        assert self.life is not None
        while self.inbox.proofs:
            self.life.proved_gone(*self.inbox.proofs.popleft())
        self.life.publish(running=self._running)
        self.life.step(leaving=leaving)
        if not self._outage.lasts or self.life.can_commit():
            self._outage.end()

    def _pause_after(self, error: BackendError | GarbageError) -> float:
        if isinstance(error, BackendClosedError):
            raise error
        if isinstance(error, MisplacedKeyError):
            self._report(error.key, error.what)
            return self._stay_away()
        if isinstance(error, CommitTooLargeError):
            self._outage.report_mistake(str(error))
        else:
            self._outage.warn(str(error))
        if self.life is not None:
            self.life.interrupted(unknown=isinstance(error, OutcomeUnknownError))
        return self._stay_away()

    def _stay_away(self) -> float:
        self._away_until = self._clock.monotonic() + self._pause
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_RETRY_PAUSE_SECONDS)
        return pause

    def _end(self, why: str) -> None:
        """End the incarnation, and drop all shards. The next turn joins again, unless the member is leaving."""
        if self.life is not None:
            log.warning("%s: incarnation %s has ended: %s", self.life.name, self.life.id, why)
            self._ended = (self.life.id, why)
        self._drop_incarnation()

    def _drop_incarnation(self) -> None:
        # Clear both before the rest is closed: without a session, `_may_start` lets the pool start no further runs.
        life, self.life = self.life, None
        session, self.session = self.session, None
        if life is not None:
            if life.removed:
                # The path to the port misled another member, and may do so again. Without a port the lease decides.
                self._port = 0
            life.close()
        if session is not None:
            session.close()

    # Leaving

    def _leave(self) -> None:
        """Start no more tasks, give running tasks the grace period, record outcomes, and release everything."""
        deadline = self._clock.monotonic() + self._settings.grace
        if self.life is not None:
            self.life.stop_starting()
        while (life := self.life) is not None and self._clock.monotonic() < deadline:
            pause = self.step(leaving=True)
            # If the lease was lost in this turn, there is nothing left to release.
            if self.life is not life or (life.workload.quiet() and self._released()):
                break
            self.inbox.wake.wait(max(FIRST_RETRY_PAUSE_SECONDS / 10, min(pause, deadline - self._clock.monotonic())))
        if self.life is not None:
            # Running tasks are handed over with their shards. If the store is away, the lease runs out instead.
            if not self.life.released:
                self._released()
            self.life.close()
        if self.session is not None:
            self.session.close()
        self.life = self.session = None

    def _released(self) -> bool:
        """Try to release everything; log errors of the store. Return whether the member record is deleted."""
        assert self.life is not None
        try:
            return self.life.release()
        except BackendClosedError:
            raise
        except BackendError as error:
            log.warning("%s could not leave the group yet: %s", self.life.name, error)
            return False
