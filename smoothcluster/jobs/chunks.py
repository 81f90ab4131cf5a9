"""Chunks: assign tasks to shards, and pack many tasks into few keys.

A chunk is named ``<job>-<unique>+<tasks>``. The unique part holds no ``-``, so the job can be read from the name. The
number of tasks, in hexadecimal digits, counts the tasks of a chunk that cannot be read any more. Chunks of earlier
versions have no number in the name. The contents of a chunk never change. The shard's record says which tasks of a
chunk have run.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from smoothcluster.backend import Guarantees
from smoothcluster.errors import UsageError
from smoothcluster.model import LARGEST_VALUE, Task, why_not_json
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.shard import CHUNK_NAME_PATTERN, MOST_CHUNK_TASKS

CHUNK_TASKS = 256
"""Most tasks in a chunk."""

CHUNK_BYTES = LARGEST_VALUE + 1024
"""Most bytes in a chunk: a task of the largest size must fit."""

DIGEST_BYTES = 16
"""Bytes of a digest: enough to rule out collisions by accident."""


_SIZE_PATTERN = re.compile(r"\+([0-9a-f]{1,5})$")

_to_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def largest_chunk(limits: Guarantees) -> int:
    """Most bytes in a chunk on a store with these *limits*: a third of a commit leaves room for all other changes."""
    return min(CHUNK_BYTES, limits.largest_value, limits.largest_commit // 3)


def digest(task_id: str) -> bytes:
    """Return the digest of a task id, by which a job recognizes repeats.

    An id may hold lone surrogates: handlers find links in pages decoded in spite of errors.
    """
    return hashlib.blake2b(task_id.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def shard_of(mark: bytes, shards: int) -> int:
    """The shard of the task with digest *mark*."""
    return int.from_bytes(mark[:8], "big") % shards


@lru_cache(4096)
def job_of(chunk: str) -> str:
    """The job of a chunk, read from the chunk's name; raise GarbageError if the name has no job."""
    match = CHUNK_NAME_PATTERN.fullmatch(chunk)
    if match is None:
        raise GarbageError(f"{chunk!r} is not the name of a chunk")
    return match[1]


def size_of(chunk: str) -> int | None:
    """The number of tasks in a chunk, read from the chunk's name; None if the name has no number."""
    found = _SIZE_PATTERN.search(chunk)
    size = int(found[1], 16) if found is not None else 0
    return size if 0 < size <= MOST_CHUNK_TASKS else None


def encode_task(task: Task) -> str:
    """Encode a task for a chunk; raise UsageError if the task cannot be written as JSON or is too large."""
    why = why_not_json(task.meta)  # Once more: the value may have changed since the task was made.
    if why is not None:
        raise UsageError(f"task {task.id!r:.100} cannot be written as JSON: {why}")
    try:
        text = _to_json(task.to_json())
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"task {task.id!r:.100} cannot be written as JSON: {error}") from None
    if len(text) > LARGEST_VALUE:
        raise UsageError(f"task {task.id!r:.100} takes {len(text)} bytes as JSON; the limit is {LARGEST_VALUE}")
    return text


@dataclass(slots=True)
class Packet:
    """Tasks of one shard, to be written as one chunk."""

    shard: int
    texts: list[str]
    size: int

    def name(self, job: str, unique: str) -> str:
        """The name of the chunk in the store."""
        return f"{job}-{unique}+{len(self.texts):x}"

    def value(self) -> bytes:
        return ("[" + ",".join(self.texts) + "]").encode()


def is_full(tasks: int, size: int, text: str, most_bytes: int) -> bool:
    """Whether *text* does not fit into a chunk of *most_bytes* that has so many *tasks* of this *size* together."""
    return tasks >= CHUNK_TASKS or size + len(text) + 3 > most_bytes


class Packer:
    """Sorts tasks by shard into packets of *most_bytes*, and returns each full packet."""

    def __init__(self, shards: int, most_bytes: int = CHUNK_BYTES) -> None:
        self._shards, self._most_bytes = shards, most_bytes
        self._open: dict[int, Packet] = {}

    def add(self, mark: bytes, text: str) -> Packet | None:
        """Add one task. Return the full packet of the same shard, if the task did not fit there."""
        shard = shard_of(mark, self._shards)
        packet = self._open.get(shard)
        full = None
        if packet is not None and is_full(len(packet.texts), packet.size, text, self._most_bytes):
            full, packet = packet, None
        if packet is None:
            packet = self._open[shard] = Packet(shard, [], 0)
        packet.texts.append(text)
        packet.size += len(text) + 1
        return full

    def remaining(self) -> Iterator[Packet]:
        """Return all packets that are left."""
        left, self._open = self._open, {}
        return iter(left.values())


def pack(tasks: Iterable[tuple[bytes, str]], shards: int, most_bytes: int = CHUNK_BYTES) -> list[Packet]:
    """Pack tasks, given as digest and text, into packets of *most_bytes*."""
    packer = Packer(shards, most_bytes)
    packets = [full for mark, text in tasks if (full := packer.add(mark, text))]
    packets.extend(packer.remaining())
    return packets
