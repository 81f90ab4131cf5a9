"""Encode records as JSON for the store, and decode them: every value read is checked, the rest is garbage."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, ClassVar, Self, TypeVar, cast

from smoothcluster.errors import GarbageError as GarbageError  # noqa: PLC0414  # also for importers of this module

LARGEST_RECORD_BYTES = 4 * 1024 * 1024
"""The largest value to parse, in bytes: more than any record of this project has, on any store."""


_ENCODE_JSON = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
"""Shared encoder: `json.dumps` makes an encoder at each call, which takes longer than encoding a record."""


def dump(data: object) -> bytes:
    """Encode *data* as JSON bytes for the store."""
    return _ENCODE_JSON(data).encode()


def parse(value: bytes) -> Any:
    """Parse JSON from the store; raise GarbageError if *value* is not JSON or larger than any record."""
    if len(value) > LARGEST_RECORD_BYTES:
        raise GarbageError(f"the record has {len(value)} bytes, more than any record of this version")
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise GarbageError(f"the record is not JSON: {error!s:.120}") from None


def load(value: bytes) -> dict[str, Any]:
    """Parse a JSON object from the store; raise GarbageError if *value* is anything else."""
    data = parse(value)
    if not isinstance(data, dict):
        raise GarbageError("the record is not a JSON object")
    return cast("dict[str, Any]", data)


_SIMPLE_TYPES: dict[Any, tuple[type, ...]] = {
    int: (int,),
    str: (str,),
    bool: (bool,),
    int | None: (int, type(None)),
    str | None: (str, type(None)),
}


class Record:
    """A flat record: a frozen dataclass whose fields are ints, strings, bools or None."""

    __slots__ = ()

    FIELD_LIMITS: ClassVar[Mapping[str, tuple[int, int]]] = {}
    """The least and the largest value of numbers in the store, by field; a 64-bit number is allowed elsewhere."""

    def to_json(self) -> bytes:
        return dump(asdict(self))  # type: ignore[call-overload]  # every subclass is a dataclass

    @classmethod
    def from_json(cls, value: bytes) -> Self:
        """The record in *value*. A wrong type, or a value beyond `FIELD_LIMITS`, raises GarbageError."""
        data = load(value)
        wanted: dict[str, Any] = {}
        for each in fields(cls):  # type: ignore[arg-type]  # every subclass is a dataclass
            found = data.get(each.name, None if each.default is MISSING else each.default)
            if type(found) not in _SIMPLE_TYPES[each.type]:
                raise GarbageError(f"{cls.__name__}.{each.name} cannot be {found!r:.80}")
            if type(found) is int:
                least, most = cls.FIELD_LIMITS.get(each.name, (-(2**63), 2**63 - 1))
                if not least <= found <= most:
                    raise GarbageError(f"{cls.__name__}.{each.name} cannot be {found!r:.80}")
            wanted[each.name] = found
        return cls(**wanted)


T = TypeVar("T")


def expect(kind: type[T], value: object) -> T:
    """Return *value* if its type is *kind*; raise TypeError otherwise."""
    if type(value) is not kind:
        raise TypeError(f"{value!r:.40} is not {kind.__name__}")
    return value


def expect_or_none(kind: type[T], value: object) -> T | None:
    """As `expect`; None is allowed, too."""
    return None if value is None else expect(kind, value)


def expect_object(value: object) -> dict[str, Any]:
    """Return *value* if *value* is a JSON object; raise TypeError otherwise. JSON guarantees names of type str."""
    expect(dict, value)
    return cast("dict[str, Any]", value)


def expect_array(value: object) -> list[Any]:
    """Return *value* if *value* is a JSON array; raise TypeError otherwise."""
    expect(list, value)
    return cast("list[Any]", value)
