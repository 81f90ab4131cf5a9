"""The protocol of results sinks, and the values that pass between a sink and its callers."""

import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, cast

from smoothcluster.errors import GarbageError, UsageError
from smoothcluster.model import Outcome

LARGEST_COUNT = 2**63 - 1
"""The largest number in a tail. Databases have no larger numbers."""

_JOB_PATTERN = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,199}")

_TEXT_PATTERN = re.compile(r"[0-9A-Za-z._-]{0,200}")


class Part(NamedTuple):
    """The outcomes of a job in a shard: the unit of writing, reading and deleting."""

    job: str
    """Names the job for good: no other job, in any group that uses the sink, has this name, before or after."""
    shard: int


class NumberedOutcome(NamedTuple):
    """An outcome, with the number of the commit that recorded the outcome."""

    seq: int
    """Rises within a part. Outcomes of the same commit share the number."""
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Tail:
    """The last write of a part that counts. The coordination store holds the tail as JSON."""

    last: int
    """The greatest `NumberedOutcome.seq` of the part."""
    outcomes: int
    """How many outcomes the part has."""
    diverted: int = 0
    """How many of these outcomes the sink refused for good at their proper place, and keeps elsewhere."""
    name: str = ""
    """The name of the last block; empty for sinks without blocks, as are the next two fields."""
    length: int = 0
    digest: str = ""

    def to_json(self) -> str:
        """Write the tail for the coordination store."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Tail":
        """Return the tail in *text*; raise GarbageError if there is none."""
        try:
            data: object = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise GarbageError(f"the tail is not JSON: {error!s:.80}") from None
        if not isinstance(data, dict):
            raise GarbageError("the tail is not a JSON object")
        return cls.from_object(cast("dict[str, Any]", data))

    @classmethod
    def from_object(cls, data: dict[str, Any]) -> "Tail":
        """Return the tail in a JSON object; raise GarbageError if a field is missing or of the wrong kind."""
        found = {each.name: data.get(each.name) for each in fields(cls)}
        for name, value in found.items():
            if name in ("name", "digest"):
                good = isinstance(value, str) and _TEXT_PATTERN.fullmatch(value) is not None
            else:
                good = type(value) is int and 0 <= value <= LARGEST_COUNT
            if not good:
                raise GarbageError(f"the field {name} of a tail cannot be {value!r:.80}")
        return cls(**cast("dict[str, Any]", found))


def check_part(part: Part) -> Part:
    """Return *part*; raise UsageError if its job cannot be part of a path."""
    if not _JOB_PATTERN.fullmatch(part.job) or part.job in (".", ".."):
        raise UsageError(f"{part.job!r:.80} is no name of a job in a results sink: letters, digits, '_', '.', '-'")
    return part


def check_batch(batch: Sequence[NumberedOutcome], after: Tail | None) -> None:
    """Raise ValueError unless *batch* has outcomes, in the order of their numbers, all behind the tail *after*."""
    if not batch:
        raise ValueError("a batch must have outcomes")
    last = -1 if after is None else after.last
    if batch[0].seq <= last:
        raise ValueError(f"the batch begins with commit {batch[0].seq}, but the tail ends with commit {last}")
    if any(left.seq > right.seq for left, right in pairwise(batch)):
        raise ValueError("the outcomes of a batch must be in the order of their commits")


class ResultSink(Protocol):
    """A place for outcomes outside the coordination store. Every method may be called from any thread.

    A class for a URL has the class method ``from_url(url, **options)``, which checks the URL and the options and makes
    no request yet, so a wrong URL is a UsageError and a sink that is away is none.
    """

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL, without credentials and in one form: two URLs for the same place are equal, as far as known."""

    @abstractmethod
    def write(self, part: Part, batch: Sequence[NumberedOutcome], after: Tail | None) -> Tail:
        """Store *batch* durably behind the tail *after* (None: the part is empty); return the new tail.

        *batch* holds the outcomes of all commits of the part behind *after*, up to the last commit of *batch*: a commit
        is never divided between batches.

        The batch counts once the coordination store holds the new tail. Until then, the call may be repeated, by any
        writer. Raise SinkUnavailableError if the batch may not be stored, and PartDeletedError if the sink knows that
        the part was deleted.
        """

    @abstractmethod
    def read(self, part: Part, tail: Tail) -> Iterator[NumberedOutcome]:
        """Iterate over the outcomes of the part up to *tail*, each once, in no particular order, in bounded memory.

        Raise GarbageError if the sink has lost or damaged any of the outcomes, and SinkUnavailableError if the sink is
        away.
        """

    @abstractmethod
    def delete(self, part: Part) -> None:
        """Delete the part. Repeatable. Raise SinkUnavailableError if the part may not be deleted yet."""

    @abstractmethod
    def mark(self, name: str) -> None:
        """Leave a mark for good, so that every other client of the same place finds the mark. Repeatable.

        Members of a group thereby notice if the URL leads them to different places.
        """

    @abstractmethod
    def has_mark(self, name: str) -> bool:
        """Whether a client left the mark *name* here."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections. Repeatable."""
