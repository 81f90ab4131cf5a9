"""Messages between a member and child processes: JSON objects over a socket, each after a prefix with the length."""

import json
import socket
import struct
from typing import Any

_LENGTH_PREFIX = struct.Struct("!Q")


def send(link: socket.socket, message: dict[str, object]) -> None:
    """Send *message*; raise OSError if the other side is gone."""
    text = json.dumps(message).encode()
    link.sendall(_LENGTH_PREFIX.pack(len(text)) + text)


class Reader:
    """Reads messages from a stream of bytes, in pieces of any size."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._buffer = bytearray()

    def next(self) -> dict[str, Any]:
        """Return the next message. Raise EOFError at the end, TimeoutError after a timeout (a retry continues)."""
        while (message := self._next_message()) is None:
            try:
                more = self._link.recv(65536)
            except ConnectionError:
                more = b""
            if not more:
                raise EOFError
            self._buffer += more
        return message

    def _next_message(self) -> dict[str, Any] | None:
        if len(self._buffer) < _LENGTH_PREFIX.size:
            return None
        end = _LENGTH_PREFIX.size + _LENGTH_PREFIX.unpack_from(self._buffer)[0]
        if len(self._buffer) < end:
            return None
        text = bytes(self._buffer[_LENGTH_PREFIX.size : end])
        del self._buffer[:end]
        message: dict[str, Any] = json.loads(text)
        return message
