"""The Redis backend on real servers: the contract, and what only Redis does."""

import secrets
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test  # pyright: ignore[reportUnknownVariableType]
from redis_server import RedisServer
from servers import Proxy
from smoothcluster_redis import RedisBackend
from smoothcluster_redis.lease import RedisLease

from smoothcluster.backend import CoordinationBackend, Lease
from smoothcluster.testing import Ability, BackendConformance, backend_machine


def expire(lease: Lease, hosts: str, **options: str) -> None:
    """Have the store end a lease, as when its time is over."""
    assert isinstance(lease, RedisLease)
    namespace = lease._servers.address.namespace  # pyright: ignore[reportPrivateUsage]
    other = RedisBackend(hosts, namespace=namespace, **options)  # type: ignore[arg-type]
    other._servers.run("revoke", [lease.id])  # pyright: ignore[reportPrivateUsage]
    other.close()


class TestRedis(BackendConformance):
    """A server that all tests share, each in a namespace of its own; each client through a proxy that can be cut."""

    abilities = frozenset({Ability.CUT})

    @pytest.fixture(autouse=True)
    def _server(self, redis_hosts: str) -> Iterator[None]:
        self.hosts = redis_hosts
        self.namespace = f"test-{secrets.token_hex(8)}"
        self.proxies: dict[CoordinationBackend, Proxy] = {}
        yield
        for proxy in self.proxies.values():
            proxy.close()

    def connect(self) -> CoordinationBackend:
        """A client with a proxy of its own."""
        proxy = Proxy(int(self.hosts.partition(":")[2]))
        client = RedisBackend(proxy.hosts, namespace=self.namespace, timeout=1.0)
        self.proxies[client] = proxy
        return client

    def expire(self, lease: Lease) -> None:
        """Take it away before its time."""
        expire(lease, self.hosts)

    def cut(self, backend: CoordinationBackend) -> None:
        """Both ends stay connected to the proxy, which lets nothing pass."""
        self.proxies[backend].cut()

    def mend(self, backend: CoordinationBackend) -> None:
        """What was held back arrives."""
        self.proxies[backend].mend()
