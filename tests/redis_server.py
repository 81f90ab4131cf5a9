"""Real Redis servers for tests and benchmarks: plain processes on free ports of the loopback, ended by their pid."""

import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Self, final

from servers import Server, Servers, free_port, not_installed


@final
class RedisServer(Server):
    """One Redis server.

    What it acknowledged is on the disk, unless *settings*, which are further lines of redis.conf
    and win over ours, say otherwise. A setting that is to be given several times is a list.
    With *sentinel* it is a Sentinel.
    """

    scheme = "redis"
    data = "appendonlydir"

    def __init__(self, settings: Mapping[str, object] | None = None, *, sentinel: bool = False) -> None:
        super().__init__()
        self._sentinel = sentinel
        lines: dict[str, object] = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder}
        if not sentinel:
            lines |= {"appendonly": "yes", "appendfsync": "always", "save": '""', "repl-diskless-sync-delay": 0}
        self.configure({**lines, **(settings or {})})

    def configure(self, settings: Mapping[str, object]) -> None:
        """Write its configuration anew, for the next start."""
        lines: list[str] = []
        for name, value in settings.items():
            lines += [f"{name} {each}" for each in (value if isinstance(value, list) else [value])]  # pyright: ignore[reportUnknownVariableType]
        (self.folder / "redis.conf").write_text("\n".join([*lines, ""]))

    def command(self) -> Sequence[str]:
        """Itself, with its configuration."""
        program = shutil.which("redis-server")
        if program is None:
            not_installed("redis-server", "redis-server")
        return [program, str(self.folder / "redis.conf"), *(["--sentinel"] if self._sentinel else [])]

    def save(self) -> None:
        """Take a backup of the running server: each restart is a new history. A torn last command is left out."""
        shutil.copytree(self.folder / self.data, self.folder / "backup")

    def ask(self, *words: object) -> str:
        """The answer to one command, through redis-cli, which needs no driver of ours; also its complaint."""
        command = ["redis-cli", "-p", str(self.port), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout.strip()

    def answers(self) -> bool:
        """Whether it serves: whatever it says or does, but to say that it reads its data. It may speak TLS."""
        try:
            connection = socket.create_connection(("127.0.0.1", self.port), 1.0)
        except OSError:
            return False
        with connection, suppress(ConnectionResetError):
            connection.sendall(b"PING\r\n")
            return not connection.recv(100).startswith(b"-LOADING")
        return True


@final
class RedisSentinels(Servers[RedisServer]):
    """A primary, a replica, and three Sentinels that make the replica the primary when that one is gone."""

    SERVICE = "crawlers"

    def __init__(self, settings: Mapping[str, object] | None = None) -> None:
        self.primary = RedisServer(settings)
        self.replica = RedisServer({**(settings or {}), "replicaof": f"127.0.0.1 {self.primary.port}"})
        watched = [
            f"monitor {self.SERVICE} 127.0.0.1 {self.primary.port} 2",
            f"down-after-milliseconds {self.SERVICE} 500",
            f"failover-timeout {self.SERVICE} 3000",
        ]
        self.sentinels = [RedisServer({"sentinel": watched}, sentinel=True) for _ in range(3)]
        super().__init__([self.primary, self.replica, *self.sentinels])

    @property
    def hosts(self) -> str:
        """The Sentinels."""
        return ",".join(each.hosts for each in self.sentinels)

    def start(self) -> Self:
        """Start all, and wait until a failover would succeed."""
        self.primary.start()  # The others look for it only once a second.
        return super().start()

    def agree(self) -> bool:
        """Whether the replica follows, and each Sentinel knows of all."""
        said = [each.ask("INFO", "sentinel") for each in self.sentinels]
        knowing = all("slaves=1" in known and "sentinels=3" in known for known in said)
        return knowing and "master_link_status:up" in self.replica.ask("INFO", "replication")

    def promoted(self) -> bool:
        """Whether the replica has become the primary."""
        return "role:master" in self.replica.ask("INFO", "replication")


@final
class RedisCluster(Servers[RedisServer]):
    """Three nodes of a Redis Cluster, each with a third of the slots."""

    def __init__(self) -> None:
        settings = {"cluster-enabled": "yes", "cluster-node-timeout": 2000}
        super().__init__([RedisServer({**settings, "cluster-port": free_port()}) for _ in range(3)])
        self._created = False

    def agree(self) -> bool:
        """Whether they know of each other: they are told once they run."""
        if not self._created:
            create = ["redis-cli", "--cluster", "create", *(node.hosts for node in self.servers), "--cluster-yes"]
            subprocess.run(create, check=True, capture_output=True, timeout=60)
            self._created = True
        return all("cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in self.servers)
