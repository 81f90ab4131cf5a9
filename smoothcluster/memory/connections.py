"""Connections to a `MemoryServer`: each carries one request at a time."""

import socket
from pathlib import Path
from typing import final
from weakref import finalize

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import BackendError, UnavailableError, UsageError
from smoothcluster.memory.wire import Frame, Frames, frame

_LONGEST = 107
"""Most bytes in the path of a socket, a limit of the kernel."""

_GREETING = frame(["history"])


def check_path(path: Path | str) -> Path:
    """Return *path* as an absolute path; raise UsageError if no socket can have this path."""
    absolute = Path(path).absolute()
    if len(bytes(absolute)) > _LONGEST or "\0" in str(path):
        raise UsageError(
            f"{str(absolute)!r} cannot be a socket: the path must have at most {_LONGEST} bytes, and no byte 0"
        )
    return absolute


@final
class Link:
    """A connection to the server at *path*. Raise UnavailableError if no server answers by the deadline *until*."""

    def __init__(self, path: Path, until: float) -> None:
        self._path = path
        self._frames = Frames()
        try:
            self.socket = socket.socket(socket.AF_UNIX)
            self.close = finalize(self, self.socket.close)  # Also closes the socket of a link that nobody closes.
            self._wait(until)
            self.socket.connect(str(path))
        except OSError as error:
            raise UnavailableError(
                f"memory://{path} is unreachable: {error}; check that `python -m smoothcluster.memory {path}` runs,"
                " and that the socket belongs to this user"
            ) from error
        self.ask(_GREETING, until, UnavailableError)  # A stopped server accepts connections but never answers.

    def ask(self, question: bytes, until: float, unknown: type[BackendError]) -> Frame:
        """The answer. Raise UnavailableError if *question* was not sent, *unknown* without an answer by *until*."""
        try:
            self._wait(until)
            self.socket.sendall(question)
        except OSError as error:
            # The server acts on whole frames only, and this frame will never be complete.
            raise UnavailableError(
                f"the request to memory://{self._path} was not sent: {error}; check that the server runs"
            ) from error
        try:
            while not (answers := self.hear(until)):
                pass
            return answers[0]
        except (OSError, ValueError, TypeError) as error:
            raise unknown(f"memory://{self._path} did not answer: {error}; check that the server runs") from error

    def hear(self, until: float | None) -> list[Frame]:
        """Wait for data and return the frames completed by the data. Raise OSError if none arrives by *until*."""
        self._wait(until)
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        return list(self._frames.feed(data))

    def _wait(self, until: float | None) -> None:
        """Set the time limit for the next operation on the socket."""
        left = None if until is None else until - SYSTEM_CLOCK.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("timed out")
        self.socket.settimeout(left)


@final
class Links:
    """The connections of one client: as many as there are threads with a request under way."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._path, self._timeout = path, timeout
        self._idle: list[Link] = []
        self._closed = False

    def ask(self, question: bytes, unknown: type[BackendError]) -> Frame:
        """Like `Link.ask`, within the timeout."""
        until = SYSTEM_CLOCK.monotonic() + self._timeout
        link = self._take(until)
        try:
            answer = link.ask(question, until, unknown)
        except BaseException:
            link.close()  # A late answer must not be taken for the answer to a later request.
            self._drop()  # The other links lead to the same server.
            raise
        self._idle.append(link)
        return answer

    def close(self) -> None:
        self._closed = True
        self._drop()

    def _take(self, until: float) -> Link:
        if self._closed:
            raise UnavailableError(f"this client of memory://{self._path} is closed")
        try:
            return self._idle.pop()
        except IndexError:
            return Link(self._path, until)

    def _drop(self) -> None:
        idle, self._idle = self._idle, []
        for link in idle:
            link.close()
