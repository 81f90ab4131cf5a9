"""The memory backend against the contract: as weak as it comes, promising more, on the machine's clock."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test  # pyright: ignore[reportUnknownVariableType]
from proxy import Proxy

from smoothcluster import connect
from smoothcluster.backend import CoordinationBackend, Guarantees, Lease
from smoothcluster.memory import WEAKEST, MemoryBackend, MemoryStore, SocketBackend
from smoothcluster.memory.server import MemoryServer
from smoothcluster.testing import Ability, BackendConformance, Faulty, HeldClock, Lagging, backend_machine
from smoothcluster.testing.conformance.connection import ConnectionRules

COARSE = replace(
    WEAKEST,
    survives_failover=True,
    unique_versions=True,
    shortest_ttl=4.0,
    longest_ttl=40.0,
    ttl_step=2.0,
    most_operations=64,
)


class TestMemory(BackendConformance):
    """As weak as the contract allows, on a held clock, through connections that can be cut."""

    abilities = frozenset({Ability.CUT})
    guarantees = WEAKEST

    @pytest.fixture(autouse=True)
    def _store(self) -> None:
        self.clients: list[Faulty] = []
        self.clock = HeldClock()
        self.store = MemoryStore(clock=self.clock, guarantees=self.guarantees)
        self.clock.listeners.append(self.store.expire)

    def connect(self) -> CoordinationBackend:
        """A new client of this test's store."""
        client = Faulty(MemoryBackend(self.store))
        self.clients.append(client)
        return client

    def expire(self, lease: Lease) -> None:
        """Wait it out."""
        self.clock.advance(lease.ttl)

    def cut(self, backend: CoordinationBackend) -> None:
        """As the wrapper does it."""
        assert isinstance(backend, Faulty)
        backend.cut()

    def mend(self, backend: CoordinationBackend) -> None:
        """As the wrapper does it."""
        assert isinstance(backend, Faulty)
        backend.mend()

    def pass_time(self, seconds: float) -> None:
        """No time passes but this."""
        self.clock.advance(seconds)


class TestMemoryWithUniqueVersions(TestMemory):
    """Another store's promises: versions never repeat, lease times are coarse, a restart forgets nothing."""

    abilities = frozenset({Ability.CUT, Ability.RESTART})
    guarantees = COARSE

    def restart_store(self) -> None:
        """As its clients see it: they are cut off, and then not."""
        for client in self.clients:
            client.cut()
            client.mend()


class TestMemoryOnTheMachinesClock(BackendConformance):
    """As users get it: leases run out by themselves, with no call to help them."""

    ttl = 10.0

    @pytest.fixture(autouse=True)
    def _store(self) -> None:
        self.store = MemoryStore()

    def connect(self) -> CoordinationBackend:
        """A new client of this test's store."""
        return MemoryBackend(self.store)

    def expire(self, lease: Lease) -> None:
        """Take it away before its time."""
        self.store.end(lease.id)


class TestMemoryThroughLaggingClients(BackendConformance):
    """Reads that lag, as a ZooKeeper follower's do, keep to the contract: no rule asks for more than it."""

    @pytest.fixture(autouse=True)
    def _store(self) -> Iterator[None]:
        self.clock = HeldClock()
        self.store = MemoryStore(clock=self.clock)
        self.clock.listeners.append(self.store.expire)
        self.clients: list[Lagging] = []
        stop = threading.Event()

        def catch_up() -> None:
            while not stop.wait(0.01):
                for client in self.clients:
                    client.catch_up()

        thread = threading.Thread(target=catch_up)
        thread.start()
        yield
        stop.set()
        thread.join()

    def connect(self) -> CoordinationBackend:
        """A client that is up to a hundredth of a second behind."""
        client = Lagging(self.store)
        self.clients.append(client)
        return client

    def expire(self, lease: Lease) -> None:
        """Take it away before its time."""
        self.store.end(lease.id)

    def pass_time(self, seconds: float) -> None:
        """No time passes but this."""
        self.clock.advance(seconds)


class TestMemoryThroughASocket(BackendConformance):
    """As other processes reach it, through connections that can be cut. A server that is killed takes all with it."""

    abilities = frozenset({Ability.CUT, Ability.RESTART})

    @pytest.fixture(autouse=True)
    def _server(self, tmp_path: Path) -> Iterator[None]:
        self.path = tmp_path / "store"
        self.proxies: dict[CoordinationBackend, Proxy] = {}
        self.server = MemoryServer(self.path).start()
        yield
        for proxy in self.proxies.values():
            proxy.close()
        self.server.stop()

    def connect(self) -> CoordinationBackend:
        """A client with a proxy of its own."""
        proxy = Proxy(self.path)
        client = SocketBackend(proxy.path, timeout=2.0)
        self.proxies[client] = proxy
        return client

    def expire(self, lease: Lease) -> None:
        """Take it away before its time."""
        end_lease(self.server, lease)

    def cut(self, backend: CoordinationBackend) -> None:
        """Both ends stay connected to the proxy, which lets nothing pass."""
        self.proxies[backend].cut()

    def mend(self, backend: CoordinationBackend) -> None:
        """What was held back arrives."""
        self.proxies[backend].mend()

    def restart_store(self) -> None:
        """Another server, which has nothing."""
        self.server.stop()
        self.server = MemoryServer(self.path).start()


class TestMemoryAwayForAWhile(ConnectionRules):
    """The rules for outages, on a store that is taken away and brought back with what it held."""

    abilities = frozenset({Ability.RESTART})

    @pytest.fixture(autouse=True)
    def _server(self, tmp_path: Path) -> Iterator[None]:
        with MemoryServer(tmp_path / "store") as self.server:
            yield

    def connect(self) -> CoordinationBackend:
        """A client."""
        return connect(self.server.url)

    def expire(self, lease: Lease) -> None:
        """Take it away before its time."""
        end_lease(self.server, lease)

    def restart_store(self) -> None:
        """Every connection is lost."""
        self.server.stop()
        self.server.start()


def end_lease(server: MemoryServer, lease: Lease) -> None:
    """Have *server* end it before its time."""
    with closing(SocketBackend(server.url.removeprefix("memory://"))) as stranger:
        stranger.ask(lambda got: None, ["end", lease.id])


@pytest.mark.parametrize("expiring", [False, True], ids=["", "expiring"])
def test_random_moves_through_a_socket(tmp_path: Path, expiring: bool) -> None:
    """Likewise between processes."""
    with MemoryServer(tmp_path / "store") as server:
        expire = partial(end_lease, server) if expiring else None
        machine = backend_machine(lambda: connect(server.url), expire)
        run_state_machine_as_test(machine, settings=settings(deadline=None, max_examples=10))


@pytest.mark.parametrize("guarantees", [WEAKEST, COARSE], ids=["weakest", "coarse"])
@pytest.mark.parametrize("client", [MemoryBackend, Lagging])
def test_random_moves(guarantees: Guarantees, client: Callable[[MemoryStore], CoordinationBackend]) -> None:
    """Whatever two clients do, the store holds what a dict would, and wakes whom it should."""
    clock = HeldClock()
    store = MemoryStore(clock=clock, guarantees=guarantees)
    clock.listeners.append(store.expire)
    machine = backend_machine(lambda: client(store), lambda lease: clock.advance(lease.ttl))
    run_state_machine_as_test(machine, settings=settings(deadline=None, max_examples=60))
