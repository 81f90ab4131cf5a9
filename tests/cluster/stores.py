"""The kinds of stores that whole groups are tried on, each with what a test may do to it."""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

import pytest
from cluster import topologies
from cluster.topologies import Topology
from memory_store import MemoryStore
from redis_server import RedisServer
from servers import free_port
from sqlite_store import SqliteStore
from zookeeper_server import ZookeeperServer

from smoothcluster.errors import MissingDriverError
from smoothcluster.registry import ENTRY_POINT_GROUP, connect

VARIABLE = "SMOOTHCLUSTER_TEST_BACKENDS"
"""Names the kinds to try, with commas; without it, all that are installed."""


class Store(Protocol):
    """A store of a test's own, which can be taken away and brought back."""

    @property
    @abstractmethod
    def url(self) -> str:
        """What `connect` takes."""

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL; what was acknowledged comes back with `start`."""

    @abstractmethod
    def start(self) -> object:
        """Bring it back under the same address, and wait until it answers."""

    @abstractmethod
    def empty(self) -> None:
        """All data are lost, and it serves again under the same address."""

    @abstractmethod
    def save(self) -> None:
        """Take a backup."""

    @abstractmethod
    def set_back(self) -> None:
        """Restore the backup: what was acknowledged since is lost."""

    @abstractmethod
    def pause(self) -> None:
        """SIGSTOP."""

    @abstractmethod
    def resume(self) -> None:
        """SIGCONT."""

    @abstractmethod
    def stop(self) -> None:
        """End it for good."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How to come by a store of one kind."""

    scheme: str
    shared: Callable[[pytest.FixtureRequest], str]
    """The URL of a store that many tests share. It grants leases of a second, if not less."""
    nowhere: Callable[[], str]
    """A URL at which nothing answers."""
    own: Callable[[], Store] | None = None
    """Start a store for one test, quick to expire a lease. None where there is no server to be killed."""
    plain: Callable[[], Store] | None = None
    """Start a store for one test, with the settings that users have."""
    several: Callable[[], Topology] | None = None
    """Make a store of several servers for one test. None where a store has one place."""

    def __str__(self) -> str:
        return self.scheme


def _shared_zookeeper(request: pytest.FixtureRequest) -> str:
    return f"zookeeper://{request.getfixturevalue('zookeeper_hosts')}"


def _shared_sqlite(request: pytest.FixtureRequest) -> str:
    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    return f"sqlite:///{factory.getbasetemp() / 'shared.db'}"


def _shared_etcd(request: pytest.FixtureRequest) -> str:
    server: Store = request.getfixturevalue("etcd_server")
    return server.url


def _etcd(*, quick: bool) -> Store:
    from etcd_server import QUICK, EtcdServer

    return EtcdServer(QUICK).start() if quick else EtcdServer(fsync=True).start()


def _shared_redis(request: pytest.FixtureRequest) -> str:
    return f"redis://{request.getfixturevalue('redis_hosts')}"


def _shared_memory(request: pytest.FixtureRequest) -> str:
    store: Store = request.getfixturevalue("memory_store")
    return store.url


KINDS: Iterable[Kind] = [
    Kind(
        "memory",
        shared=_shared_memory,
        nowhere=lambda: "memory:///nowhere/cluster.sock",
        own=lambda: MemoryStore().start(),
        plain=lambda: MemoryStore().start(),
    ),
    Kind(
        "sqlite",
        shared=_shared_sqlite,
        nowhere=lambda: "sqlite:////nowhere/cluster.db",
        own=SqliteStore,
        plain=SqliteStore,
    ),
    Kind(
        "etcd",
        shared=_shared_etcd,
        nowhere=lambda: f"etcd://127.0.0.1:{free_port()}",
        own=lambda: _etcd(quick=True),
        plain=lambda: _etcd(quick=False),
        several=topologies.etcd,
    ),
    Kind(
        "redis",
        shared=_shared_redis,
        nowhere=lambda: f"redis://127.0.0.1:{free_port()}",
        own=lambda: RedisServer().start(),
        plain=lambda: RedisServer().start(),
        several=topologies.Sentinels,
    ),
    Kind(
        "zookeeper",
        shared=_shared_zookeeper,
        nowhere=lambda: f"zookeeper://127.0.0.1:{free_port()}",
        own=lambda: ZookeeperServer(tick_time=200).start(),
        plain=lambda: ZookeeperServer(tick_time=2000, force_sync=True).start(),
        several=topologies.zookeeper,
    ),
]


def installed() -> set[str]:
    """The schemes whose driver is there; one for each backend."""
    points = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: len(point.name), reverse=True)
    shortest = {point.value: point.name for point in points}
    return {scheme for scheme in shortest.values() if _has_driver(scheme)}


def _has_driver(scheme: str) -> bool:
    try:
        connect(f"{scheme}://").close()
    except MissingDriverError:
        return False
    except Exception:  # noqa: BLE001 - it was loaded, and objects to an empty address
        return True
    return True


def wanted() -> list[Kind]:
    """The kinds to try in this run."""
    named = os.environ.get(VARIABLE)
    names = {name.strip() for name in named.split(",")} if named else installed()
    unknown = names - {kind.scheme for kind in KINDS}
    if unknown:
        raise pytest.UsageError(f"no kind of store for {', '.join(sorted(unknown))}: give it a place in {__file__}")
    return [kind for kind in KINDS if kind.scheme in names]
