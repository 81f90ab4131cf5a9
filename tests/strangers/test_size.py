"""Large directories and many watches: every call ends within the timeout, and every watch hears of the last change."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from smoothcluster.backend import Committed, CoordinationBackend, Create, Guarantees, Update
from smoothcluster.errors import OutcomeUnknownError, StoreLimitError
from smoothcluster.registry import connect
from smoothcluster.testing.conformance.kit import Wakes, create, fill

Client = Callable[..., CoordinationBackend]


@pytest.fixture
def client(store: str) -> Iterator[Client]:
    """Makes clients of one part of the store."""
    clients: list[CoordinationBackend] = []
    group = f"size-{secrets.token_hex(4)}"

    def make(**options: Any) -> CoordinationBackend:
        clients.append(connect(store, **options))
        return clients[-1].for_group(group)

    yield make
    for each in clients:
        each.close()


@pytest.fixture
def root() -> str:
    """A directory of this test."""
    return f"size-{secrets.token_hex(4)}"


def lower(monkeypatch: pytest.MonkeyPatch, bound: str, most: int) -> None:
    """Have the guarantees of every store say *most*, however they were made."""
    monkeypatch.setattr(Guarantees, bound, property(lambda _: most, lambda _, __: None))


SIZES = [pytest.param(5000, id="short"), pytest.param(100_000, id="long", marks=pytest.mark.long)]


@pytest.mark.parametrize("size", SIZES)
def test_a_large_directory_is_listed_and_watched(client: Client, root: str, size: int) -> None:
    """With the default timeout: its names, its entries, and a change of any of its keys."""
    backend, other = client(), client()
    names = fill(other, root, size, b"old")
    backend.sync()
    assert backend.keys(root) == names
    assert [entry.key for entry in backend.list(root)] == names
    wakes = Wakes()
    with closing(backend.watch(root, wakes)):
        for number, name in enumerate((names[0], names[size // 2], names[-1])):
            backend.sync()
            before = wakes.count
            assert isinstance(other.commit([], [Update(name, f"new-{number}".encode())]), Committed)
            wakes.since(before)
        before = wakes.count
        create(other, f"{root}/new")
        wakes.since(before)
    outcome, entries = backend.commit_and_list([], [Create(f"{root}/newer", b"")], root)
    assert isinstance(outcome, Committed)
    assert len(entries) == size + 2
    assert entries[-1].key == f"{root}/newer"


@pytest.mark.parametrize(
    "count", [pytest.param(300, id="short"), pytest.param(1000, id="long", marks=pytest.mark.long)]
)
def test_many_watches_of_keys_beside_as_many_of_their_directory(client: Client, root: str, count: int) -> None:
    """A new key wakes all of the directory's, a new value also the one of its key."""
    backend, other = client(), client()
    names = fill(other, root, count, b"old")
    backend.sync()
    of_keys, of_directory = [Wakes() for _ in names], [Wakes() for _ in names]
    for name, of_key, of_all in zip(names, of_keys, of_directory, strict=True):
        backend.watch(name, of_key)
        backend.watch(root, of_all)
    for change, woken in (
        (Create(f"{root}/new", b""), of_directory),
        (Update(names[7], b"new"), [*of_directory, of_keys[7]]),
    ):
        backend.sync()
        before = [wakes.count for wakes in woken]
        assert isinstance(other.commit([], [change]), Committed)
        for wakes, count_before in zip(woken, before, strict=True):
            wakes.since(count_before)


def test_beyond_the_bound_a_listing_is_refused(client: Client, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the bound, which is the one in `guarantees`; a commit there is applied, and others are listed."""
    lower(monkeypatch, "largest_directory", 50)
    backend = client()
    assert backend.guarantees.largest_directory == 50
    names = fill(backend, f"{root}/a", 50)
    assert backend.keys(f"{root}/a") == [entry.key for entry in backend.list(f"{root}/a")] == names
    create(backend, f"{root}/a/more")
    for listing in (backend.keys, backend.list):
        with pytest.raises(StoreLimitError, match="50 at most"):
            listing(f"{root}/a")
    with pytest.raises(OutcomeUnknownError, match="50 at most"):
        backend.commit_and_list([], [Create(f"{root}/a/yet-more", b"")], f"{root}/a")
    assert backend.get(f"{root}/a/yet-more") is not None
    create(backend, f"{root}/b/1")
    assert backend.keys(root) == [f"{root}/a", f"{root}/b"]
    assert backend.keys(f"{root}/b") == [f"{root}/b/1"]


def test_beyond_the_bound_a_watch_is_refused(client: Client, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until another one is closed. Those of another client do not count."""
    lower(monkeypatch, "most_watches", 20)
    backend, other = client(), client()
    watches = [backend.watch(root, Wakes()) for _ in range(20)]
    with pytest.raises(StoreLimitError, match="20 at most"):
        backend.watch(root, Wakes())
    other.watch(root, Wakes())
    watches[3].close()
    watches[3].close()
    wakes = Wakes()
    backend.watch(root, wakes)
    with pytest.raises(StoreLimitError):
        backend.watch(root, Wakes())
    backend.sync()
    before = wakes.count
    create(other, f"{root}/a")
    wakes.since(before)


@pytest.mark.long
def test_the_bounds_are_what_the_store_takes(client: Client, root: str) -> None:
    """As many names, and as many watches, as `guarantees` has; given the time that they need."""
    backend, other = client(timeout=120.0), client(timeout=120.0)
    bounds = backend.guarantees
    names = fill(other, root, bounds.largest_directory)
    backend.sync()
    assert backend.keys(root) == [entry.key for entry in backend.list(root)] == names
    woken = [Wakes() for _ in range(bounds.most_watches)]
    for name, wakes in zip(names, woken, strict=False):
        backend.watch(name, wakes)
    backend.sync()
    before = [wakes.count for wakes in woken]
    for name in (names[0], names[bounds.most_watches - 1]):
        assert isinstance(other.commit([], [Update(name, b"new")]), Committed)
    woken[0].since(before[0])
    woken[-1].since(before[-1])
