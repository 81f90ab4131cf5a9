"""Rules of the lock: one recipe for all backends, tested here on the backend under test."""

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from smoothcluster.backend import Committed, CoordinationBackend, Create, Update
from smoothcluster.errors import LeaseLostError
from smoothcluster.recipes.lock import Lock
from smoothcluster.recipes.session import Session
from smoothcluster.testing.clock import eventually
from smoothcluster.testing.conformance.kit import Kit, create, in_parallel, refused

OpenSession = Callable[[CoordinationBackend], Session]


class LockRules(Kit):
    """The holder of a lock, and the order of holders."""

    @pytest.fixture
    def session(self) -> Iterator[OpenSession]:
        """Opens sessions, kept alive until the test ends."""
        opened: list[Session] = []

        def open_one(backend: CoordinationBackend) -> Session:
            session = Session(backend, self.ttl)
            session.start()
            opened.append(session)
            return session

        yield open_one
        for session in opened:
            session.close()

    def test_one_holds_it_at_a_time(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str, session: OpenSession
    ) -> None:
        """While a contender holds the lock, no other gets the lock; after the release, another does."""
        first, second = Lock(backend, session(backend), root), Lock(other, session(other), root)
        assert first.acquire(timeout=0)
        assert not second.acquire(timeout=0)
        assert not second.acquire(timeout=0.1)
        assert (first.held(), second.held()) == (True, False)
        first.release()
        assert second.acquire(timeout=30)
        assert (first.held(), second.held()) == (False, True)

    def test_it_excludes(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str, session: OpenSession
    ) -> None:
        """An unguarded read and write, done by several clients under the lock, loses nothing."""
        create(backend, f"{root}/count", b"0")
        clients = [backend, other, backend]

        def add(client: CoordinationBackend) -> None:
            lock = Lock(client, session(client), f"{root}/lock")
            for _ in range(self.rounds // 3):
                with lock:
                    client.sync()
                    entry = client.get(f"{root}/count")
                    assert entry is not None
                    client.commit([], [Update(f"{root}/count", str(int(entry.value) + 1).encode())])

        in_parallel([partial(add, client) for client in clients])
        backend.sync()
        entry = backend.get(f"{root}/count")
        assert entry is not None
        assert int(entry.value) == len(clients) * (self.rounds // 3)

    def test_it_is_fair_and_its_token_rises(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str, session: OpenSession
    ) -> None:
        """Waiting contenders get the lock in the order of arrival, and each has a larger token than all before."""
        served: list[tuple[int, int]] = []
        holder = Lock(backend, session(backend), root)
        holder.acquire()
        first_token = holder.token

        def contend(number: int, client: CoordinationBackend) -> None:
            lock = Lock(client, session(client), root)
            assert lock.acquire(timeout=60)
            served.append((number, lock.token))
            lock.release()

        def queued(expected: int) -> bool:
            return len(backend.keys(root)) == expected

        threads: list[threading.Thread] = []
        for number in range(5):
            thread = threading.Thread(target=contend, args=(number, (backend, other)[number % 2]), daemon=True)
            thread.start()
            threads.append(thread)
            eventually(partial(queued, number + 2))
        holder.release()
        for thread in threads:
            thread.join(60)
        assert [number for number, _ in served] == list(range(5))
        tokens = [first_token, *(token for _, token in served)]
        assert tokens == sorted(set(tokens))

    def test_who_gives_up_leaves_the_queue(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str, session: OpenSession
    ) -> None:
        """After a timeout a contender leaves nothing behind, and later contenders are served."""
        holder, impatient, patient = (Lock(client, session(client), root) for client in (backend, other, other))
        holder.acquire()
        assert not impatient.acquire(timeout=0.05)
        other.sync()
        assert len(other.keys(root)) == 1
        holder.release()
        assert patient.acquire(timeout=30)

    def test_a_lost_lease_frees_it(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str, session: OpenSession
    ) -> None:
        """When the holder's lease ends, the next gets the lock, and guarded writes of the former are refused."""
        version = create(backend, f"{root}/record", b"old")
        lost = Session(backend, self.ttl)
        former = Lock(backend, lost, f"{root}/lock")
        former.acquire()
        condition, token = former.condition, former.token
        outcome = backend.commit([condition], [Update(f"{root}/record", b"mine", version)])
        assert isinstance(outcome, Committed)
        self.expire(lost.lease)
        heir = Lock(other, session(other), f"{root}/lock")
        assert heir.acquire(timeout=60)
        assert heir.token > token
        assert refused(backend.commit([condition], [Update(f"{root}/record", b"zombie")])) == condition.key
        assert isinstance(other.commit([heir.condition], [Update(f"{root}/record", b"heir")]), Committed)
        assert lost.renew_once() == "lost"
        assert not former.held()
        former.release()

    def test_a_released_lock_guards_nothing(
        self, backend: CoordinationBackend, root: str, session: OpenSession
    ) -> None:
        """The condition of an acquisition fails after its end, also if the same contender acquires again."""
        lock = Lock(backend, session(backend), f"{root}/lock")
        lock.acquire()
        condition = lock.condition
        lock.release()
        assert lock.acquire(timeout=30)
        assert refused(backend.commit([condition], [Create(f"{root}/a", b"")])) == condition.key

    def test_who_loses_the_lease_while_waiting_is_told(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str, session: OpenSession
    ) -> None:
        """A contender losing the lease while waiting raises LeaseLostError, and never gets the lock."""
        holder = Lock(backend, session(backend), root)
        holder.acquire()
        lost = Session(other, self.ttl)
        waiter = Lock(other, lost, root)
        errors: list[LeaseLostError] = []

        def wait() -> None:
            try:
                waiter.acquire(timeout=60)
            except LeaseLostError as error:
                errors.append(error)

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        eventually(lambda: len(backend.keys(root)) == 2)
        lost.lease.revoke()
        lost.renew_once()
        thread.join(60)
        assert len(errors) == 1
        assert not waiter.held()

    def test_a_lost_answer_does_not_block_the_queue(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str, session: OpenSession
    ) -> None:
        """A contender with an entry made, but the answer lost, still gets the lock, once, and frees the lock."""
        mine = session(backend)
        lossy = Lock(self.dropping_next_answer(backend), mine, root)
        assert lossy.acquire(timeout=30)
        assert len(backend.keys(root)) == 1
        lossy.release()
        assert Lock(other, session(other), root).acquire(timeout=30)
