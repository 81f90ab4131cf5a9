"""Real servers for tests and benchmarks: plain processes on free ports of the loopback, ended by their pid."""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Generic, NoReturn, Self, TypeVar
from weakref import WeakSet

import pytest
from processes import pause, spawn

from smoothcluster.clock import SYSTEM_CLOCK

START = 60.0
"""Seconds that a server, or several together, may take to be ready."""

WITHOUT = "SMOOTHCLUSTER_TEST_WITHOUT"
"""The variable in which `scripts/test` names the Debian packages that it could not install."""

_reservations: list[socket.socket] = []
_servers: "WeakSet[Server]" = WeakSet()


def not_installed(program: str, package: str) -> NoReturn:
    """End the test, for want of *program* in the Debian package *package*.

    The test is skipped only if `scripts/test` could not install the package, and said so. Otherwise the test fails:
    nobody is to believe that a store is tested because no test failed.
    """
    message = f"no {program} found: apt-get install {package}"
    if package in os.environ.get(WITHOUT, "").split():
        pytest.skip(message)
    pytest.fail(message, pytrace=False)


def free_port() -> int:
    """A port of the loopback that nobody listens on, and that nobody else is given while this process lives.

    Not one of those that the system gives to outgoing connections: one of them could take it
    before the server does, which needs a second to start.
    """
    while True:
        port = random.randrange(12_000, 32_000)
        if _reserved(port):
            with socket.socket() as probe, suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def _reserved(port: int) -> bool:
    """Take the name of *port*: runs of the tests side by side see the same names, as they do the same ports."""
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0smoothcluster-port-{port}")  # No file: the kernel forgets it with the process.
    except OSError:
        name.close()
        return False
    _reservations.append(name)
    return True


def wait(ready: Callable[[], bool], what: str) -> None:
    """Wait until *ready*; raise RuntimeError, with *what* was waited for, if that takes too long."""
    until = SYSTEM_CLOCK.monotonic() + START
    while not ready():
        if SYSTEM_CLOCK.monotonic() > until:
            raise RuntimeError(f"waited {START:g} s for {what}")
        SYSTEM_CLOCK.sleep(0.02)


def logs(length: int = 4000) -> list[tuple[str, str]]:
    """The last *length* characters that each server has written, with its address, of those that are not stopped."""
    return [(f"log of {server.url}", server.log[-length:]) for server in _servers if server.log]


class Server(ABC):
    """One server with its own folder, which outlives `kill` and `restart` and goes with `stop`.

    It ends with the tests, however those end.
    """

    scheme: ClassVar[str]
    data: ClassVar[str] = "data"
    """The folder of its data, in its own folder."""

    def __init__(self) -> None:
        self.port: int = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"smoothcluster-{self.scheme}-"))
        self._process: subprocess.Popen[bytes] | None = None
        _servers.add(self)

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What starts it. End the test with `not_installed` if it is not installed."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves."""

    @property
    def hosts(self) -> str:
        """What its backend takes."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What `connect` takes."""
        return f"{self.scheme}://{self.hosts}"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether its process has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has written so far."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> Self:
        """Start it and wait until it answers. If it is not installed, the test ends."""
        try:
            command = self.command()
        except BaseException:
            self.stop()
            raise
        with (self.folder / "log").open("ab") as log:
            self._process = spawn(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # A Ctrl-C meant for the tests ends it through them, not before them.
            )
        try:
            wait(lambda: not self.runs or self.answers(), "an answer")
            if not self.runs:
                raise RuntimeError("it ended")
        except RuntimeError as error:
            log_text = self.log[-4000:]
            self.stop()
            raise RuntimeError(f"{self.scheme} did not start: {error}\n{log_text}") from error
        return self

    def stop(self) -> None:
        """End it for good, and remove its folder. Repeatable."""
        self._end(signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL: what was acknowledged is in its folder."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill it and start it again on the same port."""
        self.kill()
        self.start()

    def empty(self) -> None:
        """All data are lost, and it serves again."""
        self.kill()
        shutil.rmtree(self.folder / self.data)
        (self.folder / self.data).mkdir(mode=0o700)
        self.start()

    def save(self) -> None:
        """Take a backup, between two runs."""
        self.kill()
        shutil.copytree(self.folder / self.data, self.folder / "backup")
        self.start()

    def set_back(self) -> None:
        """Restore the backup: what was acknowledged since is lost."""
        self.kill()
        shutil.rmtree(self.folder / self.data)
        shutil.copytree(self.folder / "backup", self.folder / self.data)
        self.start()

    def pause(self) -> None:
        """SIGSTOP: its connections stay, and nothing is answered. Return when every thread has stopped."""
        pause(self.pid)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None, "the server does not run"
        self._process.send_signal(signal.SIGCONT)

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


Each = TypeVar("Each", bound=Server)


class Servers(Generic[Each]):
    """Several servers that belong together."""

    def __init__(self, servers: Sequence[Each]) -> None:
        self.servers = servers

    @property
    def hosts(self) -> str:
        """All of them."""
        return ",".join(server.hosts for server in self.servers)

    def start(self) -> Self:
        """Start those that do not run, have those go on that were paused, and wait until all answer and agree."""
        down = [server for server in self.servers if not server.runs]
        try:
            for server in self.servers:
                if server not in down:
                    server.resume()
            with ThreadPoolExecutor() as pool:  # In an ensemble none answers before most have started.
                list(pool.map(Server.start, down))
            wait(lambda: all(server.answers() for server in self.servers) and self.agree(), "them to agree")
        except BaseException:
            self.stop()
            raise
        return self

    def agree(self) -> bool:
        """Whether each knows what it must of the others."""
        return True

    def stop(self) -> None:
        """End all. Repeatable."""
        for server in self.servers:
            server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Peer(Server):
    """A server that may be one of an ensemble."""

    @property
    @abstractmethod
    def leads(self) -> bool:
        """Whether it is the leader."""


Voter = TypeVar("Voter", bound=Peer)


class Ensemble(Servers[Voter]):
    """Servers that agree among themselves: one leads, and a minority may fail."""

    @property
    def leader(self) -> Voter:
        """The one that leads now."""
        return next(server for server in self.servers if server.leads)

    @property
    def followers(self) -> list[Voter]:
        """The others that are up."""
        return [server for server in self.servers if server.runs and not server.leads]

    def agree(self) -> bool:
        """Whether one of them leads."""
        return any(server.leads for server in self.servers)
