"""Rules of a client's lifetime: `close` tells every waiting thread, and a forked child does not disturb the parent."""

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from smoothcluster.backend import CoordinationBackend, Create, Lease, Update
from smoothcluster.errors import BackendClosedError, SmoothclusterError, UsageError
from smoothcluster.recipes.lock import Lock
from smoothcluster.recipes.session import Session
from smoothcluster.testing.clock import eventually
from smoothcluster.testing.conformance.forks import WAYS_TO_FORK, Start, in_forked_child
from smoothcluster.testing.conformance.kit import Kit, Wakes, create, outcome_in_thread


class LifetimeRules(Kit):
    """A client lives in one process, from the construction to `close`."""

    def test_after_a_close_every_call_says_so(self, root: str) -> None:
        """Every call through the client, and every call of the client's leases, raises BackendClosedError."""
        client = self.connect()
        lease = client.lease(self.ttl)
        client.close()
        for call in calls(client, lease, root).values():
            with pytest.raises(BackendClosedError):
                call()

    @pytest.mark.parametrize("whole", [True, False], ids=["the whole", "a part"])
    def test_closing_wakes_every_watch(self, root: str, *, whole: bool) -> None:
        """Closing any part wakes the watches of all parts, except those closed before: each owner then reads."""
        client = self.connect()
        parts = [client, client.for_group(root), client.for_group(f"{root}-2")]
        wakes, ended = [Wakes() for _ in range(2 * len(parts))], Wakes()
        for number, part in enumerate(parts):
            part.watch(f"{root}/a", wakes[2 * number])
            part.watch(root, wakes[2 * number + 1], values=False)
            part.get(f"{root}/a")
        client.watch(root, ended).close()
        before, ended_before = [each.count for each in wakes], ended.count
        (client if whole else parts[1]).close()
        for each, count in zip(wakes, before, strict=True):
            each.since(count)
        assert ended.count <= ended_before + 1  # A wake-up under way may still arrive.

    def test_an_owner_that_fails_hides_the_close_from_nobody(self, root: str) -> None:
        """An exception of a *notify* or callback stops neither the calls of the others nor the close."""
        client = self.connect()
        wakes, told = Wakes(), Wakes()

        def fail() -> None:
            raise ZeroDivisionError

        for each in (fail, wakes):
            client.watch(f"{root}/a", each)
        for callback in (fail, told):
            client.on_close(callback)
        before = wakes.count
        client.close()
        wakes.since(before)
        assert told.count == 1
        with pytest.raises(BackendClosedError):
            client.get(f"{root}/a")

    def test_closing_calls_back_once(self, root: str) -> None:
        """`on_close` of any part: once at the close of any part, at once after the close; not if cancelled."""
        client = self.connect()
        told, cancelled, late = [Wakes(), Wakes()], Wakes(), Wakes()
        client.on_close(told[0])
        client.for_group(root).on_close(told[1])
        client.on_close(cancelled)()
        assert [each.count for each in told] == [0, 0]
        client.for_group(f"{root}-2").close()
        client.close()
        client.on_close(late)
        assert [each.count for each in (*told, cancelled, late)] == [1, 1, 0, 1]

    @pytest.mark.parametrize("started", [True, False], ids=["started", "not started"])
    def test_closing_ends_a_session(self, root: str, *, started: bool) -> None:
        """After the close nobody can renew the lease: `lost` is set, and every thread that waits for `lost` goes on."""
        client = self.connect()
        session = Session(client.for_group(root), self.ttl)
        if started:
            session.start()
        waiting = outcome_in_thread(session.lost.wait)
        client.close()
        assert session.lost.is_set()
        assert not session.held()
        assert waiting() is True
        session.close()

    def test_closing_ends_the_wait_for_a_lock(self, backend: CoordinationBackend, root: str) -> None:
        """A contender that waits for the lock raises BackendClosedError."""
        holder = Session(backend, self.ttl)
        holder.start()
        assert Lock(backend, holder, root).acquire(timeout=30)
        client = self.connect()
        session = Session(client, self.ttl)
        session.start()
        waiting = outcome_in_thread(Lock(client, session, root).acquire)
        eventually(lambda: len(backend.keys(root)) == 2)
        client.close()
        assert isinstance(waiting(), BackendClosedError)
        holder.close()

    @pytest.mark.parametrize("fork", WAYS_TO_FORK.values(), ids=WAYS_TO_FORK)
    def test_a_forked_child_gets_right_answers_or_is_told(
        self, backend: CoordinationBackend, root: str, fork: Start
    ) -> None:
        """Every call in a child returns what the store has, or raises UsageError, and none hangs."""
        create(backend, f"{root}/a", b"parent")
        lease = backend.lease(self.ttl)
        over = threading.Event()

        def read() -> list[object]:
            wrong: list[object] = []
            while not over.wait(0.0005):  # With pauses, so that the child inherits connections at rest, and uses them.
                entry = backend.get(f"{root}/a")
                if entry is None or entry.value != b"parent":
                    wrong.append(entry)
            return wrong

        readers = [outcome_in_thread(read) for _ in range(3)]
        try:
            said = in_forked_child(fork, lambda: _told_in_child(backend, lease, root))
        finally:
            over.set()
        assert [reader() for reader in readers] == [[]] * 3, "the parent got answers to the child's calls"
        assert said == "fine"
        assert lease.renew() is True

    @pytest.mark.parametrize("fork", WAYS_TO_FORK.values(), ids=WAYS_TO_FORK)
    def test_a_forked_child_leaves_its_parent_alone(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str, fork: Start
    ) -> None:
        """A child may close what it inherited. The parent's leases, watches and connections live on."""
        lease = backend.lease(self.ttl)
        create(backend, f"{root}/a", b"old", lease)
        wakes = Wakes()
        watch = backend.watch(f"{root}/a", wakes)
        session = Session(backend, self.ttl)
        session.start()

        def leave() -> str:
            watch.close()
            session.close()
            backend.close()
            backend.close()
            gc.collect()
            return "left"

        assert in_forked_child(fork, leave) == "left"
        before = wakes.count
        other.sync()
        other.commit([], [Update(f"{root}/a", b"new")])
        wakes.since(before)
        backend.sync()
        entry = backend.get(f"{root}/a")
        assert entry is not None
        assert (entry.value, entry.lease) == (b"new", lease.id)
        assert lease.renew() is True
        assert session.renew_once() == "renewed"
        session.close()

    def test_two_processes_do_not_hold_one_lock(self, backend: CoordinationBackend, root: str) -> None:
        """A session and a lock are of one process: a child that inherits both does not count as the holder."""
        session = Session(backend, self.ttl)
        session.start()
        lock = Lock(backend, session, root)
        assert lock.acquire(timeout=30)

        def claim() -> str:
            return "; ".join(_refused(call) for call in (session.held, lock.held, lock.release, session.renew_once))

        assert in_forked_child(WAYS_TO_FORK["os.fork"], claim) == "; ".join(["refused"] * 4)
        assert lock.held()
        lock.release()
        session.close()


def calls(client: CoordinationBackend, lease: Lease, root: str) -> dict[str, Callable[[], object]]:
    """Every call of *client* that needs the store, and of *lease*."""
    return {
        "get": lambda: client.get(f"{root}/a"),
        "get_many": lambda: client.get_many([f"{root}/a", f"{root}/none"]),
        "keys": lambda: client.keys(root),
        "list": lambda: client.list(root),
        "commit": lambda: client.commit([], [Create(f"{root}/b", b"")]),
        "commit_and_list": lambda: client.commit_and_list([], [Create(f"{root}/c", b"")], root),
        "lease": lambda: client.lease(10.0),
        "watch": lambda: client.watch(root, lambda: None),
        "renew": lease.renew,
        "revoke": lease.revoke,
    }


_RIGHT_ANSWERS: dict[str, Callable[[Any], bool]] = {
    "get": lambda answer: answer.value == b"parent",
    "get_many": lambda answer: answer[0].value == b"parent" and answer[1] is None,
    "keys": lambda answer: isinstance(answer[0], str),
    "list": lambda answer: b"parent" in [entry.value for entry in answer],
    "renew": lambda answer: answer is True,
}


def _told_in_child(client: CoordinationBackend, lease: Lease, root: str) -> str:
    """Make every call in a child; return "fine", or the first answer that is wrong."""
    for name, call in calls(client, lease, root).items():
        if name == "revoke":
            continue  # An answer would be right, and would end the parent's lease.
        is_right = _RIGHT_ANSWERS.get(name)
        try:
            # Again and again: on a connection shared with the parent, answers meet the wrong calls sooner or later.
            for _ in range(200 if is_right else 1):
                answer = call()
                if is_right is not None and not is_right(answer):
                    return f"{name} returned {answer!r}"
        except UsageError:
            continue
        except SmoothclusterError as error:
            return f"{name} raised {error!r}"
    return "fine"


def _refused(call: Callable[[], object]) -> str:
    try:
        return f"returned {call()!r}"
    except UsageError:
        return "refused"
