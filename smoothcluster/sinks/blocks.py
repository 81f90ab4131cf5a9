r"""The format of blocks: one write of a `FileSink`, as JSON lines.

    {"format": 1, "job": "j", "shard": 3, "first": 9, "last": 14, "outcomes": 2, "previous": {"last": 8, ...}}
    {"seq": 9, "task_id": "a", "state": "done", "value": {"title": "x"}, "error": null, "attempts": 1, ...}
    {"seq": 14, "task_id": "b", ...}

The header names the predecessor with length and digest, as the tail in the coordination store names the last block. So
the tail vouches for every block of the part, and a block that no chain names does not count. Each name has a random
part: a name never gets two contents, also if a request arrives late.
"""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, cast

from smoothcluster.errors import GarbageError
from smoothcluster.model import Outcome, State
from smoothcluster.sinks.protocol import NumberedOutcome, Part, Tail

BLOCK_FORMAT = 1

_NAME_PATTERN = re.compile(r"[0-9]{1,19}-[0-9]{1,19}\.[0-9a-f]{32}\.jsonl")
"""A block's name. A name from the store or from a header becomes part of a path, so nothing else is accepted."""

_encode_json = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Block:
    """A decoded block."""

    previous: Tail | None
    outcomes: Sequence[NumberedOutcome]


def encode_block(part: Part, batch: Sequence[NumberedOutcome], after: Tail | None) -> tuple[Tail, bytes]:
    """Encode a block behind the tail *after*; return the new tail, with the block's name, and the content."""
    first, last = batch[0].seq, batch[-1].seq
    header = {
        "format": BLOCK_FORMAT,
        "job": part.job,
        "shard": part.shard,
        "first": first,
        "last": last,
        "outcomes": len(batch),
        "previous": None if after is None else asdict(after),
    }
    content = "".join(f"{line}\n" for line in (_encode_json(header), *map(to_line, batch))).encode()
    total = len(batch) + (0 if after is None else after.outcomes)
    name = f"{first}-{last}.{secrets.token_hex(16)}.jsonl"
    return Tail(last, total, 0, name, len(content), sha256(content).hexdigest()), content


def check_block_name(name: str) -> str:
    """Return *name*; raise GarbageError unless *name* is a block's name, and so safe in a path."""
    if not _NAME_PATTERN.fullmatch(name):
        raise GarbageError(f"{name!r:.80} is not the name of a block")
    return name


def decode_block(part: Part, tail: Tail, content: bytes) -> Block:
    """Return the block that *tail* names; raise GarbageError if *content* is not that block."""
    if len(content) != tail.length or sha256(content).hexdigest() != tail.digest:
        raise GarbageError(f"block {tail.name} is damaged: {len(content)} bytes, not the {tail.length} bytes written")
    try:
        header, *lines = cast("list[dict[str, Any]]", [json.loads(line) for line in content.splitlines()])
        previous = None if header["previous"] is None else Tail.from_object(header["previous"])
        block = Block(previous, [_outcome(line) for line in lines])
        named = (header["format"], header["job"], header["shard"], header["last"], header["outcomes"])
    except (GarbageError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise GarbageError(f"block {tail.name} is not readable: {error!r:.80}") from None
    if named != (BLOCK_FORMAT, *part, tail.last, len(lines)):
        raise GarbageError(f"block {tail.name} belongs to another part, or has another format")
    if previous is not None and previous.last >= block.outcomes[0].seq:  # Else a chain could be endless.
        raise GarbageError(f"block {tail.name} names a predecessor that is not before the block")
    return block


def to_line(each: NumberedOutcome) -> str:
    """Write an outcome as a line of JSON, without the line's end."""
    return _encode_json({"seq": each.seq, **asdict(each.outcome)})


def from_line(text: str | bytes) -> NumberedOutcome:
    """Return the outcome in a line that `to_line` wrote; raise GarbageError if there is none."""
    try:
        return _outcome(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise GarbageError(f"an outcome is not readable: {error!r:.80}") from None


def _outcome(line: dict[str, Any]) -> NumberedOutcome:
    fields: dict[str, Any] = dict(line)
    seq, state = fields.pop("seq"), State(fields.pop("state"))
    return NumberedOutcome(seq, Outcome(state=state, **fields))
