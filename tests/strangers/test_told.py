"""What waits is told: when the backend is closed under it, and when nobody keeps its lease alive."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import count
from typing import final

import pytest

from smoothcluster import Cluster, ClusterCrawler, Task, TaskContext, connect
from smoothcluster.backend import CoordinationBackend
from smoothcluster.errors import LeaseLostError, UnavailableError
from smoothcluster.recipes import Lock, Session
from smoothcluster.testing import eventually

PATIENCE = 60.0
"""Seconds after which a thread counts as never told."""

names = (f"told-{number}" for number in count())


@final
class Waiter(threading.Thread):
    """A call in a thread of its own, and what it came to."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.error: BaseException | None = None
        self.returned: object = None
        self.start()

    def run(self) -> None:
        """Make the call."""
        try:
            self.returned = self._call()
        except BaseException as error:  # noqa: BLE001  # handed to the test
            self.error = error

    def told(self) -> BaseException | None:
        """The error with which the call has ended."""
        self.join(PATIENCE)
        assert not self.is_alive(), "still waiting"
        return self.error


def is_told_of_the_close(waiter: Waiter) -> None:
    """The call has ended, and its error says why."""
    error = waiter.told()
    assert isinstance(error, UnavailableError), (error, waiter.returned)
    assert "closed" in str(error)


@pytest.fixture
def group() -> str:
    """The name of a group that no other test has."""
    return f"{next(names)}-{threading.get_native_id()}"


@pytest.fixture
def backend(store: str) -> Iterator[CoordinationBackend]:
    """The backend that is closed under those who wait."""
    with closing(connect(store)) as backend:
        yield backend


@pytest.fixture
def other(store: str) -> Iterator[CoordinationBackend]:
    """A client that goes on."""
    with closing(connect(store)) as backend:
        yield backend


@pytest.fixture
def held(other: CoordinationBackend, group: str) -> Iterator[str]:
    """A lock that somebody holds for as long as the test takes."""
    part = other.for_group(group)
    holder = Session(part, 60.0)
    holder.start()
    assert Lock(part, holder, f"{group}/lock").acquire(timeout=PATIENCE)
    yield f"{group}/lock"
    holder.close()


@pytest.mark.parametrize("through", ["the whole", "the part", "another part"])
@pytest.mark.parametrize("started", [True, False], ids=["started", "not started"])
def test_closing_ends_the_wait_for_a_lock(
    backend: CoordinationBackend, other: CoordinationBackend, group: str, held: str, through: str, *, started: bool
) -> None:
    """Whichever part is closed, and whether or not somebody renews the lease of the waiter."""
    session = Session(backend.for_group(group), 60.0)
    if started:
        session.start()
    waiter = Waiter(Lock(backend.for_group(group), session, held).acquire)
    eventually(lambda: len(other.for_group(group).keys(held)) == 2, within=PATIENCE)
    {"the whole": backend, "the part": backend.for_group(group)}.get(through, backend.for_group(f"{group}-2")).close()
    is_told_of_the_close(waiter)


@pytest.mark.parametrize("through", ["the whole", "the part", "another part"])
@pytest.mark.parametrize("started", [True, False], ids=["started", "not started"])
def test_closing_ends_a_session(backend: CoordinationBackend, group: str, through: str, *, started: bool) -> None:
    """`lost` is set at once, for all who wait for it; the session is not held, and closing it is harmless."""
    session = Session(backend.for_group(group), 60.0)
    if started:
        session.start()
    called = threading.Event()
    session.on_lost(called.set)
    waiter = Waiter(session.lost.wait)
    {"the whole": backend, "the part": backend.for_group(group)}.get(through, backend.for_group(f"{group}-2")).close()
    assert session.lost.is_set()
    assert called.is_set()
    assert not session.held()
    assert (waiter.told(), waiter.returned) == (None, True)
    session.close()


def short_session(backend: CoordinationBackend, group: str) -> Session:
    """A session that nobody renews, with a short lease."""
    return Session(backend.for_group(group), 1.0)


def test_a_lease_that_nobody_renews_ends_the_wait_for_a_lock(
    backend: CoordinationBackend, group: str, held: str
) -> None:
    """A session that was never started loses its lease in the queue: its waiter is told then, whatever its timeout."""
    session = short_session(backend, group)
    waiter = Waiter(partial(Lock(backend.for_group(group), session, held).acquire, timeout=3600.0))
    assert isinstance(waiter.told(), LeaseLostError)
    assert session.lost.is_set()


def test_a_lease_that_nobody_renews_sets_lost(backend: CoordinationBackend, group: str) -> None:
    """Who waits for the loss of a session that was never started hears of it, though no thread renews the lease."""
    session = short_session(backend, group)
    waiter = Waiter(session.lost.wait)
    assert (waiter.told(), waiter.returned) == (None, True)
    assert not session.held()


def test_closing_wakes_every_watch(backend: CoordinationBackend, group: str) -> None:
    """Its owner looks, and learns from the error; a watch is not left behind, nor are those of the parts."""
    woken = [threading.Event() for _ in range(3)]
    backend.watch(f"{group}/a", woken[0].set)
    backend.for_group(group).watch(f"{group}/a", woken[1].set, values=False)
    backend.for_group(group).watch(group, woken[2].set)
    backend.for_group(group).get(f"{group}/a")
    for each in woken:
        each.clear()
    backend.close()
    assert all(each.wait(PATIENCE) for each in woken)


def idle(task: Task, context: TaskContext) -> None:
    """A handler with nothing to do."""


def test_closing_ends_the_wait_for_a_job(backend: CoordinationBackend, group: str) -> None:
    """A client that waits for a job is told, and does not try again for as long as its patience."""
    job = Cluster(backend, group, patience=3600.0).submit([Task(id="a")])
    waiter = Waiter(job.wait)
    backend.close()
    is_told_of_the_close(waiter)


def crawler(backend: CoordinationBackend, group: str, *, join: bool = True) -> ClusterCrawler:
    """A member without work."""
    return ClusterCrawler(backend=backend, group=group, runner=1, handler=idle, name="one", grace=3600.0, join=join)


def test_closing_ends_a_member_in_run(backend: CoordinationBackend, group: str) -> None:
    """`run` cannot go on, and does not retry for ever: it ends with the error."""
    member = crawler(backend, group)
    waiter = Waiter(member.run)
    eventually(lambda: member.role is not None)
    backend.close()
    is_told_of_the_close(waiter)


def test_closing_ends_a_member_in_the_background(backend: CoordinationBackend, group: str) -> None:
    """Its thread ends by itself, and `stop` raises the error; it does not wait for the grace period."""
    member = crawler(backend, group).start()
    backend.close()
    is_told_of_the_close(Waiter(member.stop))
    assert Waiter(member.stop).told() is None


def test_closing_ends_a_member_that_waits_for_its_name(
    backend: CoordinationBackend, other: CoordinationBackend, group: str
) -> None:
    """The constructor waits for a name that somebody has; it is told, too."""
    with crawler(other, group):
        waiter = Waiter(partial(crawler, backend, group))
        backend.close()
        is_told_of_the_close(waiter)


def test_a_member_that_never_ran_leaves_with_the_error(backend: CoordinationBackend, group: str) -> None:
    """`stop` after the close says that the member could not leave its group, and does not wait."""
    member = crawler(backend, group)
    backend.close()
    is_told_of_the_close(Waiter(member.stop))
