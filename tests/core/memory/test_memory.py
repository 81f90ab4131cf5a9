"""What the memory backend does beyond the contract: its history, its time, its names."""

import os
import threading
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from smoothcluster.backend import Committed, Create, Delete, Entry, Exists, Refused, Update, Watch
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import BackendClosedError, UnavailableError, UsageError
from smoothcluster.memory import WEAKEST, Applied, MemoryBackend, MemoryStore
from smoothcluster.testing import HeldClock, eventually


def held(clock: HeldClock | None = None) -> MemoryBackend:
    """A client of a new store whose time stands still."""
    return MemoryBackend(clock=clock or HeldClock())


@pytest.mark.parametrize("key", ["a", "a/b", "a/b/c"])
def test_a_directory_cannot_be_made_a_key(key: str) -> None:
    """Creating a key where a directory is raises ValueError and applies nothing."""
    backend = held()
    backend.commit([], [Create("a/b/c/d", b"")])
    with pytest.raises(ValueError, match=f"'{key}' is a directory"):
        backend.commit([], [Create("other", b""), Create(key, b"")])
    assert backend.get("other") is None


@pytest.mark.parametrize("key", ["a/b", "a/b/c/d"])
def test_a_key_cannot_be_made_a_directory(key: str) -> None:
    """Creating a key below one that holds bytes, however deep, raises ValueError and applies nothing."""
    backend = held()
    backend.commit([], [Create("a", b"")])
    with pytest.raises(ValueError, match="'a' holds bytes"):
        backend.commit([], [Create("other", b""), Create(key, b"")])
    assert backend.get("other") is None


def test_one_commit_cannot_make_both() -> None:
    """A commit that creates a key and another below it raises ValueError."""
    with pytest.raises(ValueError, match="'a/b' holds bytes"):
        held().commit([], [Create("a/b/c", b""), Create("a/b", b"")])


def test_a_directory_that_went_can_be_a_key() -> None:
    """Once nothing lies in it a directory is gone, and its name is free."""
    backend = held()
    backend.commit([], [Create("a/b", b"")])
    backend.commit([], [Delete("a/b")])
    assert isinstance(backend.commit([], [Create("a", b"")]), Committed)


def test_a_misplaced_key_is_refused_first() -> None:
    """Who lost a race hears that, not that the commit would have been malformed."""
    backend = held()
    backend.commit([], [Create("a", b"")])
    assert backend.commit([Exists("b")], [Create("a/b", b"")]) == Refused("b")


@pytest.mark.parametrize("key", ["", "/a", "a//b", "a/", "ü"])
def test_a_malformed_key_is_not_looked_for(key: str) -> None:
    """Reading or watching what cannot be a key is ValueError: it is always a mistake."""
    backend = held()
    for call in (backend.get, backend.keys, backend.list, partial(backend.watch, notify=lambda: None)):
        with pytest.raises(ValueError, match=r"key .* is not valid: use "):
            call(key)


def test_versions_start_over_unless_they_are_unique() -> None:
    """By default a key made again has its old version: the trap that ZooKeeper sets."""
    for guarantees, same in ((WEAKEST, True), (replace(WEAKEST, unique_versions=True), False)):
        backend = MemoryBackend(clock=HeldClock(), guarantees=guarantees)
        outcomes = [backend.commit([], [change]) for change in (Create("a", b""), Delete("a"), Create("a", b""))]
        assert (outcomes[0] == outcomes[2]) is same


def test_keys_of_one_commit_tie() -> None:
    """Keys made together have the same `created`."""
    backend = held()
    backend.commit([], [Create("a", b""), Create("b", b"")])
    assert len({entry.created for entry in backend.get_many(["a", "b"]) if entry}) == 1


def test_observers_see_every_step() -> None:
    """An observer gets each commit and lost lease, in order, with every key before and after; no refusal."""
    clock = HeldClock()
    backend = held(clock)
    steps: list[Applied] = []
    backend.store.observers.append(steps.append)
    lease = backend.lease(5)
    changes = (Create("a", b"1", lease), Create("b", b"2"))
    backend.commit([], changes)
    backend.commit([], [Create("a", b"3")])
    backend.commit([], [Delete("b")])
    clock.advance(5)
    backend.store.expire()
    a, b = Entry("a", b"1", "0", 1, lease.id), Entry("b", b"2", "0", 1, None)
    assert steps == [
        Applied(1, changes, {"a": None, "b": None}, {"a": a, "b": b}, None),
        Applied(2, (Delete("b"),), {"b": b}, {"b": None}, None),
        Applied(3, (), {"a": a}, {"a": None}, lease.id),
    ]


def test_observers_come_before_watchers() -> None:
    """Whoever records the history has the step when somebody is woken by it."""
    backend = held()
    order: list[str] = []
    backend.watch("a", lambda: order.append("watcher"))
    backend.store.observers.append(lambda _: order.append("observer"))
    backend.commit([], [Create("a", b"")])
    assert order == ["observer", "watcher"]


def test_a_history_repeats_exactly() -> None:
    """The same operations give the same ids, versions and order: nothing is drawn or read from a clock."""

    def history() -> list[Applied]:
        clock = HeldClock()
        backend = held(clock)
        steps: list[Applied] = []
        backend.store.observers.append(steps.append)
        leases = [backend.lease(ttl) for ttl in (3, 2, 1)]
        for number, lease in enumerate(leases):
            backend.commit([], [Create(f"{name}/{number}", b"", lease) for name in "zyxw"])
        clock.advance(2)
        backend.keys("z")
        leases[0].revoke()
        return [replace(step, changes=()) for step in steps]

    assert history() == history()
    assert len(history()) == 6


@pytest.mark.parametrize("operation", ["get", "keys", "list", "commit", "renew"])
def test_a_due_lease_is_gone_whatever_is_asked_first(operation: str) -> None:
    """Every operation first ends the leases that are due: reading, listing, committing, renewing."""
    clock = HeldClock()
    backend = held(clock)
    lease = backend.lease(5)
    backend.commit([], [Create("a/b", b"", lease)])
    clock.advance(5)
    match operation:
        case "get":
            assert backend.get("a/b") is None
        case "keys":
            assert backend.keys("a") == []
        case "list":
            assert backend.list("a") == []
        case "commit":
            assert backend.commit([Exists("a/b")], [Create("c", b"")]) == Refused("a/b")
        case _:
            assert not lease.renew()


def test_a_lease_is_there_until_the_moment_it_is_due() -> None:
    """A lease of 5 seconds is there after 4.99, and gone after 5; renewed, 5 later."""
    clock = HeldClock()
    backend = held(clock)
    lease = backend.lease(5)
    assert backend.store.next_expiry() == clock.monotonic() + 5
    clock.advance(4.99)
    assert lease.renew()
    assert backend.store.next_expiry() == clock.monotonic() + 5
    clock.advance(4.99)
    assert lease.renew()
    clock.advance(5)
    assert not lease.renew()
    assert backend.store.next_expiry() is None


def test_expire_ends_what_is_due_and_nothing_else() -> None:
    """`expire` wakes who watches the keys of due leases, and leaves the others."""
    clock = HeldClock()
    backend = held(clock)
    woken: list[str] = []
    for name, ttl in (("short", 1), ("long", 10)):
        backend.commit([], [Create(name, b"", backend.lease(ttl))])
        backend.watch(name, partial(woken.append, name))
    clock.advance(1)
    backend.store.expire()
    assert woken == ["short"]
    assert backend.get("long") is not None


@pytest.mark.parametrize("ttl", [0, -1, float("nan")])
def test_a_lease_needs_time(ttl: float) -> None:
    """A lease of no time is ValueError."""
    with pytest.raises(ValueError, match="positive"):
        held().lease(ttl)


def _is_long(names: list[str], length: int) -> bool:
    return len(names) == length


def test_a_lost_lease_wakes_watchers_without_any_call() -> None:
    """On the machine's clock a lease that runs out wakes watchers though nobody asks the store anything."""
    backend = MemoryBackend()
    backend.commit([], [Create("long", b"", backend.lease(300)), Create("plain", b"")])
    woken: list[str] = []
    for number, name in enumerate(("first", "second"), start=1):
        backend.watch(name, partial(woken.append, name))
        backend.commit([], [Create(name, b"", backend.lease(0.5))])
        eventually(partial(_is_long, woken, 2 * number))


def test_the_thread_that_ends_leases_ends_with_them() -> None:
    """It runs while there is a lease, and again when there is one again."""
    backend = MemoryBackend(MemoryStore(name="one-of-its-own"))

    def alive() -> bool:
        return any(thread.name == "smoothcluster-memory-one-of-its-own" for thread in threading.enumerate())

    assert not alive()
    for _ in range(2):
        lease = backend.lease(300)
        assert alive()
        lease.revoke()
        eventually(lambda: not alive())


def test_a_woken_watcher_may_be_waited_for() -> None:
    """Nobody is woken under the store's lock: a watcher that waits for another user of the store cannot block it."""
    backend = held()
    answered: list[object] = []

    def ask_in_another_thread() -> None:
        thread = threading.Thread(target=lambda: answered.append(backend.get("a")), daemon=True)
        thread.start()
        thread.join(30)

    backend.watch("a", ask_in_another_thread)
    backend.commit([], [Create("a", b"")])
    assert len(answered) == 1


def test_a_watch_closed_while_others_are_woken_falls_silent() -> None:
    """Of several watches that one commit wakes, a first that closes the second is the only one called."""
    backend = held()
    woken: list[str] = []
    watches: list[Watch] = []

    def close_the_other() -> None:
        watches[0].close()

    backend.watch("a", close_the_other)
    watches.append(backend.watch("a", lambda: woken.append("second")))
    backend.commit([], [Create("a", b"")])
    assert woken == []


def test_a_watch_does_not_hear_of_deeper_keys() -> None:
    """Only keys directly under the path wake it, and none beside it: other stores do not promise more."""
    backend = held()
    woken: list[None] = []
    backend.watch("a", lambda: woken.append(None))
    backend.commit([], [Create("a/b/c", b""), Create("ab", b""), Create("b/a", b"")])
    assert woken == []


def test_a_watch_without_values_ignores_them() -> None:
    """With values=False an update does not wake it, as it may not on a store that charges for it."""
    backend = held()
    woken: list[None] = []
    backend.commit([], [Create("a", b"")])
    backend.watch("a", lambda: woken.append(None), values=False)
    backend.commit([], [Update("a", b"")])
    assert woken == []


def test_a_closed_client_keeps_nothing_watched() -> None:
    """Closing a client wakes its watches for the last time, and no other's; its calls raise UnavailableError."""
    store = MemoryStore(clock=HeldClock())
    woken: list[str] = []
    closed, stays = MemoryBackend(store), MemoryBackend(store)
    closed.watch("a", lambda: woken.append("closed"))
    stays.watch("a", lambda: woken.append("stays"))
    lease = closed.lease(5)
    closed.close()
    closed.close()
    assert woken == ["closed"]
    stays.commit([], [Create("a", b"")])
    assert woken == ["closed", "stays"]
    for call in (lambda: closed.get("a"), lease.renew, lease.revoke, lambda: closed.watch("a", lambda: None)):
        with pytest.raises(UnavailableError):
            call()


def test_clients_by_one_url_share_a_store() -> None:
    """Within a process a name is one store, and so is no name; others are apart."""
    clients = {
        url: [MemoryBackend.from_url(url) for _ in range(2)] for url in ("memory://", "memory://x", "memory://y")
    }
    for number, (url, (one, same)) in enumerate(clients.items()):
        one.commit([], [Create("test-shared", str(number).encode())])
        entry = same.get("test-shared")
        assert entry is not None
        assert entry.value == str(number).encode()
        assert one.url == url
        one.commit([], [Delete("test-shared")])


@pytest.mark.parametrize(
    "url", ["memory:", "memory:/x", "memory://x/y", "memory://a b", "redis://x", "memory://(private)"]
)
def test_another_url_is_refused(url: str) -> None:
    """What names no store in memory is UsageError, saying what would."""
    with pytest.raises(UsageError, match=r"memory://NAME"):
        MemoryBackend.from_url(url)


def test_a_store_of_ones_own_is_shared_with_nobody() -> None:
    """A client made without a store has a new one, that no URL leads to."""
    one, another = MemoryBackend(), MemoryBackend(clock=SYSTEM_CLOCK)
    one.commit([], [Create("a", b"")])
    assert another.get("a") is None
    with pytest.raises(UsageError):
        MemoryBackend.from_url(one.url)


def test_a_watch_added_at_the_moment_of_the_close_is_no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would never wake: its owner is told at once."""
    backend = held()
    add = backend.store.watches.add

    def close_first(*args: Any, **options: Any) -> Watch:
        backend.close()
        return add(*args, **options)

    monkeypatch.setattr(backend.store.watches, "add", close_first)
    with pytest.raises(BackendClosedError):
        backend.watch("a", lambda: None)
    assert list(backend.store.watches.all()) == []


def test_in_another_process_the_store_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child has a copy of the store, which is not the store: what it made there nobody would see."""
    mine = MemoryBackend.from_url("memory://forked")
    assert isinstance(mine, MemoryBackend)
    mine.commit([], [Create("a", b"")])
    watch = mine.watch("a", lambda: None)
    monkeypatch.setattr(os, "getpid", lambda: 0)
    with pytest.raises(UsageError, match="forked"):
        mine.get("a")
    with pytest.raises(UsageError, match="the store memory://forked belongs to process"):
        MemoryBackend(mine.store)
    watch.close()
    mine.close()
    child = MemoryBackend.from_url("memory://forked")
    assert child.get("a") is None
    assert child.store is MemoryBackend.from_url("memory://forked").store  # type: ignore[union-attr]
    monkeypatch.undo()
    assert mine.get("a") is not None
    assert MemoryBackend.from_url("memory://forked").store is mine.store  # type: ignore[union-attr]
    assert len(mine.store.watches.all()) == 1
    mine.close()
