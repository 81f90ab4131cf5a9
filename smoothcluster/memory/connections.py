"""Connections to a `MemoryServer`: each carries one request at a time."""

import socket
from pathlib import Path
from typing import final
from weakref import finalize

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import BackendError, UnavailableError, UsageError
from smoothcluster.lifetime import ClientLifetime
from smoothcluster.memory.wire import Frame, FrameReader, frame

_LONGEST_PATH_BYTES = 107
"""Most bytes in the path of a socket, a limit of the kernel."""

_GREETING_FRAME = frame(["history"])


def check_path(path: Path | str) -> Path:
    """Return *path* as an absolute path; raise UsageError if no socket can have this path."""
    absolute = Path(path).absolute()
    if len(bytes(absolute)) > _LONGEST_PATH_BYTES or "\0" in str(path):
        raise UsageError(
            f"{str(absolute)!r} cannot be a socket: the path must have at most {_LONGEST_PATH_BYTES} bytes, and no"
            " byte 0"
        )
    return absolute


@final
class Connection:
    """A connection to the server at *path*. Raise UnavailableError if no server answers by *deadline*."""

    def __init__(self, path: Path, deadline: float) -> None:
        self._path = path
        self._frames = FrameReader()
        try:
            self.socket = socket.socket(socket.AF_UNIX)
            self.close = finalize(self, self.socket.close)  # Also closes the socket of a connection that nobody closes.
            self._set_timeout(deadline)
            self.socket.connect(str(path))
        except OSError as error:
            raise UnavailableError(
                f"memory://{path} is unreachable: {error}; check that `python -m smoothcluster.memory {path}` runs,"
                " and that the socket belongs to this user"
            ) from error
        self.request(
            _GREETING_FRAME, deadline, UnavailableError
        )  # A stopped server accepts connections but never answers.

    def request(self, message: bytes, deadline: float, unknown: type[BackendError]) -> Frame:
        """The answer. Raise UnavailableError if *message* was not sent, *unknown* without an answer by *deadline*."""
        try:
            self._set_timeout(deadline)
            self.socket.sendall(message)
        except OSError as error:
            # The server acts on whole frames only, and this frame will never be complete.
            raise UnavailableError(
                f"the request to memory://{self._path} was not sent: {error}; check that the server runs"
            ) from error
        try:
            while not (answers := self.receive(deadline)):
                pass
            return answers[0]
        except (OSError, ValueError, TypeError) as error:
            raise unknown(f"memory://{self._path} did not answer: {error}; check that the server runs") from error

    def receive(self, deadline: float | None) -> list[Frame]:
        """Wait for data and return the frames completed by the data. Raise OSError if none arrives by *deadline*."""
        self._set_timeout(deadline)
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        return list(self._frames.feed(data))

    def _set_timeout(self, deadline: float | None) -> None:
        """Set the time limit for the next operation on the socket."""
        left = None if deadline is None else deadline - SYSTEM_CLOCK.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("timed out")
        self.socket.settimeout(left)


@final
class ConnectionPool:
    """The connections of one client: as many as there are threads with a request under way."""

    def __init__(self, path: Path, timeout: float, lifetime: ClientLifetime) -> None:
        self._path, self._timeout, self._lifetime = path, timeout, lifetime
        self._idle: list[Connection] = []

    def request(self, message: bytes, unknown: type[BackendError]) -> Frame:
        """Like `Connection.request`, within the timeout."""
        self._lifetime.check()
        deadline = SYSTEM_CLOCK.monotonic() + self._timeout
        connection = self._acquire(deadline)
        try:
            answer = connection.request(message, deadline, unknown)
        except BaseException:
            connection.close()  # A late answer must not be taken for the answer to a later request.
            self._close_idle()  # The other connections lead to the same server.
            raise
        # If the client was closed meanwhile, the finalizer closes the socket together with the pool.
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close the idle connections of a client with an ended lifetime."""
        self._close_idle()

    def _acquire(self, deadline: float) -> Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return Connection(self._path, deadline)

    def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
