"""The lifetime of a client: one process, from the construction to the close."""

import logging
import os
import sys
import threading
from collections.abc import Callable

import pytest

from smoothcluster.errors import BackendClosedError, UnavailableError, UsageError
from smoothcluster.lifetime import ClientLifetime, OwnProcess, current_process, keep_alive, notify_all
from smoothcluster.testing.conformance.forks import WAYS_TO_FORK, in_forked_child


class Client:
    """What has a lifetime."""


@pytest.fixture
def lifetime() -> ClientLifetime:
    """The lifetime of a client that is in use."""
    return ClientLifetime(Client(), "memory://x")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Go on in another process, as far as can be seen; a real fork is in the conformance kit."""
    return lambda: monkeypatch.setattr(os, "getpid", lambda: 0)


def test_a_client_in_use_passes(lifetime: ClientLifetime) -> None:
    """In its own process, and until it is closed, every call may begin."""
    lifetime.check()
    lifetime.check_process()
    assert lifetime.in_own_process
    assert not lifetime.closed


def test_a_closed_client_is_refused(lifetime: ClientLifetime) -> None:
    """The error names the store; it is an UnavailableError for those who know no better."""
    assert lifetime.end()
    assert lifetime.closed
    with pytest.raises(BackendClosedError, match="this client of memory://x is closed"):
        lifetime.check()
    lifetime.check_process()
    assert issubclass(BackendClosedError, UnavailableError)


def test_another_process_is_refused(lifetime: ClientLifetime, elsewhere: Callable[[], None]) -> None:
    """The error names both processes and the way out; an end there ends nothing, and calls nobody."""
    called: list[str] = []
    lifetime.on_close(lambda: called.append("told"))
    mine = os.getpid()
    elsewhere()
    for call in (lifetime.check, lifetime.check_process, lambda: lifetime.on_close(lambda: None)):
        with pytest.raises(UsageError, match=f"process {mine}, and cannot be used in process 0.*make the backend in"):
            call()
    assert not lifetime.in_own_process
    assert not lifetime.end()
    assert (lifetime.closed, called) == (False, [])


def test_the_end_is_told_once_to_everybody(lifetime: ClientLifetime) -> None:
    """Each callback is called once, at once if it comes late; one that was cancelled, never."""
    called: list[str] = []
    lifetime.on_close(lambda: called.append("first"))
    cancel = lifetime.on_close(lambda: called.append("cancelled"))
    cancel()
    cancel()
    lifetime.on_close(lambda: called.append(f"closed: {lifetime.closed}"))
    assert called == []
    assert lifetime.end()
    assert lifetime.end()
    assert sorted(called) == ["closed: True", "first"]
    lifetime.on_close(lambda: called.append("late"))()
    assert called[2:] == ["late"]


def test_whoever_comes_at_the_moment_of_the_end_is_told() -> None:
    """A callback that is registered while another thread closes is called by one of the two, and once."""
    for _ in range(200):
        lifetime, called = ClientLifetime(Client(), "x"), list[int]()
        barrier = threading.Barrier(2)

        def close(lifetime: ClientLifetime = lifetime, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            lifetime.end()

        thread = threading.Thread(target=close)
        thread.start()
        barrier.wait()
        for number in range(20):
            lifetime.on_close(lambda number=number, called=called: called.append(number))  # type: ignore[misc]  # mypy cannot infer a lambda's default
        thread.join()
        assert sorted(called) == list(range(20))


def test_a_callback_that_fails_is_logged(lifetime: ClientLifetime, caplog: pytest.LogCaptureFixture) -> None:
    """The others are called, and the close goes on."""
    called: list[str] = []

    def fail() -> None:
        raise ZeroDivisionError

    lifetime.on_close(fail)
    lifetime.on_close(lambda: called.append("told"))
    with caplog.at_level(logging.ERROR):
        assert lifetime.end()
        notify_all([fail, lambda: called.append("woken")])
    assert called == ["told", "woken"]
    assert [record.exc_info is not None for record in caplog.records] == [True, True]


def test_the_check_takes_no_lock(lifetime: ClientLifetime, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock may be held by a thread that the child does not have. So no lock is made, and none can be taken."""
    own = OwnProcess("this")
    held = [value for each in (lifetime, own) for value in vars(each).values() if hasattr(value, "acquire")]
    assert held == []


def test_every_child_is_another_process() -> None:
    """Also a child whose number is that of its parent, as in another PID namespace."""
    mine = current_process()
    said = in_forked_child(WAYS_TO_FORK["os.fork"], lambda: str(current_process()[1] - mine[1]))
    assert said == "1"


def test_what_is_kept_alive_is_never_destroyed() -> None:
    """No name is left, and the object is there."""
    ended: list[str] = []

    class Kept:
        def __del__(self) -> None:
            ended.append("kept")

    class Dropped:
        def __del__(self) -> None:
            ended.append("dropped")

    kept, dropped = Kept(), Dropped()
    before = sys.getrefcount(kept)
    keep_alive(kept)
    assert sys.getrefcount(kept) == before + 1
    del kept, dropped
    assert ended == ["dropped"]
