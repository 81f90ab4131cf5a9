"""Real Redis servers for tests and benchmarks: plain processes on free ports of the loopback, ended by their pid."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, final

from servers import ServerMissingError, free_port

from smoothcluster.clock import SYSTEM_CLOCK

_START = 60.0
"""Seconds that a server, or several together, may take to be ready."""


def wait(ready: Callable[[], bool], what: str) -> None:
    """Wait until *ready*; raise RuntimeError, with *what* was waited for, if that takes too long."""
    until = SYSTEM_CLOCK.monotonic() + _START
    while not ready():
        if SYSTEM_CLOCK.monotonic() > until:
            raise RuntimeError(f"waited {_START:g} s for {what}")
        SYSTEM_CLOCK.sleep(0.02)


@final
class RedisServer:
    """One Redis server with its own folder, which outlives `kill` and `restart` and goes with `stop`.

    What it acknowledged is on the disk, unless *settings*, which are further lines of redis.conf
    and win over ours, say otherwise. A setting that is to be given several times is a list.
    With *sentinel* it is a Sentinel.
    """

    def __init__(self, settings: Mapping[str, object] | None = None, *, sentinel: bool = False) -> None:
        self.port: int = free_port()
        self._sentinel = sentinel
        self._folder = Path(tempfile.mkdtemp(prefix="smoothcluster-redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        lines: dict[str, object] = {"port": self.port, "bind": "127.0.0.1", "dir": self._folder}
        if not sentinel:
            lines |= {"appendonly": "yes", "appendfsync": "always", "save": '""', "repl-diskless-sync-delay": 0}
        self.configure({**lines, **(settings or {})})

    def configure(self, settings: Mapping[str, object]) -> None:
        """Write its configuration anew, for the next start."""
        lines: list[str] = []
        for name, value in settings.items():
            lines += [f"{name} {each}" for each in (value if isinstance(value, list) else [value])]  # pyright: ignore[reportUnknownVariableType]
        (self._folder / "redis.conf").write_text("\n".join([*lines, ""]))

    @property
    def hosts(self) -> str:
        """What `RedisBackend` takes."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What `connect` takes."""
        return f"redis://{self.hosts}"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def start(self) -> Self:
        """Start it and wait until it answers. Raise ServerMissingError if it is not installed."""
        program = shutil.which("redis-server")
        if program is None:
            raise ServerMissingError("no redis-server found: apt-get install redis-server")
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, str(self._folder / "redis.conf"), *(["--sentinel"] if self._sentinel else [])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # A Ctrl-C meant for the tests ends it through them, not before them.
            )
        try:
            wait(self._answers, "Redis to start")
        except RuntimeError as error:
            text = (self._folder / "log").read_text(errors="replace")[-4000:]
            self.stop()
            raise RuntimeError(f"Redis did not start:\n{text}") from error
        return self

    def stop(self) -> None:
        """End it for good, and remove its folder. Repeatable."""
        self._end(signal.SIGTERM)
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL: what was acknowledged is in its folder."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill it and start it again on the same port."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: its connections stay, and nothing is answered. Return when every thread has stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        wait(lambda: all(state == "T" for state in self._states()), "Redis to stop")

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def ask(self, *words: object) -> str:
        """The answer to one command, through redis-cli, which needs no driver of ours; also its complaint."""
        command = ["redis-cli", "-p", str(self.port), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout.strip()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _states(self) -> Iterable[str]:
        paths = Path(f"/proc/{self.pid}/task").glob("*/stat")
        return [path.read_text().rpartition(")")[2].split()[0] for path in paths]

    def _answers(self) -> bool:
        """Whether it serves: whatever it says or does, but to say that it reads its data. It may speak TLS."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError("Redis ended")
        try:
            connection = socket.create_connection(("127.0.0.1", self.port), 1.0)
        except OSError:
            return False
        with connection, suppress(ConnectionResetError):
            connection.sendall(b"PING\r\n")
            return not connection.recv(100).startswith(b"-LOADING")
        return True


@final
class RedisSentinels:
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

    @property
    def hosts(self) -> str:
        """The Sentinels."""
        return ",".join(each.hosts for each in self.sentinels)

    def start(self) -> Self:
        """Start all, and wait until a failover would succeed."""
        try:
            for server in (self.primary, self.replica, *self.sentinels):
                server.start()
            wait(lambda: "master_link_status:up" in self.replica.ask("INFO", "replication"), "the replica")
            for sentinel in self.sentinels:
                wait(lambda each=sentinel: self._is_ready(each), "the Sentinels")  # type: ignore[misc]  # mypy cannot infer a lambda's default
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all. Repeatable."""
        for server in (*self.sentinels, self.replica, self.primary):
            server.stop()

    def promoted(self) -> bool:
        """Whether the replica has become the primary."""
        return "role:master" in self.replica.ask("INFO", "replication")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _is_ready(self, sentinel: RedisServer) -> bool:
        known = sentinel.ask("INFO", "sentinel")
        return "slaves=1" in known and "sentinels=3" in known


@final
class RedisCluster:
    """Three nodes of a Redis Cluster, each with a third of the slots."""

    def __init__(self) -> None:
        self.nodes = [
            RedisServer({"cluster-enabled": "yes", "cluster-port": free_port(), "cluster-node-timeout": 2000})
            for _ in range(3)
        ]

    @property
    def hosts(self) -> str:
        """All three."""
        return ",".join(node.hosts for node in self.nodes)

    def start(self) -> Self:
        """Start them and wait until they know of each other."""
        try:
            for node in self.nodes:
                node.start()
            subprocess.run(
                ["redis-cli", "--cluster", "create", *(node.hosts for node in self.nodes), "--cluster-yes"],
                check=True,
                capture_output=True,
                timeout=60,
            )
            for node in self.nodes:
                wait(lambda each=node: "cluster_state:ok" in each.ask("CLUSTER", "INFO"), "the cluster")  # type: ignore[misc]  # mypy cannot infer a lambda's default
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all. Repeatable."""
        for node in self.nodes:
            node.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
