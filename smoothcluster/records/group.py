"""What a group writes into the store: where each record lies, what it holds, how it is read back.

Everything read from the store is data from a stranger: `from_json` checks it field by field
and raises GarbageError, which callers report and step over.

    spec                            the numbers of the group; orders joins
    breaker                         who died of late, and whether survivors may adopt
    members/<incarnation>           on the member's lease
    seats/<n>                       persistent; who may be a Runner
    shards/<n>                      persistent, never deleted: the fence
    jobs/<id>                       one for each submit
    tasks/<shard>/<job>-<chunk>     tasks waiting or running
    seen/<job>/<shard>/<n>          digests of the ids a job already has
    results/<job>/<shard>/<n>       recorded outcomes
    quarantine/<id>                 tasks that kill, and the evidence
    events/<member>/<n>             a ring for each member
"""

import json
import re
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Self, TypeVar, cast

from smoothcluster.errors import SmoothclusterError
from smoothcluster.records.blame import starts

CHUNK_NAME = re.compile(r"(?!\.\.?-[^-]+$)([A-Za-z0-9_.][A-Za-z0-9_.-]{0,99})-([A-Za-z0-9_.:@+=]{1,100})")
"""A chunk's name: its job, which must be able to be part of a key, and what is its own, without a ``-``."""


LARGEST = 4 * 1024 * 1024
"""Bytes of a value that are looked at: more than any of ours has, on any store."""


class GarbageError(SmoothclusterError):
    """A record in the store is not what this version writes there."""


_ENCODE = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
"""Made once: `json.dumps` makes an encoder at each call, which takes longer than a record."""


def dump(data: object) -> bytes:
    """JSON as the store holds it."""
    return _ENCODE(data).encode()


def parse(value: bytes) -> Any:
    """JSON from the store; raise GarbageError if it is anything else, or larger than anything of ours."""
    if len(value) > LARGEST:
        raise GarbageError(f"{len(value)} bytes, which is more than anything of ours has")
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise GarbageError(f"not JSON: {error!s:.120}") from None


def load(value: bytes) -> dict[str, Any]:
    """A JSON object from the store; raise GarbageError if it is anything else."""
    data = parse(value)
    if not isinstance(data, dict):
        raise GarbageError("not a JSON object")
    return cast("dict[str, Any]", data)


_SIMPLE: dict[Any, tuple[type, ...]] = {
    int: (int,),
    str: (str,),
    bool: (bool,),
    int | None: (int, type(None)),
    str | None: (str, type(None)),
}


class Record:
    """A flat record: a frozen dataclass whose fields are ints, strings, bools or None."""

    __slots__ = ()

    def to_json(self) -> bytes:
        return dump(asdict(self))  # type: ignore[call-overload]  # every subclass is a dataclass

    @classmethod
    def from_json(cls, value: bytes) -> Self:
        """The record in *value*; unknown fields are left out, a wrong one raises GarbageError."""
        data = load(value)
        wanted: dict[str, Any] = {}
        for each in fields(cls):  # type: ignore[arg-type]  # every subclass is a dataclass
            found = data.get(each.name, None if each.default is MISSING else each.default)
            if type(found) not in _SIMPLE[each.type]:
                raise GarbageError(f"{cls.__name__}.{each.name} is {found!r:.80}")
            wanted[each.name] = found
        return cls(**wanted)


@dataclass(frozen=True, slots=True)
class Spec(Record):
    """The numbers of a group. `runner` is None until the first member has joined."""

    runner: int | None
    backup: int | None
    """None in the shape *all are Runners*."""
    shards: int
    joins: int
    """Rises by one with each member that joins, and with each change of the numbers: orders them all."""
    id: str

    @property
    def seats(self) -> int:
        """How many seats there are: none where all members are Runners."""
        return 0 if self.backup is None else self.runner or 0


@dataclass(frozen=True, slots=True)
class Member(Record):
    """One incarnation of a member; lives on its lease."""

    name: str
    incarnation: str
    join: int
    host: str
    pid: int
    address: str
    port: int
    """Where its death can be noticed; 0 if nowhere."""
    concurrency: int
    running: bool
    """Whether it works, or was only constructed so far."""
    seat: int | None
    id: str
    capacity: int | None = None
    """Shards it takes at most; None for any number."""
    unfit: str | None = None
    """Why it should not take over, as it found while it stood by; None if nothing speaks against it."""
    apart: bool = True
    """Whether it runs suspects in child processes, by what it knows; else alone in its own."""
    checked: int | None = None
    """When it last looked whether it could take over, in seconds since 1970 by its own clock. For people."""


@dataclass(frozen=True, slots=True)
class Seat(Record):
    """A licence to be a Runner."""

    holder: str | None
    id: str
    closed: int = 0
    """At which count of `Spec.joins` there was one seat too many: nobody takes it on an older spec than that."""


@dataclass(frozen=True, slots=True)
class Job(Record):
    """The tasks of one submit and those that their handlers add."""

    state: str
    """open, sealed, finished or deleted."""
    tasks: int
    """How many its submitters have written."""
    chunks: int
    at: str
    id: str
    added: int = 0
    """This and what follows: sums over all shards, once it is finished. The shards forget them then."""
    skipped: int = 0
    done: int = 0
    failed: int = 0
    quarantined: int = 0


@dataclass(slots=True)
class Open:
    """A chunk that its shard has admitted and not finished. Bitmaps count from its first task."""

    size: int
    closed: int = 0
    """Tasks that need nothing more: recorded, or repeats."""
    run: int = 0
    """Tasks that may be running: marked before they start."""
    fails: dict[int, int] = field(default_factory=dict[int, int])
    """How often each was run and is to be tried again."""
    blame: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    """Starts that no outcome came of: who had the task then, and how that ended. `suspicion` reads it."""

    def copy(self) -> "Open":
        """One that can be changed without changing this one."""
        return Open(self.size, self.closed, self.run, dict(self.fails), {k: list(v) for k, v in self.blame.items()})

    def attempts(self, index: int) -> int:
        """How often the task was started, the mark it carries now not counted."""
        return self.fails.get(index, 0) + starts(self.blame.get(index, ()))


def bits(bitmap: int) -> Iterable[int]:
    """The positions of the ones, lowest first."""
    while bitmap:
        low = bitmap & -bitmap
        yield low.bit_length() - 1
        bitmap ^= low


COUNTS = ("added", "skipped", "done", "failed", "quarantined")


@dataclass(slots=True)
class Shard:
    """A slice of the tasks and who owns it: the only fence there is."""

    owner: str | None = None
    name: str | None = None
    """The owner's name, for people."""
    epoch: int = 0
    seq: int = 0
    id: str = ""
    open: dict[str, Open] = field(default_factory=dict[str, Open])
    counts: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    """For each job: what this shard added, skipped, and recorded."""

    def copy(self) -> "Shard":
        """One that can be changed without changing this one."""
        return Shard(
            self.owner,
            self.name,
            self.epoch,
            self.seq,
            self.id,
            {name: chunk.copy() for name, chunk in self.open.items()},
            {job: dict(tally) for job, tally in self.counts.items()},
        )

    def count(self, job: str, what: str, by: int = 1) -> None:
        tally = self.counts.setdefault(job, {})
        tally[what] = tally.get(what, 0) + by

    def to_json(self) -> bytes:
        return dump(
            {
                "owner": self.owner,
                "name": self.name,
                "epoch": self.epoch,
                "seq": self.seq,
                "id": self.id,
                "open": {
                    name: [o.size, f"{o.closed:x}", f"{o.run:x}", o.fails, o.blame] for name, o in self.open.items()
                },
                "counts": self.counts,
            }
        )

    @classmethod
    def from_json(cls, value: bytes) -> "Shard":
        data = load(value)
        try:
            return cls(
                owner=_maybe(str, data["owner"]),
                name=_maybe(str, data["name"]),
                epoch=_as(int, data["epoch"]),
                seq=_as(int, data["seq"]),
                id=_as(str, data["id"]),
                open={_chunk(name): _open(each) for name, each in _object(data["open"]).items()},
                counts={
                    job: {what: _as(int, n) for what, n in _object(tally).items()}
                    for job, tally in _object(data["counts"]).items()
                },
            )
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise GarbageError(f"not a shard: {error!r:.80}") from None


T = TypeVar("T")


def _as(kind: type[T], value: object) -> T:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.40} is not {kind.__name__}")
    return value


def _maybe(kind: type[T], value: object) -> T | None:
    return None if value is None else _as(kind, value)


def _object(value: object) -> dict[str, Any]:
    """A JSON object: its names are strings, since it was read from JSON."""
    _as(dict, value)
    return cast("dict[str, Any]", value)


def _array(value: object) -> list[Any]:
    """A JSON array."""
    _as(list, value)
    return cast("list[Any]", value)


def _chunk(name: str) -> str:
    if not CHUNK_NAME.fullmatch(name):
        raise ValueError(f"{name!r:.40} is not a chunk's name")
    return name


def _open(data: object) -> Open:
    size, closed, run, fails, blame = _array(data)
    chunk = Open(
        _as(int, size),
        int(closed, 16),
        int(run, 16),
        {int(k): _as(int, v) for k, v in _object(fails).items()},
        {int(k): [_as(str, each) for each in _array(v)] for k, v in _object(blame).items()},
    )
    # A bitmap below zero has ones without end, and who follows one beyond the tasks finds none there.
    if any(bitmap < 0 or bitmap.bit_length() > chunk.size for bitmap in (chunk.closed, chunk.run)):
        raise ValueError("a bitmap does not fit its chunk")
    if any(not 0 <= index < chunk.size for index in (*chunk.fails, *chunk.blame)):
        raise ValueError("a task is not in its chunk")
    return chunk


class Keys:
    """Where each record of a group lies."""

    __slots__ = ("_group", "breaker", "jobs", "members", "quarantine", "seats", "shards", "spec")

    def __init__(self, group: str) -> None:
        self._group = group
        self.spec = f"{group}/spec"
        self.breaker = f"{group}/breaker"
        self.members = f"{group}/members"
        self.seats = f"{group}/seats"
        self.shards = f"{group}/shards"
        self.jobs = f"{group}/jobs"
        self.quarantine = f"{group}/quarantine"

    def member(self, incarnation: str) -> str:
        return f"{self.members}/{incarnation}"

    def seat(self, number: int) -> str:
        return f"{self.seats}/{number}"

    def shard(self, number: int) -> str:
        return f"{self.shards}/{number}"

    def job(self, job: str) -> str:
        return f"{self.jobs}/{job}"

    def tasks(self, shard: int) -> str:
        return f"{self._group}/tasks/{shard}"

    def chunk(self, shard: int, name: str) -> str:
        return f"{self._group}/tasks/{shard}/{name}"

    def seen(self, job: str, shard: int) -> str:
        return f"{self._group}/seen/{job}/{shard}"

    def results(self, job: str, shard: int) -> str:
        return f"{self._group}/results/{job}/{shard}"

    def quarantined(self, number: str) -> str:
        return f"{self.quarantine}/{number}"

    def events(self, member: str) -> str:
        return f"{self._group}/events/{member}"

    @property
    def all_events(self) -> str:
        return f"{self._group}/events"


def last_part(key: str) -> str:
    """The part of a key behind its last slash."""
    return key.rpartition("/")[2]
