"""The fixtures of tests on every store: a store of each kind, and groups of real processes."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cluster.group import Group, NewGroup
from cluster.stores import Kind, Store, wanted
from cluster.topologies import Topology

__all__ = ["group", "kind", "mark_slow", "new_group", "own_store", "plain_store", "store", "topology"]


def mark_slow(items: Iterable[pytest.Item], folder: Path) -> None:
    """Leave the tests of whole groups in *folder* to one version of Python, except those marked `quick`."""
    for item in items:
        on_each_store = item.path.parent == folder and "kind" in getattr(item, "fixturenames", ())
        if on_each_store and item.get_closest_marker("quick") is None:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", params=wanted(), ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """One kind of store after the other."""
    chosen: Kind = request.param
    return chosen


@pytest.fixture
def store(kind: Kind, request: pytest.FixtureRequest) -> str:
    """The URL of a store that others use, too: never to be stopped."""
    return kind.shared(request)


@pytest.fixture
def own_store(kind: Kind) -> Iterator[Store]:
    """A store that is the test's alone, with leases of 0.4 to 4 seconds."""
    yield from _started(kind, kind.own)


@pytest.fixture
def plain_store(kind: Kind) -> Iterator[Store]:
    """A store that is the test's alone, set up as users do."""
    yield from _started(kind, kind.plain)


def _started(kind: Kind, start: Callable[[], Store] | None) -> Iterator[Store]:
    if start is None:
        pytest.skip(f"{kind} has no server")
    server = start()
    yield server
    server.stop()


@pytest.fixture
def topology(kind: Kind) -> Iterator[Topology]:
    """A store of several servers that is the test's alone, set up as users do."""
    if kind.several is None:
        pytest.skip(f"{kind} has one place")
    servers = kind.several()
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


@pytest.fixture
def new_group(store: str, tmp_path: Path) -> Iterator[NewGroup]:
    """Make a group in `store`, or at another *url*; its processes end with the test."""
    with ExitStack() as stack:

        def make(url: str | None = None, **options: Any) -> Group:
            return stack.enter_context(Group(url or store, tmp_path, **options))

        yield make


@pytest.fixture
def group(new_group: NewGroup) -> Group:
    """A group for three Runners and two Backup Runners, with leases of ten seconds."""
    return new_group()
