"""Connections to a `MemoryServer`: each carries one question at a time."""

import socket
from pathlib import Path
from typing import final

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import BackendError, UnavailableError, UsageError
from smoothcluster.memory.wire import Frame, Frames

_LONGEST = 107
"""Bytes of a socket's path, by the kernel."""


def check_path(path: Path | str) -> Path:
    """*path* as an absolute one, if a socket can be there."""
    absolute = Path(path).absolute()
    if len(bytes(absolute)) > _LONGEST or "\0" in str(path):
        raise UsageError(f"no socket can be at {str(absolute)!r}: a path has at most {_LONGEST} bytes, none of them 0")
    return absolute


@final
class Link:
    """A connection to the server at *path*. Raise UnavailableError if there is none."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._path, self._timeout = path, timeout
        self._frames = Frames()
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.settimeout(timeout)
            self.socket.connect(str(path))
        except OSError as error:
            self.socket.close()
            raise UnavailableError(
                f"no connection to memory://{path}: {error}; check that `python -m smoothcluster.memory {path}` runs,"
                " and that the socket is yours"
            ) from error

    def __del__(self) -> None:
        self.close()

    def ask(self, question: bytes, unknown: type[BackendError]) -> Frame:
        """The answer. Raise UnavailableError if *question* was not sent, *unknown* if no answer came."""
        until = SYSTEM_CLOCK.monotonic() + self._timeout
        try:
            self.socket.settimeout(self._timeout)
            self.socket.sendall(question)
        except OSError as error:
            # The server acts on whole frames alone, and this one will never be.
            raise UnavailableError(
                f"memory://{self._path} was not asked: {error}; check that its server runs"
            ) from error
        try:
            while not (answers := self.hear(until - SYSTEM_CLOCK.monotonic())):
                pass
            return answers[0]
        except (OSError, ValueError, TypeError) as error:
            raise unknown(f"memory://{self._path} did not answer: {error}; check that its server runs") from error

    def hear(self, seconds: float | None) -> list[Frame]:
        """Wait for something to come in; the frames that it completes. Raise OSError if nothing does, or will."""
        if seconds is not None and seconds <= 0:
            raise TimeoutError("timed out")
        self.socket.settimeout(seconds)
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionResetError("it hung up")
        return list(self._frames.feed(data))

    def close(self) -> None:
        self.socket.close()


@final
class Links:
    """The connections of one client: as many as there are threads that ask at once."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._path, self._timeout = path, timeout
        self._idle: list[Link] = []
        self._closed = False

    def ask(self, question: bytes, unknown: type[BackendError]) -> Frame:
        """As `Link.ask`."""
        link = self._take()
        try:
            answer = link.ask(question, unknown)
        except BaseException:
            link.close()  # An answer that comes late must not be taken for another's.
            self._drop()  # The others lead to the same server.
            raise
        self._idle.append(link)
        return answer

    def close(self) -> None:
        self._closed = True
        self._drop()

    def _take(self) -> Link:
        if self._closed:
            raise UnavailableError(f"this client of memory://{self._path} is closed")
        try:
            return self._idle.pop()
        except IndexError:
            return Link(self._path, self._timeout)

    def _drop(self) -> None:
        idle, self._idle = self._idle, []
        for link in idle:
            link.close()
