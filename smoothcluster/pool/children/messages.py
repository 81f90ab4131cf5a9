"""Messages between a member and child processes: JSON objects over a socket, each after a prefix with the length.

A handler may write to descriptors that the handler does not own, so the member trusts no bytes from a child: the
`Reader` bounds the length, and refuses everything but a JSON object.
"""

import json
import socket
import struct
from typing import Any, cast

_LENGTH_PREFIX = struct.Struct("!Q")

LARGEST_MESSAGE_BYTES = 2 * 1024 * 1024
"""Most bytes of a message from a child. The largest message holds `BATCH_CHARACTERS` and one task more as JSON text
within JSON text, which doubles each quotation mark."""

BATCH_CHARACTERS = 256 * 1024
"""Characters of submitted tasks after which a child begins another message."""


class NonsenseError(Exception):
    """The bytes are no message, or the message has no meaning here."""


def send(link: socket.socket, message: dict[str, object]) -> None:
    """Send *message*; raise OSError if the other side is gone."""
    text = json.dumps(message).encode()
    link.sendall(_LENGTH_PREFIX.pack(len(text)) + text)


class Reader:
    """Reads messages from a stream of bytes, in pieces of any size.

    *largest* is the greatest length of a message; None for any length.
    """

    def __init__(self, link: socket.socket, largest: int | None = None) -> None:
        self._link, self._largest = link, largest
        self._buffer = bytearray()

    def next(self) -> dict[str, Any]:
        """Wait for the next message. Raise the errors of `read`."""
        while (message := self.read()) is None:
            pass
        return message

    def read(self) -> dict[str, Any] | None:
        """Return the next message; None if the message is incomplete after a single read from the socket.

        Raise EOFError at the end, TimeoutError after the socket's timeout, NonsenseError for bytes that are no message.
        """
        message = self._next_message()
        if message is not None:
            return message
        try:
            more = self._link.recv(65536)
        except ConnectionError:
            more = b""
        if not more:
            raise EOFError
        self._buffer += more
        return self._next_message()

    def _next_message(self) -> dict[str, Any] | None:
        if len(self._buffer) < _LENGTH_PREFIX.size:
            return None
        length = int(_LENGTH_PREFIX.unpack_from(self._buffer)[0])
        if self._largest is not None and length > self._largest:
            raise NonsenseError(f"a length of {length} bytes")
        end = _LENGTH_PREFIX.size + length
        if len(self._buffer) < end:
            return None
        text = bytes(self._buffer[_LENGTH_PREFIX.size : end])
        del self._buffer[:end]
        try:
            message = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise NonsenseError(f"no JSON: {error}") from None
        if not isinstance(message, dict):
            raise NonsenseError("no JSON object")
        return cast("dict[str, Any]", message)
