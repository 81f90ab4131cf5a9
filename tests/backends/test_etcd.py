"""The etcd backend on real servers: the contract, and what only etcd does."""

import secrets
from collections.abc import Iterator

import pytest
from etcd_server import EtcdServer, rpc
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test  # pyright: ignore[reportUnknownVariableType]
from servers import Proxy
from smoothcluster_etcd import EtcdBackend

from smoothcluster.backend import CoordinationBackend, Lease
from smoothcluster.testing import Ability, BackendConformance, backend_machine, eventually
from smoothcluster.testing.conformance_connection import ConnectionRules


def expire(lease: Lease, server: EtcdServer) -> None:
    """End it as an expiry does: by somebody else's doing."""
    server.ask("Lease", "LeaseRevoke", rpc.LeaseRevokeRequest(ID=int(lease.id, 16)))


class TestEtcd(BackendConformance):
    """A server with quick elections that all tests share, each in a namespace of its own."""

    @pytest.fixture(autouse=True)
    def _server(self, etcd_server: EtcdServer) -> None:
        self.server = etcd_server
        self.namespace = f"test-{secrets.token_hex(8)}"

    def connect(self) -> CoordinationBackend:
        """A client that can tell what the server grants."""
        client = EtcdBackend(self.server.hosts, namespace=self.namespace)
        client.get("a")
        return client

    def expire(self, lease: Lease) -> None:
        """Take it away before its time."""
        expire(lease, self.server)


@pytest.fixture(scope="module")
def outage_server() -> Iterator[EtcdServer]:
    """A server that one class's tests restart."""
    with EtcdServer() as server:
        yield server


class TestEtcdOutages(ConnectionRules):
    """The rules for outages, on a server that can be restarted, through connections that can be cut."""

    abilities = frozenset({Ability.CUT, Ability.RESTART})

    server: EtcdServer

    @pytest.fixture(autouse=True)
    def _proxies(self, outage_server: EtcdServer) -> Iterator[None]:
        self.server = outage_server
        self.proxies: dict[CoordinationBackend, Proxy] = {}
        yield
        for proxy in self.proxies.values():
            proxy.close()

    def connect(self) -> CoordinationBackend:
        """A client with a proxy of its own."""
        proxy = Proxy(self.server.port)
        client = EtcdBackend(proxy.hosts, timeout=1.0)
        self.proxies[client] = proxy
        return client

    def expire(self, lease: Lease) -> None:
        """Take it away before its time."""
        expire(lease, self.server)

    def cut(self, backend: CoordinationBackend) -> None:
        """Both ends stay connected to the proxy, which lets nothing pass."""
        self.proxies[backend].cut()

    def mend(self, backend: CoordinationBackend) -> None:
        """What was held back arrives."""
        self.proxies[backend].mend()

    def restart_store(self) -> None:
        """SIGKILL, and start again."""
        self.server.restart()


@pytest.mark.parametrize("expiring", [False, True], ids=["", "expiring"])
def test_random_moves(etcd_server: EtcdServer, expiring: bool) -> None:
    """Whatever two clients do, the store holds what a dict would, and wakes whom it should."""
    machine = backend_machine(
        lambda: EtcdBackend(etcd_server.hosts, namespace="test-machine"),
        (lambda lease: expire(lease, etcd_server)) if expiring else None,
    )
    run_state_machine_as_test(
        machine,
        settings=settings(
            deadline=None, max_examples=12, stateful_step_count=25, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
