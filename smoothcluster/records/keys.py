"""Keys of a group: the place of each record in the store."""

import re
from functools import lru_cache

_QUEUED_PATTERN = re.compile(r"-q(0|[1-9a-f][0-9a-f]{0,15})$")
"""The end of the name of a chunk that an owner merged. No other chunk's own part begins with a ``q``."""


class Keys:
    """Where each record of a group lies."""

    __slots__ = (
        "_group", "breaker", "control", "jobs", "joining", "members", "names", "quarantine", "seats", "shards", "spec",
    )  # fmt: skip

    def __init__(self, group: str) -> None:
        self._group = group
        self.spec = f"{group}/spec"
        self.breaker = f"{group}/breaker"
        self.members = f"{group}/members"
        self.names = f"{group}/names"
        self.joining = f"{group}/joining"
        self.seats = f"{group}/seats"
        self.shards = f"{group}/shards"
        self.jobs = f"{group}/jobs"
        self.control = f"{group}/control"
        self.quarantine = f"{group}/quarantine"

    def member(self, incarnation: str) -> str:
        return f"{self.members}/{incarnation}"

    def name(self, name: str) -> str:
        return f"{self.names}/{name}"

    def joiner(self, incarnation: str) -> str:
        return f"{self.joining}/{incarnation}"

    def seat(self, number: int) -> str:
        return f"{self.seats}/{number}"

    def shard(self, number: int) -> str:
        return f"{self.shards}/{number}"

    def job(self, job: str) -> str:
        return f"{self.jobs}/{job}"

    def mark(self, job: str) -> str:
        return f"{self.control}/{job}"

    def tasks(self, shard: int) -> str:
        """The directory of the chunks that submitters and handlers write. The owner of the shard lists it."""
        return f"{self._group}/tasks/{shard}"

    def queue(self, shard: int) -> str:
        """The directory of the chunks that the owner of the shard merges. Nobody lists it in the daily work."""
        return f"{self._group}/queue/{shard}"

    def chunk(self, shard: int, name: str) -> str:
        """The place of a chunk, by its name."""
        return f"{self.tasks(shard) if queue_number(name) is None else self.queue(shard)}/{name}"

    def seen(self, job: str, shard: int) -> str:
        return f"{self._group}/seen/{job}/{shard}"

    def all_seen(self, job: str) -> str:
        return f"{self._group}/seen/{job}"

    def all_results(self, job: str) -> str:
        return f"{self._group}/results/{job}"

    def results(self, job: str, shard: int) -> str:
        return f"{self._group}/results/{job}/{shard}"

    @property
    def results_prefix(self) -> str:
        """The beginning of the keys of all jobs' results."""
        return f"{self._group}/results/"

    def tails(self, job: str) -> str:
        return f"{self._group}/tails/{job}"

    def tail(self, job: str, shard: int) -> str:
        return f"{self.tails(job)}/{shard}"

    def quarantined(self, number: str) -> str:
        return f"{self.quarantine}/{number}"

    def events(self, member: str) -> str:
        return f"{self._group}/events/{member}"

    @property
    def all_events(self) -> str:
        return f"{self._group}/events"


def queued_name(job: str, number: int) -> str:
    """The name of the chunk with this *number* in the queue of *job* on a shard."""
    return f"{job}-q{number:x}"


@lru_cache(4096)
def queue_number(name: str) -> int | None:
    """The number of a chunk in its queue, read from its *name*; None if the chunk is in no queue."""
    found = _QUEUED_PATTERN.search(name)
    return int(found[1], 16) if found is not None else None


def last_part(key: str) -> str:
    """The part of a key behind the last slash."""
    return key.rpartition("/")[2]
