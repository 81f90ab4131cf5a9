"""Trying again: only what certainly did not happen, and not for ever."""

from collections.abc import Callable

import pytest
from tenacity import stop_after_attempt

from smoothcluster.clock import Clock, Signal
from smoothcluster.errors import BackendClosedError, BackendError, OutcomeUnknownError, UnavailableError
from smoothcluster.retry import patiently


class Sleepless(Clock):
    """A clock on which no wait takes time; it notes how long they would have been."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """Always the same."""
        return 0.0

    def wall(self) -> float:
        """Always the same."""
        return 0.0

    def signal(self) -> Signal:
        """Not needed."""
        raise AssertionError("it sleeps")

    def sleep(self, seconds: float) -> None:
        """Note how long."""
        self.slept.append(seconds)


def failing(times: int, error: type[BackendError] = UnavailableError) -> Callable[[], str]:
    """What succeeds after so many failures."""
    left = [error()] * times

    def act() -> str:
        if left:
            raise left.pop()
        return "done"

    return act


def test_what_was_not_sent_is_tried_again() -> None:
    """After pauses that are random and no longer than a second."""
    clock = Sleepless()
    assert patiently(clock, 1e9, failing(12)) == "done"
    assert len(clock.slept) == 12
    assert all(0 <= pause <= 1 for pause in clock.slept)
    assert len(set(clock.slept)) > 6


def test_what_may_have_happened_is_not_tried_again() -> None:
    """Whoever asked must read first."""
    with pytest.raises(OutcomeUnknownError):
        patiently(Sleepless(), 1e9, failing(1, OutcomeUnknownError))


def test_patience_ends() -> None:
    """The last error escapes, as it is."""
    with pytest.raises(UnavailableError):
        patiently(Sleepless(), 0.0, failing(1))


def test_a_caller_may_end_it_sooner() -> None:
    """With a rule of its own."""
    clock = Sleepless()
    with pytest.raises(UnavailableError):
        patiently(clock, 1e9, failing(9), stop_after_attempt(3))
    assert len(clock.slept) == 2


def test_a_closed_backend_is_not_asked_again() -> None:
    """It never comes back, so there is nothing to wait for."""
    clock = Sleepless()
    with pytest.raises(BackendClosedError):
        patiently(clock, 3600.0, failing(1, BackendClosedError))
    assert clock.slept == []
