"""Serve an in-memory store to other processes over a Unix socket, for as long as this process lives.

The server is for groups of processes on one machine, in tests and trials. Every process with write access to the
socket's file may do everything; only the owner has this access.
"""

import asyncio
import errno
import fcntl
import os
import secrets
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self, final

from smoothcluster.clock import SYSTEM_CLOCK, Clock, Signal
from smoothcluster.errors import UsageError
from smoothcluster.memory.connections import check_path
from smoothcluster.memory.served_client import ServedClient
from smoothcluster.memory.store import MemoryStore
from smoothcluster.memory.wire import SOCKET_GUARANTEES

_EXPIRY_CHECK_SECONDS = 0.05
"""Seconds between two checks for expired leases."""

_CLOCK_STEP_CAP_SECONDS = 0.5
"""Most seconds that leases age between two readings of the clock."""


@final
class MemoryServer:
    """A store, served at the socket *path* between `start` and `stop`; also a context manager.

    `stop` takes the store away from the clients, and `start` brings the store back unchanged. The data go with
    this object or the process.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = check_path(path)
        # Clients outlive a killed server: ids and versions of the next server must differ from all earlier values.
        # The clients check the bounds of reading and watching, and name the bounds in their errors.
        served = replace(SOCKET_GUARANTEES, largest_directory=sys.maxsize, most_watches=sys.maxsize)
        self._store = MemoryStore(clock=_ServingClock(), guarantees=served, begin=secrets.randbits(48))
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The URL for `connect`."""
        return f"memory://{self._path}"

    def start(self) -> Self:
        """Serve from now on, in a thread. Raise UsageError if the server cannot listen at the path."""
        if self._thread is None:
            listening = _listen(self._path)
            runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
            self._loop, self._stopping = runner.get_loop(), asyncio.Event()
            self._thread = threading.Thread(
                target=self._run, args=[runner, listening], name="smoothcluster-memory", daemon=True
            )
            self._thread.start()
        return self

    def stop(self) -> None:
        """Close all connections. Repeatable."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, runner: asyncio.Runner, listening: socket.socket) -> None:
        with runner:
            runner.run(self._serve(listening))

    async def _serve(self, listening: socket.socket) -> None:
        clients = set[ServedClient]()
        server = await self._loop.create_unix_server(lambda: ServedClient(self._store, clients), sock=listening)
        while not self._stopping.is_set():
            self._store.expire()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _EXPIRY_CHECK_SECONDS)
        self._path.unlink(missing_ok=True)  # While we listen: no other server has taken the path.
        self._loop.remove_reader(listening)
        for _ in range(3):  # Turns of the loop: a Server never closes a connection still being accepted at its close.
            await asyncio.sleep(0)
        server.close()
        for client in clients:
            client.abort()
        await asyncio.sleep(0)


@final
class _ServingClock(Clock):
    """The machine's time without the stretches in which this process was stopped or served nobody.

    No client could renew a lease during such a stretch, so no lease ends because of the stretch.
    """

    def __init__(self) -> None:
        self._seen = SYSTEM_CLOCK.monotonic()
        self._passed = 0.0

    def monotonic(self) -> float:
        seen, self._seen = self._seen, SYSTEM_CLOCK.monotonic()
        self._passed += min(self._seen - seen, _CLOCK_STEP_CAP_SECONDS)
        return self._passed

    def wall(self) -> float:
        return SYSTEM_CLOCK.wall()

    def since_boot(self) -> float:
        """For the age of renewals in `status`: the stretches count."""
        return SYSTEM_CLOCK.since_boot()

    def signal(self) -> Signal:
        return SYSTEM_CLOCK.signal()


def _listen(path: Path) -> socket.socket:
    """Listen on a socket at *path*, with access for the owner alone. Replace a socket left by a dead server."""
    listening = socket.socket(socket.AF_UNIX)
    try:
        with _locked_folder(path.parent):
            if path.is_socket() and _is_stale_socket(path):
                path.unlink()
            listening.bind(str(path))
            path.chmod(0o600)  # Nobody can connect before the socket listens.
            listening.listen(128)
    except OSError as error:
        listening.close()
        raise UsageError(f"the server cannot listen at {path}: {error.strerror}") from error
    return listening


@contextmanager
def _locked_folder(folder: Path) -> Generator[None]:
    """Lock *folder*: of two servers that find a dead server's socket, the second must see the first server's socket."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_stale_socket(path: Path) -> bool:
    """Whether *path* is the socket of a dead server. A server that is merely stopped does not refuse."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED
