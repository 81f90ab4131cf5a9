"""Stores of several servers, each as a test sees them: one leads, and what happens when it is killed."""

from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Protocol, final

from redis_server import RedisSentinels, RedisServer
from servers import wait
from zookeeper_server import ZookeeperEnsemble, ZookeeperServer

if TYPE_CHECKING:
    from etcd_server import EtcdEnsemble, EtcdServer  # Needs its driver, which is not always there.


class Topology(Protocol):
    """Servers of a test's own, of which one may fail at a time."""

    @property
    @abstractmethod
    def url(self) -> str:
        """What `connect` takes."""

    @abstractmethod
    def start(self) -> None:
        """Start all, and wait until they serve and one could replace another."""

    @abstractmethod
    def run_ahead(self) -> None:
        """From now on let the leader acknowledge what no other server has, if it is one to do that."""

    @abstractmethod
    def kill_leader(self) -> None:
        """SIGKILL the server that leads now."""

    @abstractmethod
    def heal(self) -> None:
        """Start again what was killed, and wait until one could replace another."""

    @abstractmethod
    def stop(self) -> None:
        """End all for good."""


@final
class Quorum:
    """Three servers that agree before they acknowledge."""

    def __init__(self, scheme: str, ensemble: "ZookeeperEnsemble | EtcdEnsemble") -> None:
        self._scheme, self._ensemble = scheme, ensemble
        self._dead: list[ZookeeperServer | EtcdServer] = []

    @property
    def url(self) -> str:
        """All three."""
        return f"{self._scheme}://{self._ensemble.hosts}"

    def start(self) -> None:
        """Start all three; they answer once one leads."""
        self._ensemble.start()

    def run_ahead(self) -> None:
        """None of these does."""

    def kill_leader(self) -> None:
        """SIGKILL; the two others elect."""
        leader = self._ensemble.leader
        leader.kill()
        self._dead.append(leader)

    def heal(self) -> None:
        """Start it again; it answers once it follows."""
        while self._dead:
            self._dead.pop().start()

    def stop(self) -> None:
        """End all that still run."""
        self._ensemble.stop()


def zookeeper() -> Topology:
    """Three nodes with their default settings, but for waiting for the disk."""
    return Quorum("zookeeper", ZookeeperEnsemble())


def etcd() -> Topology:
    """Likewise."""
    from etcd_server import EtcdEnsemble

    return Quorum("etcd", EtcdEnsemble())


@final
class Sentinels:
    """A primary, a replica, and three Sentinels."""

    def __init__(self) -> None:
        self._servers = RedisSentinels()
        self._dead: list[RedisServer] = []

    @property
    def url(self) -> str:
        """The Sentinels."""
        return f"redis+sentinel://{self._servers.hosts}/{RedisSentinels.SERVICE}/0"

    def start(self) -> None:
        """Start all, and wait until a failover would succeed."""
        self._servers.start()

    def run_ahead(self) -> None:
        """The replica is thrown out and not let in again: for five seconds, or it is too far behind to be promoted."""
        leader = self._leader()
        assert leader.ask("ACL", "SETUSER", "default", "-psync", "-sync") == "OK"
        assert leader.ask("CLIENT", "KILL", "TYPE", "replica") == "1"

    def kill_leader(self) -> None:
        """SIGKILL; the Sentinels promote the other."""
        leader = self._leader()
        leader.kill()
        self._dead.append(leader)

    def heal(self) -> None:
        """Start it again, as the replica that a Sentinel would make of it sooner or later."""
        leader = self._leader()
        while self._dead:
            server = self._dead.pop()
            server.start()
            server.ask("REPLICAOF", "127.0.0.1", leader.port)
        for each in self._living:
            if each is not leader:
                wait(partial(_says, each, "master_link_status:up"), "the replica")

    def stop(self) -> None:
        """End all that still run."""
        self._servers.stop()

    @property
    def _living(self) -> list[RedisServer]:
        return [each for each in (self._servers.primary, self._servers.replica) if each not in self._dead]

    def _leader(self) -> RedisServer:
        wait(lambda: any(_says(each, "role:master") for each in self._living), "a primary")
        return next(each for each in self._living if _says(each, "role:master"))


def _says(server: RedisServer, what: str) -> bool:
    return what in server.ask("INFO", "replication")
