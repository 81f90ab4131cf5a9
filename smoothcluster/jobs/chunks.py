"""Tasks in chunks: which shard a task belongs to, and how many tasks become few keys.

A chunk is named ``<job>-<unique>``; job ids hold no ``-`` behind the last one, so the job can
be read from the name. What a chunk holds never changes; what became of its tasks stands in
the shard's record.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from smoothcluster.errors import UsageError
from smoothcluster.model import LARGEST_VALUE, Task
from smoothcluster.records.codec import GarbageError, parse
from smoothcluster.records.shard import CHUNK_NAME

CHUNK_TASKS = 256
"""Tasks in one chunk at most."""

CHUNK_BYTES = LARGEST_VALUE + 1024
"""Bytes of one chunk at most: one task of the largest size must fit."""

DIGEST = 16
"""Bytes of one digest: so many that two ids never share one by accident."""


_to_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def digest(task_id: str) -> bytes:
    """What a job remembers of an id.

    An id may hold lone surrogates: links are found in pages that were decoded in spite of errors.
    """
    return hashlib.blake2b(task_id.encode("utf-8", "surrogatepass"), digest_size=DIGEST).digest()


def shard_of(mark: bytes, shards: int) -> int:
    """The shard that the task with digest *mark* belongs to."""
    return int.from_bytes(mark[:8], "big") % shards


@lru_cache(4096)
def job_of(chunk: str) -> str:
    """The job whose tasks the chunk holds; raise GarbageError if the name says none."""
    match = CHUNK_NAME.fullmatch(chunk)
    if match is None:
        raise GarbageError(f"{chunk!r} is not a chunk's name")
    return match[1]


def encode_task(task: Task) -> str:
    """A task as it stands in a chunk; raise UsageError if it is no JSON or too large."""
    try:
        text = _to_json(task.to_json())
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"task {task.id!r:.100} cannot be written as JSON: {error}") from None
    if len(text) > LARGEST_VALUE:
        raise UsageError(f"task {task.id!r:.100} takes {len(text)} bytes as JSON; the limit is {LARGEST_VALUE}")
    return text


def decode_chunk(value: bytes) -> list[Task]:
    """The tasks of a chunk; raise GarbageError if it is none."""
    try:
        data = parse(value)
        return [Task.from_json(each) for each in data]
    except (ValueError, TypeError, AttributeError, RecursionError, UsageError) as error:
        raise GarbageError(f"not a chunk: {error!s:.120}") from None


@dataclass(slots=True)
class Packet:
    """Tasks of one shard, on their way into one chunk."""

    shard: int
    texts: list[str]
    size: int

    def value(self) -> bytes:
        return ("[" + ",".join(self.texts) + "]").encode()


class Packer:
    """Sorts tasks by shard into packets, and gives each away when it is full."""

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._open: dict[int, Packet] = {}

    def add(self, mark: bytes, text: str) -> Packet | None:
        """Put one task in; return the packet that had to go to make room for it, if any."""
        shard = shard_of(mark, self._shards)
        packet = self._open.get(shard)
        full = None
        if packet is not None and (len(packet.texts) >= CHUNK_TASKS or packet.size + len(text) + 3 > CHUNK_BYTES):
            full, packet = packet, None
        if packet is None:
            packet = self._open[shard] = Packet(shard, [], 0)
        packet.texts.append(text)
        packet.size += len(text) + 1
        return full

    def rest(self) -> Iterator[Packet]:
        """Give away all that is left."""
        left, self._open = self._open, {}
        return iter(left.values())


def pack(tasks: Iterable[tuple[bytes, str]], shards: int) -> list[Packet]:
    """Packets for some tasks, given as digest and text."""
    packer = Packer(shards)
    packets = [full for mark, text in tasks if (full := packer.add(mark, text))]
    packets.extend(packer.rest())
    return packets
