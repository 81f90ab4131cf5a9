"""Handlers are told to finish when the member leaves, or may have lost its lease."""

import threading

import pytest

from smoothcluster.member.stopping import Stopping
from smoothcluster.memory import MemoryBackend, MemoryStore
from smoothcluster.recipes.session import Session
from smoothcluster.testing import HeldClock, eventually

TTL = 10.0


@pytest.fixture
def clock() -> HeldClock:
    """Time moves by hand."""
    return HeldClock()


@pytest.fixture
def session(clock: HeldClock) -> Session:
    """A lease that nobody renews but the test."""
    return Session(MemoryBackend(MemoryStore(clock=clock)), TTL, clock)


def test_it_is_not_set_while_the_member_works(session: Session, clock: HeldClock) -> None:
    """And waiting for no time at all tells so."""
    stopping = Stopping(session, clock)
    assert (stopping.is_set(), stopping.wait(0)) == (False, False)


def test_it_is_set_for_good_when_the_member_leaves(session: Session, clock: HeldClock) -> None:
    """A wait returns at once."""
    stopping = Stopping(session, clock)
    stopping.set()
    assert (stopping.is_set(), stopping.wait()) == (True, True)


@pytest.mark.promise(4)
def test_it_is_set_while_the_lease_is_not_certainly_held(session: Session, clock: HeldClock) -> None:
    """By our own clock, before anybody says so."""
    stopping = Stopping(session, clock)
    clock.advance(TTL)
    assert (stopping.is_set(), stopping.wait(5)) == (True, True)


def waiter(stopping: Stopping, timeout: float | None) -> tuple[threading.Thread, list[bool]]:
    """A handler that waits."""
    told: list[bool] = []
    thread = threading.Thread(target=lambda: told.append(stopping.wait(timeout)), daemon=True)
    thread.start()
    return thread, told


def test_a_waiting_handler_is_woken_when_the_member_leaves(session: Session, clock: HeldClock) -> None:
    """It need not poll."""
    stopping = Stopping(session, clock)
    thread, told = waiter(stopping, None)
    eventually(lambda: clock.waiting == 1)
    stopping.set()
    thread.join(30)
    assert told == [True]


def test_a_renewal_moves_the_end_on(session: Session, clock: HeldClock) -> None:
    """A handler that waits is told when the lease may have run out, not when it once might have."""
    thread, told = waiter(Stopping(session, clock), None)
    eventually(lambda: clock.waiting == 1)
    clock.advance(TTL / 2)
    session.renew_once()
    clock.advance(TTL / 2)
    eventually(lambda: clock.waiting == 1)
    assert told == []
    clock.advance(TTL / 2)
    thread.join(30)
    assert told == [True]


def test_a_wait_ends_with_its_time(session: Session, clock: HeldClock) -> None:
    """It tells that nothing has happened."""
    thread, told = waiter(Stopping(session, clock), 2.0)
    eventually(lambda: clock.waiting == 1)
    clock.advance(2.0)
    thread.join(30)
    assert told == [False]
