"""A results sink in a dictionary, for tests without libraries."""

from collections.abc import Iterator, Sequence

import pytest

from smoothcluster.errors import GarbageError, SinkUnavailableError
from smoothcluster.sinks import NumberedOutcome, Part, Tail, opening
from smoothcluster.sinks.blocks import Block, decode_block, encode_block
from smoothcluster.sinks.protocol import check_batch, check_part

PLACE: dict[tuple[Part, str], bytes] = {}
MARKS: set[str] = set()


class DictSink:
    """Blocks in a dictionary."""

    away = False
    """For all of them: whether the place is away."""

    def __init__(self, url: str = "dict://place") -> None:
        self.url = url

    @classmethod
    def from_url(cls, url: str, **options: object) -> "DictSink":
        """Take any URL: there is one place."""
        return cls(url)

    def write(self, part: Part, batch: Sequence[NumberedOutcome], after: Tail | None) -> Tail:
        check_batch(batch, after)
        if DictSink.away:
            raise SinkUnavailableError("cannot write to dict://place: it is away")
        check_part(part)
        tail, content = encode_block(part, batch, after)
        return self.put(part, tail, content)

    def put(self, part: Part, tail: Tail, content: bytes) -> Tail:
        """Store a block."""
        PLACE[part, tail.name] = content
        return tail

    def read(self, part: Part, tail: Tail) -> Iterator[NumberedOutcome]:
        left: Tail | None = tail
        while left is not None:
            block = self.block(part, left)
            yield from block.outcomes
            left = block.previous

    def block(self, part: Part, tail: Tail) -> Block:
        """The block that *tail* names."""
        try:
            return decode_block(part, tail, PLACE[part, tail.name])
        except KeyError:
            raise GarbageError(f"no block {tail.name}") from None

    def delete(self, part: Part) -> None:
        if DictSink.away:
            raise SinkUnavailableError("cannot write to dict://place: it is away")
        for key in [key for key in PLACE if key[0] == part]:
            del PLACE[key]

    def mark(self, name: str) -> None:
        MARKS.add(name)

    def has_mark(self, name: str) -> bool:
        return name in MARKS

    def close(self) -> None:
        """Nothing is open."""


def register(monkeypatch: pytest.MonkeyPatch, kind: type[DictSink]) -> None:
    """Let `open_sink` find the sink, at ``dict://``."""

    class Point:
        def load(self) -> type[DictSink]:
            return kind

    def points(group: str, name: str) -> list[Point]:
        return [Point()]

    monkeypatch.setattr(opening, "entry_points", points)
