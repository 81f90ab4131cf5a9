"""A crawler on real threads and sockets: roles at construction, takeover, leaving, and errors that help."""

# pyright: reportUnknownLambdaType=false
# Handlers that are refused need no types.

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import pytest
from core_kit import member, put

from smoothcluster.backend import Change, Committed, Condition, Delete, Refused
from smoothcluster.cluster import Cluster
from smoothcluster.crawler import ClusterCrawler
from smoothcluster.errors import (
    BackendClosedError,
    BackendError,
    GuaranteeError,
    LeaseLostError,
    NameInUseError,
    OutcomeUnknownError,
    SpecMismatchError,
    UnavailableError,
    UsageError,
)
from smoothcluster.memory import MemoryBackend, MemoryStore
from smoothcluster.model import Role, Task, TaskContext
from smoothcluster.records.group import Spec
from smoothcluster.testing import Faulty, eventually


def shout(task: Task, context: TaskContext) -> str:
    """What is done to each task."""
    return task.id.upper()


async def shout_later(task: Task, context: TaskContext) -> str:
    """The same, on an event loop."""
    return task.id.upper()


@pytest.fixture
def store() -> MemoryStore:
    """What all share."""
    return MemoryStore()


@pytest.fixture
def crawlers(store: MemoryStore) -> Iterator[Callable[..., ClusterCrawler]]:
    """Makes crawlers, and stops them in the end."""
    made: list[ClusterCrawler] = []

    def make(**settings: Any) -> ClusterCrawler:
        given: dict[str, Any] = {
            "backend": MemoryBackend(store),
            "runner": 1,
            "handler": shout,
            "grace": 5.0,
        }
        made.append(ClusterCrawler(**(given | settings)))
        return made[-1]

    yield make
    for crawler in made:
        crawler.stop()


Make = Callable[..., ClusterCrawler]


def collect(store: MemoryStore, count: int = 20, job: str = "j") -> set[str]:
    """Submit a job, wait for it, and return the values."""
    handle = Cluster(MemoryBackend(store)).submit([Task(id=f"{job}{number}") for number in range(count)], job)
    assert handle.wait(timeout=60).done == count
    return {str(outcome.value) for outcome in handle.results()}


def test_roles_are_settled_when_the_constructor_returns(crawlers: Make) -> None:
    """With the names filled in."""
    made = [crawlers(runner=1, backup=1) for _ in range(2)]
    assert [each.role for each in made] == [Role.RUNNER, Role.BACKUP_RUNNER]
    assert [each.name for each in made] == ["crawler_0", "crawler_1"]


@pytest.mark.parametrize("handler", [shout, shout_later], ids=["sync", "async"])
def test_tasks_are_done(store: MemoryStore, crawlers: Make, handler: object) -> None:
    """By a plain function in threads, or an async one on a loop."""
    crawlers(handler=handler).start()
    assert collect(store) == {f"J{number}" for number in range(20)}


def test_a_backup_takes_over_from_one_that_stops(store: MemoryStore, crawlers: Make) -> None:
    """And does the rest."""
    first, second = (crawlers(runner=1, backup=1).start() for _ in range(2))
    collect(store, job="one")
    first.stop()
    eventually(lambda: second.role is Role.RUNNER)
    collect(store, job="two")


def test_all_are_runners_without_a_backup(store: MemoryStore, crawlers: Make) -> None:
    """Both work."""
    made = [crawlers(runner=2).start() for _ in range(2)]
    assert [each.role for each in made] == [Role.RUNNER, Role.RUNNER]
    status = Cluster(MemoryBackend(store)).status
    eventually(lambda: [each["shards"] for each in status()["members"]] == [16, 16])
    collect(store, 200)


def test_as_a_context_manager_it_works_inside_and_leaves_at_the_end(store: MemoryStore, crawlers: Make) -> None:
    """Its name is free at once."""
    with crawlers() as crawler:
        collect(store)
        assert crawler.role is Role.RUNNER
    assert Cluster(MemoryBackend(store)).status()["members"] == []


def test_run_ends_when_another_thread_stops_it(store: MemoryStore, crawlers: Make) -> None:
    """Outside the main thread no signal does."""
    crawler = crawlers()
    thread = threading.Thread(target=crawler.run, daemon=True)
    thread.start()
    collect(store)
    crawler.stop()
    thread.join(30)
    assert not thread.is_alive()


def test_run_in_the_main_thread_ends_when_it_is_told_to(crawlers: Make) -> None:
    """And puts the signals' handlers back."""
    before = signal.getsignal(signal.SIGTERM)
    crawler = crawlers()
    threading.Timer(0.1, lambda: signal.raise_signal(signal.SIGTERM)).start()
    crawler.run()
    assert signal.getsignal(signal.SIGTERM) is before
    assert crawler.role is None


class Interrupted(threading.Event):
    """A bell at which a signal arrives while the main thread holds the bell's lock."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait as an event does."""
        with self._cond:  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
            signal.raise_signal(signal.SIGTERM)
        return super().wait(timeout)


def test_a_signal_may_come_at_any_moment(crawlers: Make) -> None:
    """Even while the main thread holds a lock that leaving needs: its handler takes none."""
    crawler = crawlers()
    crawler._process.inbox.wake = Interrupted()  # pyright: ignore[reportPrivateUsage]
    crawler.run()
    assert crawler.role is None


def test_without_join_it_joins_when_it_works(crawlers: Make) -> None:
    """Till then it has no name."""
    crawler = crawlers(join=False)
    assert (crawler.name, crawler.role) == (None, None)
    assert crawler.join() is Role.RUNNER
    assert crawler.join() is Role.RUNNER


def test_stopping_is_repeatable_and_for_good(crawlers: Make) -> None:
    """Who has left makes a new crawler."""
    crawler = crawlers()
    crawler.stop()
    crawler.stop()
    for act in (crawler.run, crawler.start, crawler.join):
        with pytest.raises(UsageError, match="left its group; make a new crawler"):
            act()


def test_starting_twice_is_starting_once(crawlers: Make) -> None:
    """One thread works."""
    crawler = crawlers().start()
    assert crawler.start() is crawler


BAD: list[tuple[dict[str, object], str]] = [
    ({"runner": 0}, "runner"),
    ({"backup": -1}, "backup"),
    ({"concurrency": 0}, "concurrency .* not 0"),
    ({"concurrency": True}, "concurrency"),
    ({"retries": 3}, r"retries must be Retries\(…\) or None, not 3"),
    ({"lease_ttl": 0}, "lease_ttl must be more than 0 seconds, not 0"),
    ({"lease_ttl": float("nan")}, "lease_ttl"),
    ({"grace": -1}, "grace must be 0 seconds or more, not -1"),
    ({"runner": 4097}, "runner must be at most 4096, not 4097"),
    ({"shards": 10**6}, "shards must be at most 16384"),
    ({"handler": None}, "handler"),
    (
        {"handler": lambda task: task},
        r"called with a task and a context, but has \(task\): too many positional arguments",
    ),
    ({"handler": lambda task, context, other: other}, "missing a required argument: 'other'"),
    ({"handler": lambda task, *, context: context}, "called with a task and a context"),
    ({"handler": lambda task, context: (yield task)}, "is a generator: return the outcome instead"),
    ({"group": "a/b"}, "group 'a/b'"),
    ({"name": ""}, "name"),
]


@pytest.mark.parametrize(("settings", "words"), BAD, ids=[str(settings) for settings, _ in BAD])
def test_arguments_that_make_no_sense_are_refused_by_name(
    store: MemoryStore, crawlers: Make, settings: dict[str, object], words: str
) -> None:
    """Before anything is written."""
    with pytest.raises(UsageError, match=words):
        crawlers(**settings)
    assert store.tree.entries == {}


class Secretive:
    """A handler that does not tell what it is called with, as some do that are written in C."""

    __signature__ = 3

    def __call__(self, task: Task, context: TaskContext) -> object:
        """Whatever it does."""


def test_a_handler_that_does_not_tell_is_believed(crawlers: Make) -> None:
    """It may well be one."""
    assert crawlers(handler=Secretive()).role is Role.RUNNER


def test_a_store_that_promises_too_little_is_refused(store: MemoryStore, crawlers: Make) -> None:
    """Before joining, with what it lacks and what was required."""
    with pytest.raises(GuaranteeError, match=r"memory://.*largest_value is \d+, at least 1000000000 is required"):
        crawlers(require={"largest_value": 10**9, "linearizable_writes": True})
    assert store.tree.entries == {}
    crawlers(require={"linearizable_writes": True, "largest_value": 1000, "shortest_ttl": 60})
    with pytest.raises(UsageError, match="'speed' is no guarantee; the guarantees are "):
        crawlers(require={"speed": 1})


def test_other_numbers_than_the_living_groups_are_refused(crawlers: Make) -> None:
    """The constructor raises."""
    crawlers(runner=1)
    with pytest.raises(SpecMismatchError, match=r"runner=1.*runner=2"):
        crawlers(runner=2)


def test_a_name_that_stays_taken_is_refused(crawlers: Make) -> None:
    """After waiting for it as long as a dead member's lease would take."""
    crawlers(name="x").start()
    with pytest.raises(NameInUseError, match="'x'"):
        crawlers(name="x", lease_ttl=0.01)


def test_a_store_that_is_away_is_an_error_of_the_constructor(store: MemoryStore, crawlers: Make) -> None:
    """There is no group to be seen."""
    faulty = Faulty(MemoryBackend(store))
    faulty.cut()
    with pytest.raises(UnavailableError):
        crawlers(backend=faulty)


def test_an_answer_lost_while_joining_is_looked_up(store: MemoryStore, crawlers: Make) -> None:
    """The member joins once."""
    faulty = Faulty(MemoryBackend(store))
    faulty.drop_answer("lease")
    faulty.drop_answer()
    crawler = crawlers(backend=faulty)
    assert crawler.role is Role.RUNNER
    assert len(Cluster(MemoryBackend(store)).status()["members"]) == 1


@pytest.mark.parametrize("commit", [1, 2], ids=["joining", "taking a seat"])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [LeaseLostError, OutcomeUnknownError])
def test_a_store_that_was_silent_while_a_member_joins_is_no_error(
    store: MemoryStore, crawlers: Make, monkeypatch: pytest.MonkeyPatch,
    commit: int, late: bool, error: type[BackendError],
) -> None:  # fmt: skip
    """Be it for longer than the lease, or than joining may take: its constructor joins anew."""
    monkeypatch.setattr(
        "smoothcluster.crawler.EXTRA_JOIN_SECONDS", -15.0 if late else 60.0
    )  # with its lease of ten seconds
    backend, number = MemoryBackend(store), count(1)
    inner = backend.commit

    def silent(conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        answer = inner(conditions, changes)
        if next(number) == commit:
            if error is LeaseLostError:
                backend.commit([], [Delete(key) for key in backend.keys("default/members")])
            raise error("silence")
        return answer

    monkeypatch.setattr(backend, "commit", silent)
    crawler = crawlers(backend=backend, backup=0)
    assert (crawler.name, crawler.role) == ("crawler_0", Role.RUNNER)
    assert len(Cluster(MemoryBackend(store)).status()["members"]) == 1


def test_a_store_that_loses_every_lease_is_an_error_of_the_constructor(
    store: MemoryStore, crawlers: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though not before joining was tried again."""
    monkeypatch.setattr("smoothcluster.crawler.EXTRA_JOIN_SECONDS", -15.0)  # as above
    backend, tried = MemoryBackend(store), count()

    def forgetful(conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        next(tried)
        raise LeaseLostError("gone")

    monkeypatch.setattr(backend, "commit", forgetful)
    with pytest.raises(LeaseLostError, match="gone"):
        crawlers(backend=backend)
    assert next(tried) >= 2


def test_a_store_that_answers_and_takes_nobody_in_is_not_asked_for_ever(store: MemoryStore, crawlers: Make) -> None:
    """Its disk is full, say."""
    faulty = Faulty(MemoryBackend(store))
    for _ in range(200_000):
        faulty.hold()
    with pytest.raises(UnavailableError, match="the store accepted no join"):
        crawlers(backend=faulty, lease_ttl=0.1)


def test_what_ends_a_member_in_the_background_is_raised_by_stop(store: MemoryStore, crawlers: Make) -> None:
    """Once: here the group has another shape by the time at which the member must join anew."""
    crawler = crawlers(lease_ttl=0.5).start()
    put(MemoryBackend(store), "default/spec", Spec(1, 1, 32, 9, "").to_json())
    put(MemoryBackend(store), "default/members/other", member("other").to_json())
    thread, session = crawler._thread, crawler._loop.session  # pyright: ignore[reportPrivateUsage]
    assert thread is not None
    assert session is not None
    session.lease.revoke()
    thread.join(30)
    with pytest.raises(SpecMismatchError, match="the living group has runner=1, backup=1"):
        crawler.stop()
    crawler.stop()


@pytest.mark.parametrize("act", ["run", "start", "stop"])
def test_on_a_closed_backend_it_ends_with_the_error(store: MemoryStore, crawlers: Make, act: str) -> None:
    """It cannot go on, and it does not try for ever, nor for its grace period: the error says what was done to it."""
    backend = MemoryBackend(store)
    crawler = crawlers(backend=backend, grace=3600.0)
    if act == "start":
        crawler.start()
    backend.close()
    with pytest.raises(BackendClosedError, match="closed"):
        (crawler.run if act == "run" else crawler.stop)()
    assert crawler.role is None
    with pytest.raises(UsageError, match="has left its group"):
        crawler.run()


def test_in_another_process_it_is_refused(crawlers: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child has no part in its parent's membership; on leaving it changes nothing."""
    crawler = crawlers().start()
    monkeypatch.setattr(vars(crawler)["_own_process"], "_process", (0, 0))
    for call in (crawler.run, crawler.start, crawler.join):
        with pytest.raises(UsageError, match="forked"):
            call()
    crawler.stop()
    monkeypatch.undo()
    assert crawler.role is Role.RUNNER
