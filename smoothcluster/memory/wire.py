"""The protocol between a client and a `MemoryServer`: frames of JSON words, followed by binary values.

A frame consists of two lengths of four bytes, a JSON array of the first length, and values of the second
length, one after another; the array contains the size of each value. Incoming frames are only data:
a malformed frame raises ValueError, TypeError or LookupError, and the receiver closes the connection.
"""

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, final

from smoothcluster.backend import (
    AtVersion,
    Change,
    Condition,
    Create,
    Delete,
    Entry,
    Exists,
    Guarantees,
    Lease,
    Update,
)
from smoothcluster.memory.store import WEAKEST

SOCKET_GUARANTEES: Guarantees = replace(WEAKEST, unique_versions=True)
"""The guarantees of a store behind a socket. Versions are unique, because a client may outlive the store,
and must not take another store's versions for versions of the first."""

LARGEST_FRAME_BYTES = 64 * 2**20
"""Most bytes in a frame."""

PAGE_BYTES = 2**20
"""Bytes of values after which `encode_page` adds no further entry; the client asks for the other entries."""

_FRAME_HEADER = struct.Struct(">II")
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


def frame(words: Sequence[object], values: Iterable[bytes] = ()) -> bytes:
    """Encode *words* and *values* as a frame."""
    text, tail = _encode(words).encode(), b"".join(values)
    return _FRAME_HEADER.pack(len(text), len(tail)) + text + tail


@final
class Frame:
    """A received frame."""

    __slots__ = ("_at", "_values", "words")

    def __init__(self, words: list[Any], values: bytes) -> None:
        self.words = words
        self._values = values
        self._at = 0

    def read_value(self, size: int) -> bytes:
        """The next value."""
        start, self._at = self._at, self._at + size
        if not start <= self._at <= len(self._values):
            raise ValueError(f"the frame has no value of {size} bytes left")
        return self._values[start : self._at]


@final
class FrameReader:
    """Assembles frames from pieces of incoming data."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """The frames completed by *data*."""
        self._data += data
        while len(self._data) >= _FRAME_HEADER.size:
            text, values = _FRAME_HEADER.unpack_from(self._data)
            begin, end = _FRAME_HEADER.size + text, _FRAME_HEADER.size + text + values
            if end > LARGEST_FRAME_BYTES:
                raise ValueError(f"a frame of {end} bytes is too large")
            if len(self._data) < end:
                return
            words: Any = _decode(self._data[_FRAME_HEADER.size : begin].decode())
            whole = Frame(words, bytes(self._data[begin:end]))
            del self._data[:end]
            yield whole


def encode_page(entries: Iterable[Entry | None]) -> tuple[list[object], list[bytes]]:
    """As many of *entries*, from the first, as fit in a frame: as words, and their values."""
    rows: list[object] = []
    values: list[bytes] = []
    size = 0
    for entry in entries:
        if size > PAGE_BYTES:
            break
        if entry is None:
            rows.append(None)
        else:
            rows.append((entry.key, len(entry.value), entry.version, entry.created, entry.lease))
            values.append(entry.value)
            size += len(entry.value)
    return rows, values


def decode_entries(rows: Iterable[Sequence[Any] | None], got: Frame) -> list[Entry | None]:
    """Decode the entries encoded by `encode_page`."""
    return [None if row is None else Entry(row[0], got.read_value(row[1]), *row[2:]) for row in rows]


def encode_part(part: Condition | Change) -> tuple[object, ...]:
    """Encode one part of a commit as words; the value travels beside the words."""
    match part:
        case Exists():
            return "exists", part.key
        case AtVersion():
            return "at", part.key, part.version
        case Create():
            return "create", part.key, len(part.value), part.lease is not None
        case Update():
            return "update", part.key, len(part.value), part.version
        case _:
            return "delete", part.key, part.version


def decode_condition(words: object) -> Condition:
    """Decode a condition encoded by `encode_part`."""
    match words:
        case ["exists", str(key)]:
            return Exists(key)
        case ["at", str(key), str(version)]:
            return AtVersion(key, version)
        case _:
            raise ValueError("the condition is of an unknown kind")


def decode_change(words: object, got: Frame, lease: Lease | None) -> Change:
    """Decode a change encoded by `encode_part`. A created key with a lease gets *lease*."""
    match words:
        case ["create", str(key), int(size), bool(hangs)]:
            return Create(key, got.read_value(size), lease if hangs else None)
        case ["update", str(key), int(size), str() | None as version]:
            return Update(key, got.read_value(size), version)
        case ["delete", str(key), str() | None as version]:
            return Delete(key, version)
        case _:
            raise ValueError("the change is of an unknown kind")
