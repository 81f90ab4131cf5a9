"""Parsed records, kept as long as they do not change: a look at a large group parses only the changes.

A record is known by version, time of creation and a hash of the value. The version alone is not enough: a key that is
created again, or a store that was emptied, may repeat a version.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, final

from smoothcluster.backend import Entry

T = TypeVar("T")


@final
class ParsedRecords(Generic[T]):
    """The records of the last listing, or of the last read of the same keys."""

    def __init__(self, parse: Callable[[Entry], T | None]) -> None:
        self._parse = parse
        self._known: dict[str, tuple[tuple[str, int, int], T]] = {}

    def read(self, entries: Sequence[Entry | None]) -> dict[str, T]:
        """The readable records in *entries*, by key. Records that are not in *entries* are forgotten.

        *parse* reports garbage and returns None for it. Garbage is parsed, and so reported, at each read.
        """
        known: dict[str, tuple[tuple[str, int, int], T]] = {}
        before = self._known
        for entry in entries:
            if entry is None:
                continue
            mark = (entry.version, entry.created, hash(entry.value))
            old = before.get(entry.key)
            record = old[1] if old is not None and old[0] == mark else self._parse(entry)
            if record is not None:
                known[entry.key] = mark, record
        self._known = known
        return {key: record for key, (_, record) in known.items()}
