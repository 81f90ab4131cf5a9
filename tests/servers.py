"""Real servers for tests and benchmarks: plain processes on free ports of the loopback, ended by their pid."""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, final

from smoothcluster.clock import SYSTEM_CLOCK

_JARS = Path("/usr/share/java")
_CLASSES = (
    "zookeeper.jar",
    "zookeeper-jute.jar",
    "slf4j-api.jar",
    "slf4j-log4j12.jar",
    "log4j-1.2.jar",
    "netty*.jar",
    "commons-cli.jar",
    "snappy-java.jar",
    "metrics-core.jar",
)
_START = 60.0
"""Seconds that a server may take to answer."""


class ServerMissingError(Exception):
    """A server cannot be started here; the message says what to install."""


def free_port() -> int:
    """A port of the loopback that nobody listens on.

    Not one of those that the system gives to outgoing connections: one of them could take it
    before the server does, which needs a second to start.
    """
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@final
class ZookeeperServer:
    """One ZooKeeper server with its own folder, which outlives `kill` and `restart` and goes with `stop`.

    *tick_time* in milliseconds: leases are granted 2 to 20 of them. *force_sync* is ZooKeeper's
    default, and slower: every commit is on the disk before it is answered. *settings* are further
    lines of zoo.cfg, which win over ours. *number* is its own among those of an ensemble.
    """

    def __init__(
        self,
        tick_time: int = 2000,
        *,
        force_sync: bool = False,
        settings: Mapping[str, object] | None = None,
        number: int | None = None,
    ) -> None:
        self.port: int = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="smoothcluster-zookeeper-"))
        self._process: subprocess.Popen[bytes] | None = None
        lines = {
            "tickTime": tick_time,
            "dataDir": self._folder / "data",
            "clientPort": self.port,
            "clientPortAddress": "127.0.0.1",
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "*",
            "maxClientCnxns": 0,
            "initLimit": 50,
            "syncLimit": 20,
            "forceSync": "yes" if force_sync else "no",
            **(settings or {}),
        }
        (self._folder / "data").mkdir()
        if number is not None:
            (self._folder / "data" / "myid").write_text(str(number))
        (self._folder / "zoo.cfg").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        (self._folder / "log4j.properties").write_text(
            "log4j.rootLogger=INFO, out\n"
            "log4j.appender.out=org.apache.log4j.ConsoleAppender\n"
            "log4j.appender.out.layout=org.apache.log4j.PatternLayout\n"
            "log4j.appender.out.layout.ConversionPattern=%d %p %m%n\n"
        )

    @property
    def hosts(self) -> str:
        """What kazoo and `ZookeeperBackend` take."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What `connect` takes."""
        return f"zookeeper://{self.hosts}"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written so far."""
        path = self._folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def leads(self) -> bool:
        """Whether it is the leader of its ensemble."""
        try:
            return "Mode: leader" in self.ask("srvr")
        except OSError:
            return False

    def ask(self, word: str) -> str:
        """The answer to one of ZooKeeper's four-letter words."""
        with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
            connection.sendall(word.encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def start(self) -> Self:
        """Start it and wait until it answers. Raise ServerMissingError if it is not installed."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    _java(),
                    "-Xmx512m",
                    "-XX:+UseSerialGC",
                    "-XX:TieredStopAtLevel=1",  # A test lives too short for anything better.
                    "-cp",
                    f"{_class_path()}:{self._folder}",
                    "org.apache.zookeeper.server.quorum.QuorumPeerMain",
                    str(self._folder / "zoo.cfg"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # A Ctrl-C meant for the tests ends it through them, not before them.
            )
        self._await_answer(self._process)
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
        while any(stat.rpartition(")")[2].split()[0] != "T" for stat in self._threads()):
            SYSTEM_CLOCK.sleep(0.001)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

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

    def _threads(self) -> list[str]:
        return [path.read_text() for path in Path(f"/proc/{self.pid}/task").glob("*/stat")]

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        until = SYSTEM_CLOCK.monotonic() + _START
        while not self._answers():
            if process.poll() is not None or SYSTEM_CLOCK.monotonic() > until:
                log = self.log
                self.stop()
                raise RuntimeError(f"ZooKeeper did not start:\n{log[-4000:]}")
            SYSTEM_CLOCK.sleep(0.02)

    def _answers(self) -> bool:
        """Whether it serves: `ruok` is answered before it does, `srvr` says so."""
        try:
            return "Mode:" in self.ask("srvr")
        except OSError:
            return False


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None) or shutil.which("java")
    if java is None:
        raise ServerMissingError("no java found: apt-get install zookeeper, or set JAVA_HOME")
    return java


def _class_path() -> str:
    jars = [sorted(_JARS.glob(name)) for name in _CLASSES]
    missing = [name for name, found in zip(_CLASSES[:5], jars, strict=False) if not found]
    if missing:
        raise ServerMissingError(f"{_JARS} has no {', '.join(missing)}: apt-get install zookeeper")
    return ":".join(str(jar) for found in jars for jar in found)


@final
class ZookeeperEnsemble:
    """Three servers that agree among themselves: one leads, and any one may fail."""

    def __init__(self, tick_time: int = 2000, *, settings: Mapping[str, object] | None = None) -> None:
        members = {f"server.{number}": f"127.0.0.1:{free_port()}:{free_port()}" for number in (1, 2, 3)}
        self.servers = [
            ZookeeperServer(tick_time, settings={**(settings or {}), **members}, number=number) for number in (1, 2, 3)
        ]

    @property
    def hosts(self) -> str:
        """All three."""
        return ",".join(server.hosts for server in self.servers)

    @property
    def leader(self) -> ZookeeperServer:
        """The one that leads now."""
        return next(server for server in self.servers if server.leads)

    @property
    def followers(self) -> list[ZookeeperServer]:
        """The others that are up."""
        return [server for server in self.servers if not server.leads]

    def __enter__(self) -> Self:
        try:
            with ThreadPoolExecutor() as pool:  # None answers before most have started.
                list(pool.map(ZookeeperServer.start, self.servers))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End all that still run."""
        for server in self.servers:
            server.stop()


@final
class Proxy:
    """A port that leads to another one, until it is cut: then nothing passes and nobody is told.

    What was sent while it was cut arrives after `mend`, as on a network, if both ends still wait for it.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = threading.Event()
        self._open.set()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._deaf = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._run(self._accept)

    @property
    def hosts(self) -> str:
        """What kazoo and `ZookeeperBackend` take."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Let nothing pass."""
        self._open.clear()

    def mend(self) -> None:
        """Let all pass again, and what was held back first."""
        self._open.set()

    def swallow_answers(self, *, on: bool) -> None:
        """From now on the server is told everything, and what it says is lost."""
        self._deaf = on

    def reset(self) -> None:
        """Break every connection, as a network that comes back may do."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it and its threads."""
        self._open.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.reset()
        for thread in self._threads:
            thread.join()
        for each in (*self._sockets, self._listener):
            each.close()

    def _run(self, what: object, *args: object) -> None:
        assert callable(what)
        thread = threading.Thread(target=what, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                inner = self._listener.accept()[0]
            except OSError:
                return
            self._open.wait()
            try:
                outer = socket.create_connection(("127.0.0.1", self._target), 5.0)
            except OSError:
                inner.close()
                continue
            outer.settimeout(None)
            self._sockets += [inner, outer]
            self._run(self._pump, inner, outer, False)
            self._run(self._pump, outer, inner, True)

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
                if not (answers and self._deaf):
                    sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
