"""The lock, where the store loses answers, delivers late, and goes away at the worst moment."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import final

import pytest

from smoothcluster.backend import Change, Committed, Condition, Create, Delete, Guarantees, Refused
from smoothcluster.clock import Clock, Signal
from smoothcluster.errors import (
    BackendClosedError,
    LeaseLostError,
    OutcomeUnknownError,
    UnavailableError,
    UsageError,
)
from smoothcluster.memory import WEAKEST, MemoryBackend, MemoryStore
from smoothcluster.recipes.lock import Lock
from smoothcluster.recipes.session import LeaseState, Session
from smoothcluster.testing import Faulty, HeldClock, Lagging, eventually

TTL = 10.0
QUEUE = "locks/x"


@final
@dataclass
class Bench:
    """One store on a clock that stands still, and contenders with connections that can fail."""

    clock: HeldClock = field(default_factory=HeldClock)
    guarantees: Guarantees = WEAKEST
    ids: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.store = MemoryStore(clock=self.clock, guarantees=self.guarantees)
        self.clock.listeners.append(self.store.expire)
        self.viewer = MemoryBackend(self.store)

    def contender(self) -> tuple[Lock, Faulty, Session]:
        """A lock, its connection and its session."""
        backend = Faulty(MemoryBackend(self.store))
        session = Session(backend, TTL, self.clock)
        return self.lock(backend, session), backend, session

    def lock(self, backend: Faulty, session: Session) -> Lock:
        """Another contender over the same connection."""
        return Lock(backend, session, QUEUE, new_id=lambda: f"{next(self.ids):04}")

    def waits(self, contenders: int) -> bool:
        """Whether so many wait now."""
        return self.clock.waiting == contenders

    def watchers(self, key: str) -> int:
        """How many watch *key*."""
        return len(list(self.store.watches.woken({key: None}, {key: self.viewer.get(key)})))

    def queue(self) -> list[bytes]:
        """What the entries in the queue hold, buried ones being empty."""
        return [entry.value for entry in self.viewer.list(QUEUE)]


@pytest.fixture
def bench() -> Bench:
    """A new one."""
    return Bench()


def acquiring(lock: Lock, timeout: float | None = None) -> "Attempt":
    """Have *lock* acquired in a thread."""
    attempt = Attempt(lambda: lock.acquire(timeout))
    attempt.start()
    return attempt


@final
class Attempt(threading.Thread):
    """A call in a thread, and what it came to."""

    def __init__(self, call: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._outcome: bool | Exception | None = None

    def run(self) -> None:
        """Make the call."""
        try:
            self._outcome = self._call()
        except Exception as error:  # noqa: BLE001  # handed to the test
            self._outcome = error

    @property
    def outcome(self) -> bool | Exception | None:
        """What it came to, once it has."""
        self.join(30)
        assert not self.is_alive()
        return self._outcome


def test_an_entry_shows_its_owner(bench: Bench) -> None:
    """People who look at the queue see who waits; by default, the lease."""
    _, backend, session = bench.contender()
    Lock(backend, session, QUEUE, owner="crawler_1", new_id=lambda: "1").acquire()
    assert bench.queue() == [b"crawler_1"]
    lock, _, session = bench.contender()
    lock.acquire(timeout=0)
    acquiring(lock)
    eventually(lambda: bench.queue() == [session.lease.id.encode(), b"crawler_1"])


@pytest.fixture
def unique() -> Bench:
    """One whose store never repeats a version."""
    return Bench(guarantees=replace(WEAKEST, unique_versions=True))


def test_names_are_not_used_again(bench: Bench) -> None:
    """Every acquisition has an entry of its own, whose condition ends with it."""
    _, backend, session = bench.contender()
    lock = Lock(backend, session, QUEUE)
    keys: set[str] = set()
    for _ in range(20):
        with lock:
            keys.add(lock.condition.key)
        assert bench.queue() == []
    assert len(keys) == 20


def test_a_name_is_kept_where_versions_are_unique(unique: Bench) -> None:
    """All acquisitions share one name, which is all that the store has to look through; conditions still end."""
    lock, _, _ = unique.contender()
    conditions: list[Condition] = []
    tokens: list[int] = []
    for _ in range(5):
        with lock:
            conditions.append(lock.condition)
            tokens.append(lock.token)
            for old in conditions[:-1]:
                assert unique.viewer.commit([old], [Create("a", b"")]) == Refused(old.key)
    assert len({condition.key for condition in conditions}) == 1
    assert tokens == sorted(set(tokens))


def test_who_comes_back_under_its_name_is_not_waited_for(unique: Bench) -> None:
    """Between two looks the one ahead left, and is behind now."""
    holder, _, _ = unique.contender()
    holder.acquire()
    waiter, backend, _ = unique.contender()
    waiting = acquiring(waiter)
    eventually(lambda: unique.clock.waiting == 1)
    backend.cut()
    holder.release()
    again = acquiring(holder)
    eventually(lambda: unique.clock.waiting == 2)
    backend.mend()
    assert waiting.outcome is True
    waiter.release()
    assert again.outcome is True


def test_a_name_that_may_still_be_deleted_is_not_kept(unique: Bench) -> None:
    """A release on its way when it was repeated does not take out of the queue who has come back."""
    lock, backend, _ = unique.contender()
    lock.acquire()
    backend.hold()
    with pytest.raises(OutcomeUnknownError):
        lock.release()
    lock.release()
    assert lock.acquire(timeout=0)
    assert isinstance(backend.deliver()[0], Refused)
    assert isinstance(unique.viewer.commit([lock.condition], [Create("a", b"")]), Committed)


def test_an_entry_that_came_back_is_not_stepped_into(unique: Bench) -> None:
    """A store that lost our release has our old entry: its token is older than those given since."""
    lock, _, _ = unique.contender()
    lock.acquire()
    past, token = unique.store.past(), lock.token
    lock.release()
    unique.store.go_back(past)
    assert lock.acquire(timeout=0)
    assert lock.token > token
    lock.release()
    assert unique.queue() == []


def test_it_is_not_acquired_twice(bench: Bench) -> None:
    """Acquiring what is acquired is UsageError, and changes nothing."""
    lock, _, _ = bench.contender()
    assert lock.acquire()
    token = lock.token
    with pytest.raises(UsageError, match="already acquired"):
        lock.acquire()
    assert (lock.held(), lock.token, len(bench.queue())) == (True, token, 1)


def test_what_is_not_acquired_has_no_token(bench: Bench) -> None:
    """Token and condition exist from acquisition to release; releasing more often is harmless."""
    lock, _, _ = bench.contender()
    lock.release()
    with lock:
        assert isinstance(lock.token, int)
    lock.release()
    assert not lock.held()
    with pytest.raises(UsageError, match="not acquired"):
        _ = lock.token
    with pytest.raises(UsageError, match="not acquired"):
        _ = lock.condition


def test_a_failing_body_releases_it(bench: Bench) -> None:
    """The context manager gives it back whatever happens inside."""
    lock, _, _ = bench.contender()
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    assert bench.queue() == []


def test_it_is_held_only_while_the_lease_is(bench: Bench) -> None:
    """When the lease may have run out by its own clock, the holder does not believe in the lock either."""
    lock, _, _ = bench.contender()
    lock.acquire()
    bench.clock.advance(TTL)
    assert not lock.held()


def test_it_is_served_by_age_not_by_name(bench: Bench) -> None:
    """The order is that of creation: a later name that sorts first waits all the same."""
    _, backend, session = bench.contender()
    first, second = (Lock(backend, session, QUEUE, new_id=partial(str, name)) for name in ("z", "a"))
    assert first.acquire(timeout=0)
    assert not second.acquire(timeout=0)


def test_one_departure_wakes_one_waiter(bench: Bench) -> None:
    """Each waits for the entry just ahead, so a release has one contender read, and not the others."""
    holder, _, _ = bench.contender()
    holder.acquire()
    waiters: list[Attempt] = []
    for number in range(1, 6):
        lock, _, _ = bench.contender()
        waiters.append(acquiring(lock))
        eventually(partial(bench.waits, number))
    holder.release()
    assert waiters[0].outcome is True
    assert bench.waits(4)
    assert [bench.watchers(entry.key) for entry in bench.viewer.list(QUEUE)] == [1, 1, 1, 1, 0]


def test_when_a_waiter_gives_up_the_one_behind_waits_for_the_next(bench: Bench) -> None:
    """A departure from the middle of the queue passes nobody ahead of the holder."""
    holder, _, _ = bench.contender()
    holder.acquire()
    leaver, _, _ = bench.contender()
    leaving = acquiring(leaver, timeout=5)
    eventually(lambda: bench.clock.waiting == 1)
    last, _, _ = bench.contender()
    waiting = acquiring(last)
    eventually(lambda: bench.clock.waiting == 2)
    bench.clock.advance(5)
    assert leaving.outcome is False
    eventually(lambda: bench.clock.waiting == 1)
    assert not last.held()
    holder.release()
    assert waiting.outcome is True


def test_its_own_entry_must_still_be_there(bench: Bench) -> None:
    """Whose entry went while it waited does not get the lock though nobody is ahead: another may be behind it."""
    holder, _, _ = bench.contender()
    holder.acquire()
    waiter, _, session = bench.contender()
    waiting = acquiring(waiter)
    eventually(lambda: bench.clock.waiting == 1)
    bench.viewer.commit([], [Delete(f"{QUEUE}/0001")])
    heir, _, _ = bench.contender()
    inheriting = acquiring(heir)
    eventually(lambda: bench.clock.waiting == 2)
    holder.release()
    assert isinstance(waiting.outcome, LeaseLostError)
    assert not waiter.held()
    assert inheriting.outcome is True
    assert session.held()


def test_an_entry_of_another_lease_is_not_its_own(bench: Bench) -> None:
    """A name that somebody else has used is not taken for its own entry."""
    one, other = (bench.contender() for _ in range(2))
    first, second = (Lock(backend, session, QUEUE, new_id=lambda: "same") for _, backend, session in (one, other))
    assert first.acquire()
    with pytest.raises(LeaseLostError):
        second.acquire(timeout=0)
    first.release()


def test_a_lease_that_went_while_waiting_is_noticed_by_a_lagging_reader(bench: Bench) -> None:
    """A contender that reads late syncs after waiting: it does not see itself first where it no longer is."""
    holder, _, _ = bench.contender()
    holder.acquire()
    late = Lagging(bench.store)
    session = Session(late, TTL, bench.clock)
    lock = Lock(late, session, QUEUE, new_id=lambda: "late")
    waiting = acquiring(lock)
    eventually(lambda: bench.clock.waiting == 1)
    holder.release()
    bench.store.end(session.lease.id)
    late.catch_up(1)
    assert isinstance(waiting.outcome, LeaseLostError)
    assert session.state is LeaseState.LOST


def test_a_waiter_is_woken_by_the_loss_of_its_session(bench: Bench) -> None:
    """It need not wait for the one ahead to learn that it waits in vain."""
    holder, _, _ = bench.contender()
    holder.acquire()
    waiter, _, session = bench.contender()
    waiting = acquiring(waiter)
    eventually(lambda: bench.clock.waiting == 1)
    session.close()
    assert isinstance(waiting.outcome, LeaseLostError)


@pytest.mark.parametrize("of", ["the session", "the lock"])
def test_a_waiter_is_woken_by_the_close_of_its_backend(bench: Bench, of: str) -> None:
    """Also where only its watch tells it: the session may be one of another client."""
    holder, _, _ = bench.contender()
    holder.acquire()
    (_, backend, _), (_, another, session) = bench.contender(), bench.contender()
    waiting = acquiring(bench.lock(backend, session))
    eventually(lambda: bench.clock.waiting == 1)
    (another if of == "the session" else backend).close()
    assert isinstance(waiting.outcome, BackendClosedError)
    assert "is closed" in str(waiting.outcome)


def test_a_waiter_whose_lease_nobody_renews_is_told_when_it_ends(bench: Bench) -> None:
    """It neither waits for its timeout in vain, nor stays in the queue."""
    holder, _, held = bench.contender()
    holder.acquire()
    waiter, _, session = bench.contender()
    waiting = acquiring(waiter, timeout=1000 * TTL)
    eventually(lambda: bench.clock.waiting == 1)
    held.renew_once()
    bench.clock.advance(TTL / 2)
    held.renew_once()
    bench.clock.advance(TTL / 2)
    assert isinstance(waiting.outcome, LeaseLostError)
    assert "call Session.start" in str(waiting.outcome)
    assert session.lost.is_set()
    assert holder.held()
    assert len(bench.queue()) == 1


def test_in_another_process_it_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that has inherited a lock does not hold it, cannot give it back, and is told so."""
    lock, backend, session = bench.contender()
    lock.acquire()
    monkeypatch.setattr(os, "getpid", lambda: 0)
    for call in (
        lock.acquire,
        lock.release,
        lock.held,
        lambda: lock.token,
        lambda: lock.condition,
        bench.lock(backend, session).acquire,
    ):
        with pytest.raises(UsageError, match="forked"):
            call()
    monkeypatch.undo()
    assert lock.held()
    assert len(bench.queue()) == 1


def test_on_a_lost_session_it_is_not_acquired(bench: Bench) -> None:
    """A lease that has gone is LeaseLostError, and the session knows it from then on."""
    lock, _, session = bench.contender()
    bench.store.end(session.lease.id)
    with pytest.raises(LeaseLostError):
        lock.acquire()
    assert session.lost.is_set()


def test_a_lease_that_may_have_run_out_is_renewed_first(bench: Bench) -> None:
    """First in the queue, but past the deadline: the store is asked before the lock is believed in."""
    holder, _, held = bench.contender()
    holder.acquire()
    waiter, backend, session = bench.contender()
    waiting = acquiring(waiter)
    eventually(lambda: bench.clock.waiting == 1)
    backend.drop_answer("renew")
    bench.clock.advance(TTL / 2)
    assert session.renew_once() is LeaseState.UNKNOWN
    held.renew_once()
    bench.clock.advance(TTL / 2)
    assert not session.held()
    holder.release()
    assert waiting.outcome is True
    assert waiter.held()


def test_a_lease_that_has_run_out_is_noticed_though_the_entry_still_shows(bench: Bench) -> None:
    """First in the queue as a lagging reader sees it, past the deadline, and the store says the lease is gone."""
    late = Lagging(bench.store)
    lock = Lock(late, Session(late, TTL, bench.clock), QUEUE)
    late.watch(QUEUE, lambda: bench.clock.advance(TTL))
    with pytest.raises(LeaseLostError, match="session ended"):
        lock.acquire()
    assert bench.queue() == []


def test_where_the_lease_cannot_be_renewed_it_is_not_acquired(bench: Bench) -> None:
    """If the store cannot be asked then, acquiring is UnavailableError, and the queue is left."""
    holder, _, held = bench.contender()
    holder.acquire()
    waiter, backend, session = bench.contender()
    waiting = acquiring(waiter)
    eventually(lambda: bench.clock.waiting == 1)
    backend.drop_answer("renew")
    bench.clock.advance(TTL / 2)
    session.renew_once()
    held.renew_once()
    backend.refuse("renew")
    bench.clock.advance(TTL / 2)
    holder.release()
    assert isinstance(waiting.outcome, UnavailableError)
    assert bench.queue() == []


def test_a_lost_answer_is_settled_by_reading(bench: Bench) -> None:
    """The entry that was made unheard is found, and no second one is made."""
    lock, backend, _ = bench.contender()
    backend.drop_answer()
    assert lock.acquire()
    assert len(bench.queue()) == 1
    lock.release()
    assert bench.queue() == []


def test_a_lost_request_is_repeated(bench: Bench) -> None:
    """The entry that is not there after a sync is asked for again, as it was."""
    lock, backend, _ = bench.contender()
    backend.hold()
    assert lock.acquire()
    key = lock.condition.key
    assert len(bench.queue()) == 1
    assert backend.deliver() == [Refused(key)]


def test_a_request_that_arrives_after_the_release_queues_nobody(bench: Bench) -> None:
    """A name that may still be made late is left taken, by an entry that counts as none, until the lease ends."""
    lock, backend, session = bench.contender()
    backend.hold()
    lock.acquire()
    condition = lock.condition
    lock.release()
    assert bench.queue() == [b""]
    assert backend.deliver() == [Refused(condition.key)]
    assert bench.viewer.commit([condition], [Create("a", b"")]) == Refused(condition.key)
    other, _, _ = bench.contender()
    assert other.acquire(timeout=0)
    session.close()
    assert len(bench.queue()) == 1


def test_a_request_that_arrives_after_giving_up_queues_nobody(bench: Bench) -> None:
    """The same where the entry never was there: its name is taken before giving up."""
    lock, backend, _ = bench.contender()
    backend.hold()
    backend.hold()
    with pytest.raises(OutcomeUnknownError):
        lock.acquire()
    assert [outcome for outcome in backend.deliver() if not isinstance(outcome, Refused)] == []
    assert bench.queue() == [b""]


def test_a_buried_entry_is_not_waited_for(bench: Bench) -> None:
    """Who was waiting for an entry that is buried goes on."""
    lock, backend, _ = bench.contender()
    backend.hold()
    lock.acquire()
    waiter, _, _ = bench.contender()
    waiting = acquiring(waiter)
    eventually(lambda: bench.clock.waiting == 1)
    lock.release()
    assert waiting.outcome is True


def test_giving_up_while_the_store_is_away_is_made_good_later(bench: Bench) -> None:
    """An entry that could not be withdrawn goes with the next call that reaches the store."""
    holder, _, _ = bench.contender()
    holder.acquire()
    lock, backend, _ = bench.contender()
    waiting = acquiring(lock, timeout=5)
    eventually(lambda: bench.clock.waiting == 1)
    backend.cut()
    bench.clock.advance(5)
    assert isinstance(waiting.outcome, UnavailableError)
    assert len(bench.queue()) == 2
    backend.mend()
    assert not lock.acquire(timeout=0)
    assert len(bench.queue()) == 1


def test_a_release_that_fails_can_be_repeated(bench: Bench) -> None:
    """Failing to tell the store raises; the lock is not held from then on; calling again makes it good."""
    lock, backend, _ = bench.contender()
    lock.acquire()
    backend.cut()
    with pytest.raises(UnavailableError):
        lock.release()
    assert not lock.held()
    assert len(bench.queue()) == 1
    backend.mend()
    lock.release()
    assert bench.queue() == []


def test_a_release_whose_answer_is_lost_is_settled_by_repeating(bench: Bench) -> None:
    """Deleting what is gone already is harmless: the name is never used again."""
    lock, backend, _ = bench.contender()
    lock.acquire()
    backend.drop_answer()
    with pytest.raises(OutcomeUnknownError):
        lock.release()
    lock.release()
    assert bench.queue() == []
    assert lock.acquire(timeout=0)


def test_a_release_after_the_loss_is_harmless(bench: Bench) -> None:
    """The entry went with the lease: there is nothing to give back, also for one that would be buried."""
    for hold in (False, True):
        lock, backend, session = bench.contender()
        if hold:
            backend.hold()
        lock.acquire()
        bench.store.end(session.lease.id)
        lock.release()
        assert bench.queue() == []


def test_an_interrupted_wait_leaves_the_queue(bench: Bench) -> None:
    """Even KeyboardInterrupt withdraws: a contender that gave up must not win."""

    class Interrupted(Clock):
        """A clock on which every wait is interrupted."""

        def monotonic(self) -> float:
            return bench.clock.monotonic()

        def wall(self) -> float:
            return bench.clock.wall()

        def signal(self) -> Signal:
            return InterruptedSignal()

    class InterruptedSignal(threading.Event):
        """Its signal."""

        def wait(self, timeout: float | None = None) -> bool:
            raise KeyboardInterrupt

    holder, _, _ = bench.contender()
    holder.acquire()
    backend = MemoryBackend(bench.store)
    session = Session(backend, TTL, Interrupted())
    with pytest.raises(KeyboardInterrupt):
        Lock(backend, session, QUEUE).acquire()
    assert len(bench.queue()) == 1


def test_a_lock_that_is_free_takes_two_round_trips(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One to enter the queue and read it, where the store can do both at once, and one to leave."""
    asked: list[str] = []

    def commit_and_list(backend: MemoryBackend, _: object, changes: list[Change], directory: str) -> object:
        asked.append("commit and list")
        return backend.store.commit([], changes), backend.store.list(directory)

    def commit(backend: MemoryBackend, _: object, changes: list[Change]) -> object:
        asked.append("commit")
        return backend.store.commit([], changes)

    backend = MemoryBackend(bench.store)
    lock = Lock(backend, Session(backend, TTL, bench.clock), QUEUE)
    monkeypatch.setattr(MemoryBackend, "commit_and_list", commit_and_list)
    monkeypatch.setattr(MemoryBackend, "commit", commit)
    for name in ("list", "keys", "get_many", "sync"):
        monkeypatch.setattr(MemoryBackend, name, partial(asked.append, name))
    assert lock.acquire()
    lock.release()
    assert asked == ["commit and list", "commit"]


def test_a_queue_that_could_not_be_read_is_left_again(bench: Bench) -> None:
    """The entry is there, and nobody knows who is ahead of it."""
    lock, backend, _ = bench.contender()
    backend.refuse("read", times=9)
    with pytest.raises(UnavailableError):
        lock.acquire()
    backend.refuse("read", times=0)
    lock.release()
    assert not any(bench.queue())
