"""What a client and a `MemoryServer` say to each other: frames of words, and the values these speak of.

A frame is two lengths of four bytes, so many bytes of JSON, which is an array, and so many bytes of
values, one after another, whose sizes stand in the array. Nothing that comes in is more than data:
what makes no sense raises ValueError, TypeError or LookupError, and whoever meets that hangs up.
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

SHARED: Guarantees = replace(WEAKEST, unique_versions=True)
"""What a store behind a socket promises: a client may outlive it, and must not take another's versions for its own."""

LARGEST = 64 * 2**20
"""Bytes of one frame."""

PAGE = 2**20
"""Bytes of values after which a frame holds no further entry; whoever wants the others asks for them."""

_LENGTHS = struct.Struct(">II")
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


def frame(words: Sequence[object], values: Iterable[bytes] = ()) -> bytes:
    """What to send."""
    text, tail = _encode(words).encode(), b"".join(values)
    return _LENGTHS.pack(len(text), len(tail)) + text + tail


@final
class Frame:
    """What has come in."""

    __slots__ = ("_at", "_values", "words")

    def __init__(self, words: list[Any], values: bytes) -> None:
        self.words = words
        self._values = values
        self._at = 0

    def take(self, size: int) -> bytes:
        """The next value."""
        start, self._at = self._at, self._at + size
        if not start <= self._at <= len(self._values):
            raise ValueError(f"no value of {size} bytes is left")
        return self._values[start : self._at]


@final
class Frames:
    """Puts frames together from what comes in piece by piece."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """The frames that *data* completes."""
        self._data += data
        while len(self._data) >= _LENGTHS.size:
            text, values = _LENGTHS.unpack_from(self._data)
            begin, end = _LENGTHS.size + text, _LENGTHS.size + text + values
            if end > LARGEST:
                raise ValueError(f"a frame of {end} bytes")
            if len(self._data) < end:
                return
            words: Any = _decode(self._data[_LENGTHS.size : begin].decode())
            whole = Frame(words, bytes(self._data[begin:end]))
            del self._data[:end]
            yield whole


def page(entries: Iterable[Entry | None]) -> tuple[list[object], list[bytes]]:
    """As many of *entries*, from the first, as fit in one frame: as words, and their values."""
    rows: list[object] = []
    values: list[bytes] = []
    size = 0
    for entry in entries:
        if size > PAGE:
            break
        if entry is None:
            rows.append(None)
        else:
            rows.append((entry.key, len(entry.value), entry.version, entry.created, entry.lease))
            values.append(entry.value)
            size += len(entry.value)
    return rows, values


def entries(rows: Iterable[Sequence[Any] | None], got: Frame) -> list[Entry | None]:
    """What `page` was made of."""
    return [None if row is None else Entry(row[0], got.take(row[1]), *row[2:]) for row in rows]


def told(part: Condition | Change) -> tuple[object, ...]:
    """One part of a commit as words; its value goes beside them."""
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


def heard_condition(words: object) -> Condition:
    """What `told` was given."""
    match words:
        case ["exists", str(key)]:
            return Exists(key)
        case ["at", str(key), str(version)]:
            return AtVersion(key, version)
        case _:
            raise ValueError("no such condition")


def heard_change(words: object, got: Frame, lease: Lease | None) -> Change:
    """What `told` was given. A key that hangs on a lease hangs on *lease*."""
    match words:
        case ["create", str(key), int(size), bool(hangs)]:
            return Create(key, got.take(size), lease if hangs else None)
        case ["update", str(key), int(size), str() | None as version]:
            return Update(key, got.take(size), version)
        case ["delete", str(key), str() | None as version]:
            return Delete(key, version)
        case _:
            raise ValueError("no such change")
