"""A member of a group through all its incarnations, as one loop.

One thread owns it. Others only ring its bell: watches, the prober that notices dead processes,
the pool when tasks have finished, and whoever asks it to leave.

While the store is away the loop goes on collecting outcomes. They wait in memory, no more of
them than tasks were marked as running, and are committed when the store is back. When the lease
is lost the incarnation ends, with all it held, and the loop joins anew under the same name.
"""

import logging
from collections import deque

from smoothcluster.backend import CoordinationBackend
from smoothcluster.errors import (
    BackendError,
    LeaseLostError,
    MisplacedKeyError,
    NameInUseError,
    OutcomeUnknownError,
)
from smoothcluster.group.joining import try_join
from smoothcluster.group.reading import parse_spec
from smoothcluster.member.environment import Environment
from smoothcluster.member.incarnation import Incarnation
from smoothcluster.member.settings import Settings
from smoothcluster.model import Role
from smoothcluster.pool import Run
from smoothcluster.recipes.session import Session
from smoothcluster.records.group import Member
from smoothcluster.records.keys import Keys

log = logging.getLogger("smoothcluster")

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
"""Seconds without asking a store that is away: doubled each time."""

AGAIN = 60.0
"""Seconds after which it is said once more that the store is away, if there is nothing new to say."""


class MemberLoop:
    """One member."""

    def __init__(self, backend: CoordinationBackend, settings: Settings, environment: Environment) -> None:
        settings.wanted.check()
        self.life: Incarnation | None = None
        self.name: str | None = None
        """Once joined, for good."""
        self.working = False
        """Whether `run` is under way."""
        self.wake = environment.clock.signal()
        self.pool = environment.make_pool(self._ring, self._may_start)
        self._backend, self._settings, self._environment = backend.for_group(settings.group), settings, environment
        self._clock = environment.clock
        self._keys = Keys(settings.group)
        self.session: Session | None = None
        self._incarnation = ""
        self._ended: tuple[str, str] | None = None
        """The incarnation before, and why it is over, until that is told."""
        self._running = False
        self._leaving = environment.clock.signal()
        self._proofs: deque[tuple[str, float]] = deque()
        self._away_until, self._pause = 0.0, FIRST_PAUSE
        self._away, self._say_again = "", 0.0
        """Why the store is away, as was told; empty while it is not."""

    # For others to call, from any thread

    def proved_gone(self, incarnation: str, after: float = 0.0) -> None:
        """A member's process is dead, as was known *after* seconds of looking into it."""
        self._proofs.append((incarnation, after))
        self.wake.set()

    def ask_to_leave(self) -> None:
        """Have `run` return: nothing new is started, and what runs gets the grace period."""
        self._leaving.set()
        self.wake.set()

    def _ring(self) -> None:
        """Called for every finished task, so it takes no lock if the bell rings already."""
        if not self.wake.is_set():
            self.wake.set()

    def _may_start(self, _: Run) -> bool:
        return self.session is not None and self.session.held() and not self._leaving.is_set()

    @property
    def role(self) -> Role | None:
        """By the last look; None before the first."""
        return self.life.role() if self.life is not None and self.life.view is not None else None

    # Joining

    def try_join(self) -> bool:
        """Try once to become a member; False if somebody was faster.

        Raise NameInUseError or SpecMismatchError if the group as it is does not take us, and
        any BackendError.
        """
        if self.session is None or self.session.lost.is_set():
            self.session = Session(self._backend, self._settings.lease_ttl, self._clock)
            self.session.on_lost(self.wake.set)
            self._incarnation = self._environment.new_id()
            self._environment.keep_alive(self.session)
        wanted = self._settings.wanted if self.name is None else self._settings.wanted.rejoining(self.name)
        host, port = self._environment.address
        card = Member(
            wanted.name, self._incarnation, 0, self._environment.host, self._environment.pid, host, port,
            self._settings.concurrency, self._running, None, "", self._settings.capacity,
            apart=self._environment.apart.able is not False,
        )  # fmt: skip
        me = try_join(
            self._backend, self._keys, wanted, card, self.session.lease, self._environment.new_id, self._report
        )
        spec = parse_spec(self._backend.get(self._keys.spec)) if me is not None else None
        if me is None or spec is None:
            return False
        self.name = me.record.name
        self._environment.announce(self._settings.group, self.name, self._incarnation)
        self.life = Incarnation(
            self._backend, self._keys, self._settings, self._environment, self.session, me, spec.record.shards,
            self.pool, self.wake, self._report,
        )  # fmt: skip
        if self._ended is not None:
            self.life.events.add("lease_lost", incarnation=self._ended[0], why=self._ended[1])
            self._ended = None
        self.life.events.add("joined", incarnation=self._incarnation)
        return True

    def settle(self) -> Role:
        """Take a seat if one is ours to take, and say what we are. Raise any BackendError."""
        assert self.life is not None, "join first"
        while True:
            self.life.look()
            if self.life.settled:
                return self.life.role()

    def recover(self, error: OutcomeUnknownError | LeaseLostError) -> None:
        """Begin anew, or look again, after an *error* of joining or settling."""
        if isinstance(error, LeaseLostError):
            self._end(str(error))
        elif self.life is not None:
            self.life.unsure()

    def _report(self, key: str, what: str) -> None:
        log.warning("garbage at %s: %s", key, what)
        if self.life is not None:
            self.life.events.garbage(key, what)

    # The loop

    def run(self) -> None:
        """Work until asked to leave, then leave. Raise SpecMismatchError if the group will not have us back."""
        self.working = self._running = True
        try:
            while not self._leaving.is_set():
                self.wake.wait(self.step())
            self._leave()
        finally:
            self.working = False

    def step(self, *, leaving: bool = False) -> float:
        """One turn; return for how many seconds nothing need be done unless `wake` is set."""
        self.wake.clear()
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
        except MisplacedKeyError as error:
            self._report(error.key, error.what)
            return self._stay_away()
        except BackendError as error:
            self._tell_away(str(error))
            if self.life is not None and isinstance(error, OutcomeUnknownError):
                self.life.unsure()
            return self._stay_away()
        self._away_until, self._pause = 0.0, FIRST_PAUSE
        if self._away:
            log.warning("the store is back")
            self._away = ""
        if self.life is None or self.wake.is_set():
            return 0.0
        return max(0.0, self.life.next_time() - self._clock.monotonic())

    def _turn(self, *, leaving: bool) -> None:
        if self.session is not None and self.session.lost.is_set():
            raise LeaseLostError("the lease has run out")
        if self.life is None and (leaving or not self.try_join()):
            return
        assert self.life is not None
        while self._proofs:
            self.life.proved_gone(*self._proofs.popleft())
        self.life.tell(running=self._running)
        self.life.turn(leaving=leaving)

    def _tell_away(self, why: str) -> None:
        now = self._clock.monotonic()
        if why != self._away or now >= self._say_again:
            log.warning("the store is away: %s", why)
            self._away, self._say_again = why, now + AGAIN

    def _stay_away(self) -> float:
        self._away_until = self._clock.monotonic() + self._pause
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return pause

    def _end(self, why: str) -> None:
        """This incarnation is over: let go of all it had, and begin again."""
        life, self.life = self.life, None
        session, self.session = self.session, None
        if life is not None:
            log.warning("%s: incarnation %s has ended: %s", life.name, life.id, why)
            self._ended = (life.id, why)
            life.close()
        if session is not None:
            session.close()

    # Leaving

    def _leave(self) -> None:
        """Start nothing more, give what runs the grace period, record it, and let go of everything."""
        deadline = self._clock.monotonic() + self._settings.grace
        if self.life is not None:
            self.life.stop_starting()
        while (life := self.life) is not None and self._clock.monotonic() < deadline:
            pause = self.step(leaving=True)
            if self.life is not life or (life.workload.quiet() and self._released()):
                break
            self.wake.wait(max(FIRST_PAUSE / 10, min(pause, deadline - self._clock.monotonic())))
        if self.life is not None:
            # What still runs is handed over as it is. Without a store, the lease runs out by itself.
            if not self.life.released:
                self._released()
            self.life.close()
        if self.session is not None:
            self.session.close()
        self.life = self.session = None

    def _released(self) -> bool:
        """Try to let go of everything; whether that is done."""
        assert self.life is not None
        try:
            return self.life.release()
        except BackendError as error:
            log.warning("%s could not sign off yet: %s", self.life.name, error)
            return False
