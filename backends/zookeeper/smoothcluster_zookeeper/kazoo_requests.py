"""ZooKeeper requests missing in kazoo, in the form for kazoo's connection."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

from kazoo.protocol.serialization import int_struct, multiheader_struct, stat_struct

_GET_DATA = 4
_GET_CHILDREN = 8
_ERROR_RESULT = -1
_ANY_WATCH = 3
_PLAIN_WATCH, _RECURSIVE_WATCH = 0, 1


@dataclass(frozen=True, slots=True)
class Znode:
    """A znode's data and the needed parts of the stat."""

    data: bytes
    version: int
    created: int
    modified: int
    """The time of the last change of the data, in milliseconds by the clock of the servers' leader."""
    owner: int
    """Id of the owning session for an ephemeral znode; 0 for a persistent znode."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A failed read, with ZooKeeper's error code."""

    code: int


class Request(Protocol):
    """Interface of a request for kazoo's connection: serializes the request and parses the answer."""

    type: int

    def serialize(self) -> bytes | bytearray: ...
    def deserialize(self, buffer: bytes, offset: int, /) -> Any: ...


def _string(text: str) -> bytes:
    encoded = text.encode()
    return int_struct.pack(len(encoded)) + encoded


@final
class MultiRead:
    """Read the data, or list the children, of each of *paths* (ZooKeeper 3.6).

    A single request for many paths makes reading 32 keys as fast as reading a single key.
    """

    type = 22

    def __init__(self, paths: Sequence[str], *, children: bool = False) -> None:
        self._paths = paths
        self._type = _GET_CHILDREN if children else _GET_DATA

    def serialize(self) -> bytearray:
        """The request's body."""
        head = multiheader_struct.pack(self._type, 0, -1)
        body = bytearray()
        for path in self._paths:
            body += head + _string(path) + b"\0"  # No watch.
        return body + multiheader_struct.pack(-1, 1, -1)

    @staticmethod
    def deserialize(buffer: bytes, offset: int) -> "list[Znode | list[str] | Failed]":
        """The answers, in order."""
        answers: list[Znode | list[str] | Failed] = []
        while True:
            kind, done, _ = multiheader_struct.unpack_from(buffer, offset)
            offset += multiheader_struct.size
            if done:
                return answers
            number: int = int_struct.unpack_from(buffer, offset)[0]
            offset += int_struct.size
            if kind == _ERROR_RESULT:
                answers.append(Failed(number))
            elif kind == _GET_DATA:
                data = buffer[offset : offset + number] if number > 0 else b""
                offset += len(data)
                stat = stat_struct.unpack_from(buffer, offset)
                offset += stat_struct.size
                answers.append(Znode(data, stat[4], stat[0], stat[3], stat[7]))
            else:
                names: list[str] = []
                for _ in range(number):
                    length: int = int_struct.unpack_from(buffer, offset)[0]
                    offset += int_struct.size
                    names.append(buffer[offset : offset + length].decode())
                    offset += length
                answers.append(names)


@final
class AddWatch:
    """Watch *path* for as long as the connection lasts (ZooKeeper 3.6), whether the znode is present or not.

    ZooKeeper sends an event for each change of the znode itself and, as a rule, of the set of its children. If
    *recursive*, ZooKeeper sends an event for each change of the znode and of every znode below instead.
    """

    type = 106

    def __init__(self, path: str, *, recursive: bool) -> None:
        self._path, self._recursive = path, recursive

    def serialize(self) -> bytes:
        """The request's body."""
        return _string(self._path) + int_struct.pack(_RECURSIVE_WATCH if self._recursive else _PLAIN_WATCH)

    @staticmethod
    def deserialize(_: bytes, __: int) -> bool:
        """The answer's body only repeats that there was no error."""
        return True


@final
class RemoveWatches:
    """Remove this connection's watches on *path* (ZooKeeper 3.5)."""

    type = 18

    def __init__(self, path: str) -> None:
        self._path = path

    def serialize(self) -> bytes:
        """The request's body."""
        return _string(self._path) + int_struct.pack(_ANY_WATCH)

    @staticmethod
    def deserialize(_: bytes, __: int) -> bool:
        """The answer has no body."""
        return True
