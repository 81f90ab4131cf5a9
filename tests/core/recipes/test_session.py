"""A session never believes in its lease for longer than the store has it."""

import gc
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, cast, final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcluster.backend import CoordinationBackend, Create, Lease
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import (
    AccessDeniedError,
    BackendClosedError,
    LeaseLostError,
    OutcomeUnknownError,
    UnavailableError,
    UsageError,
)
from smoothcluster.memory import WEAKEST, MemoryBackend, MemoryStore
from smoothcluster.recipes.session import LeaseState, Session
from smoothcluster.testing import HeldClock, eventually

TTL = 12.0

Fate = Literal["answered", "answer lost", "not sent", "denied"]


@final
@dataclass
class Connection:
    """Grants leases of a store in memory, over a connection that takes its time and may fail."""

    clock: HeldClock = field(default_factory=HeldClock)
    fate: Fate = "answered"
    going: float = 0.0
    """Seconds that a request takes to arrive."""
    coming: float = 0.0
    """Seconds that its answer takes."""
    renewals: list[float] = field(default_factory=list[float])
    """When each attempt to renew was made."""

    def __post_init__(self) -> None:
        self.store = MemoryStore(clock=self.clock)
        self.clock.listeners.append(self.store.expire)
        self.backend = MemoryBackend(self.store)

    def session(self) -> Session:
        """A session over this connection."""
        return Session(cast("CoordinationBackend", self), TTL, self.clock)

    def lease(self, ttl: float) -> Lease:
        """As a backend has it."""
        self.clock.advance(self.going)
        lease = self.backend.lease(ttl)
        self.clock.advance(self.coming)
        return _Lease(self, lease)

    @property
    def url(self) -> str:
        """As a backend has it."""
        return self.backend.url

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """As a backend has it."""
        return self.backend.on_close(callback)

    @property
    def has_lease(self) -> bool:
        """Whether the store has a lease now."""
        self.store.expire()
        return self.store.next_expiry() is not None


@final
@dataclass
class _Lease(Lease):
    connection: Connection
    inner: Lease

    @property
    def id(self) -> str:
        return self.inner.id

    @property
    def ttl(self) -> float:
        return self.inner.ttl

    def renew(self) -> bool:
        connection = self.connection
        connection.renewals.append(connection.clock.monotonic())
        fate = connection.fate
        if fate in ("not sent", "denied"):
            raise UnavailableError if fate == "not sent" else AccessDeniedError
        if connection.going:
            connection.clock.advance(connection.going)
        answer = self.inner.renew()
        if connection.coming:
            connection.clock.advance(connection.coming)
        if fate == "answer lost":
            raise OutcomeUnknownError
        return answer

    def revoke(self) -> None:
        if self.connection.fate == "not sent":
            raise UnavailableError
        self.inner.revoke()


@pytest.fixture
def connection() -> Connection:
    """A connection to a new store."""
    return Connection()


@pytest.mark.promise(4)
def test_it_is_held_for_the_time_granted_from_before_it_was_asked_for(connection: Connection) -> None:
    """The deadline counts from before the request was sent: nobody knows when the store began to count."""
    start = connection.clock.monotonic()
    connection.going, connection.coming = 2.0, 3.0
    session = connection.session()
    assert session.deadline == start + TTL
    assert (session.held(), session.state) == (True, LeaseState.HELD)
    connection.clock.advance(TTL - 5 - 0.001)
    assert session.held()
    connection.clock.advance(0.001)
    assert not session.held()
    assert connection.has_lease


def test_the_time_is_what_was_granted_not_what_was_asked_for() -> None:
    """A store that grants more, or less, is believed."""
    clock = HeldClock()
    for guarantees, granted in (
        (replace(WEAKEST, shortest_ttl=20.0), 20.0),
        (replace(WEAKEST, longest_ttl=2.0), 2.0),
    ):
        session = Session(MemoryBackend(clock=clock, guarantees=guarantees), TTL, clock)
        assert session.ttl == session.lease.ttl == granted
        assert session.deadline == clock.monotonic() + granted


@pytest.mark.promise(4)
def test_a_renewal_counts_from_before_it_was_sent(connection: Connection) -> None:
    """After a renewal the deadline is the moment before sending it, and the time granted."""
    session = connection.session()
    connection.clock.advance(5)
    before = connection.clock.monotonic()
    connection.going, connection.coming = 1.0, 4.0
    assert session.renew_once() is LeaseState.RENEWED
    assert session.deadline == before + TTL
    assert (session.held(), session.state) == (True, LeaseState.RENEWED)


@pytest.mark.promise(4)
@pytest.mark.parametrize("fate", ["answer lost", "not sent", "denied"])
def test_a_failed_renewal_gives_no_time(connection: Connection, fate: Fate) -> None:
    """Whatever went wrong, the deadline stays; until then the lease is held, after it unknown; it is not lost."""
    session = connection.session()
    deadline = session.deadline
    connection.fate = fate
    connection.clock.advance(5)
    assert session.renew_once() is LeaseState.UNKNOWN
    assert session.deadline == deadline
    assert session.held()
    connection.clock.advance(TTL - 5)
    assert (session.held(), session.state, session.lost.is_set()) == (False, LeaseState.UNKNOWN, False)


@pytest.mark.promise(4)
def test_time_that_runs_out_unnoticed_ends_it(connection: Connection) -> None:
    """A process that did nothing at all, being paused, finds its lease not held when it wakes."""
    session = connection.session()
    session.renew_once()
    connection.clock.advance(TTL)
    assert (session.held(), session.state, session.lost.is_set()) == (False, LeaseState.UNKNOWN, False)


def test_a_lease_thought_over_may_be_held_after_all(connection: Connection) -> None:
    """If the store still has it after the deadline, a renewal makes it held again: the store is the judge."""
    connection.going = 3.0
    session = connection.session()
    connection.going = 0.0
    connection.clock.advance(TTL - 3)
    assert not session.held()
    assert session.renew_once() is LeaseState.RENEWED
    assert session.held()


def test_a_lease_the_store_has_ended_is_lost(connection: Connection) -> None:
    """When the store says so it is lost at once, before its deadline, for good, and is not asked for again."""
    session = connection.session()
    connection.store.end(session.lease.id)
    assert session.held()
    assert session.renew_once() is LeaseState.LOST
    assert (session.held(), session.state, session.lost.is_set()) == (False, LeaseState.LOST, True)
    assert session.renew_once() is LeaseState.LOST
    assert len(connection.renewals) == 1


def test_a_loss_heard_of_elsewhere_counts(connection: Connection) -> None:
    """`lose` ends it: a commit may be the first to be told."""
    session = connection.session()
    session.lose()
    assert (session.held(), session.state) == (False, LeaseState.LOST)


def test_a_loss_calls_back_once(connection: Connection) -> None:
    """Each callback is called once: at the loss, at once if that was before; not if it was taken back."""
    session = connection.session()
    called: list[str] = []
    session.on_lost(lambda: called.append("kept"))
    undo = session.on_lost(lambda: called.append("taken back"))
    undo()
    undo()
    assert called == []
    session.lose()
    session.lose()
    assert called == ["kept"]
    session.on_lost(lambda: called.append("late"))()
    assert called == ["kept", "late"]


def test_closing_gives_the_lease_back(connection: Connection) -> None:
    """Its keys are gone when `close` returns; it is neither held nor renewed, and closing again is harmless."""
    session = connection.session()
    called: list[None] = []
    session.on_lost(lambda: called.append(None))
    connection.backend.commit([], [Create("a", b"", session.lease)])
    session.close()
    session.close()
    assert connection.backend.get("a") is None
    assert (session.held(), session.state, session.lost.is_set(), len(called)) == (False, LeaseState.LOST, True, 1)
    assert session.renew_once() is LeaseState.LOST
    assert connection.renewals == []


def test_closing_may_leave_the_lease_to_run_out(connection: Connection) -> None:
    """With revoke=False, or where the store cannot be told, it is not held, and runs out by itself."""
    for fate, revoke in (("answered", False), ("not sent", True)):
        connection.fate = cast("Fate", fate)
        session = connection.session()
        session.close(revoke=revoke)
        assert not session.held()
        assert connection.has_lease
        connection.clock.advance(TTL)
        assert not connection.has_lease


def _run(connection: Connection, session: Session) -> threading.Thread:
    """Keep *session* alive in a thread; return once it waits for the next renewal."""
    thread = threading.Thread(target=session.run, daemon=True)
    thread.start()
    eventually(lambda: connection.clock.waiting == 1)
    return thread


def _step(connection: Connection, seconds: float) -> None:
    """Let *seconds* pass, in which one renewal falls due; return once the session waits again."""
    count = len(connection.renewals)
    connection.clock.advance(seconds)
    eventually(lambda: len(connection.renewals) == count + 1 and connection.clock.waiting == 1)


def test_running_renews_every_third_of_the_time(connection: Connection) -> None:
    """Two renewals in a row may fail before the time is over."""
    session = connection.session()
    start = connection.clock.monotonic()
    thread = _run(connection, session)
    for _ in range(9):
        _step(connection, TTL / 3)
    assert connection.renewals == [start + TTL / 3 * number for number in range(1, 10)]
    assert connection.has_lease
    assert session.state is LeaseState.RENEWED
    session.close()
    thread.join(30)
    assert not thread.is_alive()


def test_running_does_not_renew_early(connection: Connection) -> None:
    """Before a third of the time is over the store is left in peace."""
    session = connection.session()
    _run(connection, session)
    connection.clock.advance(TTL / 3 - 0.01)
    eventually(lambda: connection.clock.waiting == 1)
    assert connection.renewals == []
    _step(connection, 0.01)
    session.close()


def test_running_tries_sooner_while_the_store_is_away(connection: Connection) -> None:
    """After a failure it tries every twelfth of the time, until it succeeds: then every third again."""
    session = connection.session()
    _run(connection, session)
    connection.fate = "not sent"
    _step(connection, TTL / 3)
    _step(connection, TTL / 12)
    connection.fate = "answered"
    _step(connection, TTL / 12)
    assert session.state is LeaseState.RENEWED
    connection.clock.advance(TTL / 12)
    eventually(lambda: connection.clock.waiting == 1)
    assert len(connection.renewals) == 3
    session.close()


def test_running_ends_when_the_lease_is_lost(connection: Connection) -> None:
    """There is nothing left to keep alive."""
    session = connection.session()
    thread = _run(connection, session)
    connection.store.end(session.lease.id)
    connection.clock.advance(TTL / 3)
    thread.join(30)
    assert not thread.is_alive()
    assert session.lost.is_set()


def test_starting_runs_in_a_thread() -> None:
    """On the machine's clock a started session outlives the time first granted, until it is closed."""
    backend = MemoryBackend()
    session = Session(backend, 1.5)
    session.start()
    backend.commit([], [Create("a", b"", session.lease)])
    first = session.deadline
    eventually(lambda: SYSTEM_CLOCK.monotonic() > first)
    assert session.held()
    assert backend.get("a") is not None
    session.close()
    assert backend.get("a") is None


def _waiting(call: Callable[[], object]) -> Callable[[], object]:
    """Make *call* in a thread; the function returned waits for what it comes to."""
    outcome: list[object] = []
    thread = threading.Thread(target=lambda: outcome.append(call()), daemon=True)
    thread.start()

    def end() -> object:
        thread.join(30)
        return outcome[0]

    return end


def test_it_ends_with_its_backend(connection: Connection) -> None:
    """Nobody can renew the lease any more: it is lost at once, whether or not it was started, and says why."""
    session = connection.session()
    called: list[LeaseState] = []
    session.on_lost(lambda: called.append(session.state))
    waiting = _waiting(session.lost.wait)
    eventually(lambda: connection.clock.waiting == 1)
    connection.backend.close()
    assert (session.held(), session.state, session.lost.is_set()) == (False, LeaseState.LOST, True)
    assert called == [LeaseState.LOST]
    assert waiting() is True
    assert isinstance(session.loss, BackendClosedError)
    assert "memory://(private) is closed" in str(session.loss)


def test_closed_at_the_moment_of_the_grant_it_is_lost(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session is made, and lost from the start."""

    def lease(ttl: float) -> Lease:
        granted = Connection.lease(connection, ttl)
        connection.backend.close()
        return granted

    monkeypatch.setattr(connection, "lease", lease)
    session = connection.session()
    assert session.lost.is_set()


def test_what_was_lost_before_the_close_keeps_its_reason(connection: Connection) -> None:
    """The backend is not to blame for what the store ended."""
    session = connection.session()
    connection.store.end(session.lease.id)
    session.renew_once()
    connection.backend.close()
    assert isinstance(session.loss, LeaseLostError)


def test_a_backend_keeps_no_session_that_was_dropped(connection: Connection) -> None:
    """Who forgets to close sessions loses memory only as long as it holds them."""
    session = weakref.ref(connection.session())
    gc.collect()
    assert session() is None
    connection.backend.close()


def test_who_waits_for_a_lease_that_nobody_renews_is_told(connection: Connection) -> None:
    """When its time is over, a session that was never started is closed by whoever waits, and says what was wrong."""
    session = connection.session()
    waiting = _waiting(lambda: session.lost.wait(1000 * TTL))
    eventually(lambda: connection.clock.waiting == 1)
    connection.clock.advance(TTL - 0.001)
    assert not session.lost.is_set()
    connection.clock.advance(0.001)
    assert waiting() is True
    assert not connection.has_lease
    assert isinstance(session.loss, LeaseLostError)
    assert "call Session.start" in str(session.loss)


def test_who_waits_for_less_than_the_lease_is_not_kept(connection: Connection) -> None:
    """A timeout is a timeout, and ends no session."""
    session = connection.session()
    waiting = _waiting(lambda: session.lost.wait(TTL / 2))
    eventually(lambda: connection.clock.waiting == 1)
    connection.clock.advance(TTL / 2)
    assert waiting() is False
    assert session.held()


@pytest.mark.parametrize("fate", ["answered", "not sent"])
def test_a_session_that_somebody_renews_by_hand_is_not_closed(connection: Connection, fate: Fate) -> None:
    """Each attempt to renew counts, also one that fails: the store may be back for the next."""
    session = connection.session()
    waiting = _waiting(lambda: session.lost.wait(10 * TTL))
    eventually(lambda: connection.clock.waiting == 1)
    connection.fate = fate
    for _ in range(5):
        connection.clock.advance(TTL / 2)
        session.renew_once()
        eventually(lambda: connection.clock.waiting == 1)
    assert not session.lost.is_set()
    session.close()
    assert waiting() is True


def test_a_session_started_while_somebody_waits_is_not_closed(connection: Connection) -> None:
    """What counts is whether somebody renews when the time is over. A store that is away for long changes nothing."""
    session = connection.session()
    waiting = _waiting(session.lost.wait)
    eventually(lambda: connection.clock.waiting == 1)
    thread = threading.Thread(target=session.run, daemon=True)
    thread.start()
    eventually(lambda: connection.clock.waiting == 2)
    connection.clock.advance(10 * TTL)  # As after a pause of the whole process: both threads are late.
    eventually(lambda: session.lost.is_set() or len(connection.renewals) == 1)
    assert "call Session.start" not in str(session.loss)
    session.close()
    assert waiting() is True
    thread.join(30)


def test_in_another_process_it_is_refused(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the session is not the session: nothing in the child may rely on it, renew it or end it."""
    session = connection.session()
    lost = session.lost
    monkeypatch.setattr(os, "getpid", lambda: 0)
    for call in (
        session.held,
        session.renew_once,
        session.run,
        session.start,
        session.lose,
        lost.wait,
        lambda: session.lost,
        lambda: session.state,
        lambda: session.on_lost(lambda: None),
    ):
        with pytest.raises(UsageError, match="forked: make backend and session in the child process"):
            call()
    session.close()
    monkeypatch.undo()
    assert session.held()
    assert connection.has_lease


@pytest.mark.promise(4)
@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["answered", "answered", "answer lost", "not sent"]),
            *[st.sampled_from([0.0, 0.1, 3.9, 4.0, 11.9, 12.0, 12.1, 30.0])] * 3,
        ),
        max_size=12,
    )
)
def test_whatever_happens_what_is_held_is_there(steps: list[tuple[Fate, float, float, float]]) -> None:
    """However long requests and answers take, and whichever fail: while `held` is true the store has the lease."""
    connection = Connection()
    session = connection.session()

    def check() -> None:
        assert connection.has_lease or not session.held()

    connection.clock.listeners.append(check)
    for connection.fate, connection.going, connection.coming, pause in steps:
        session.renew_once()
        check()
        connection.clock.advance(pause)
