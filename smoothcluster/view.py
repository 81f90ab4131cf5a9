"""A picture of the group, as one member read it: what every decision starts from.

It may be out of date by the time it is used; that costs a lost race, never a promise, since
every move made on it is a guarded commit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from smoothcluster.backend import CoordinationBackend, Entry
from smoothcluster.model import Evidence
from smoothcluster.records import GarbageError, Keys, Member, Seat, Shard, Spec, last_part

T = TypeVar("T")

Report = Callable[[str, str], None]
"""Told of garbage: the key it lies under, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Read(Generic[T]):
    """A record and the version it was read at; None if the key does not exist yet."""

    record: T
    version: str | None


@dataclass(frozen=True, slots=True)
class View:
    """The group's spec, seats, shards and members, and whom this process knows to be dead."""

    spec: Read[Spec]
    seats: Sequence[Read[Seat]]
    shards: Sequence[Read[Shard] | None]
    """None where a shard's record is garbage: nobody may touch it."""
    members: Mapping[str, Read[Member]]
    gone: Mapping[str, Evidence] = field(default_factory=dict[str, Evidence])
    """Incarnations proved dead, though their records may still be there."""
    complete: bool = True
    """Whether *members* were read after the rest. If not, one that is missing may be a newcomer."""

    @property
    def runner(self) -> int:
        return self.spec.record.runner or 0

    def living(self) -> dict[str, Member]:
        """The members that are there and not proved dead."""
        return {name: read.record for name, read in self.members.items() if name not in self.gone}

    def verdict(self, incarnation: str | None) -> Evidence | None:
        """How it is known that *incarnation* no longer works; None if it may well do."""
        if incarnation is None:
            return Evidence.LEFT
        if incarnation in self.gone:
            return self.gone[incarnation]
        return None if incarnation in self.members or not self.complete else Evidence.LEASE_EXPIRED

    def seated(self) -> dict[str, int]:
        """Who of the living holds which seat."""
        return {
            read.record.holder: number
            for number, read in enumerate(self.seats)
            if read.record.holder is not None and self.verdict(read.record.holder) is None
        }

    def owned(self, incarnation: str | None) -> list[int]:
        """The shards that *incarnation* owns; those that nobody does, for None."""
        return [n for n, read in enumerate(self.shards) if read is not None and read.record.owner == incarnation]


def parse_spec(entry: Entry | None) -> Read[Spec] | None:
    """The spec in *entry*; None if there is none. Garbage there is fatal: the group has no numbers."""
    if entry is None:
        return None
    try:
        return Read(Spec.from_json(entry.value), entry.version)
    except GarbageError as error:
        raise GarbageError(f"{entry.key}, without which there is no group, cannot be read: {error}") from None


def read_members(backend: CoordinationBackend, keys: Keys, report: Report) -> dict[str, Read[Member]]:
    """All members whose records can be read."""
    members: dict[str, Read[Member]] = {}
    for entry in backend.list(keys.members):
        try:
            member = Member.from_json(entry.value)
            if member.incarnation != last_part(entry.key):
                raise GarbageError(f"it says it is {member.incarnation!r:.40}")
            members[member.incarnation] = Read(member, entry.version)
        except GarbageError as error:
            report(entry.key, str(error))
    return members


def read_ownership(
    backend: CoordinationBackend, keys: Keys, spec: Spec | None, report: Report
) -> tuple[Read[Spec], list[Read[Seat]], list[Read[Shard] | None]] | None:
    """The spec and the records of ownership, in one step if *spec* still tells how many there are."""
    while True:
        if spec is None:
            read = parse_spec(backend.get(keys.spec))
            if read is None:
                return None
            spec = read.record
        seat_keys = [keys.seat(n) for n in range(spec.runner or 0)]
        shard_keys = [keys.shard(n) for n in range(spec.shards)]
        # Shards before seats: who owned a shard held a seat then, so if it holds none *later*, it was deposed.
        first, *entries = backend.get_many([keys.spec, *shard_keys, *seat_keys])
        read = parse_spec(first)
        if read is not None and (read.record.runner, read.record.shards) == (spec.runner, spec.shards):
            shards = [_shard(entry, report) for entry in entries[: spec.shards]]
            return read, [_seat(entry, report) for entry in entries[spec.shards :]], shards
        spec = None


def read_view(
    backend: CoordinationBackend, keys: Keys, gone: Mapping[str, Evidence], report: Report, last: View | None = None
) -> View | None:
    """Look at the whole group; None if it does not exist yet. The *last* look saves a step.

    Shards are read before seats, and both before members: whoever owns a shard held a seat before,
    and had joined before that, so if it is not among what is read *later*, it has gone. The other
    way round a newcomer would look dead.
    """
    found = read_ownership(backend, keys, last.spec.record if last else None, report)
    return None if found is None else View(*found, read_members(backend, keys, report), gone)


def glance(
    backend: CoordinationBackend, keys: Keys, gone: Mapping[str, Evidence], report: Report, last: View, seat: int
) -> View:
    """The *last* look, with one seat, and its holder's shards, as they are now: when every millisecond counts."""
    numbers = last.owned(last.seats[seat].record.holder)
    *entries, held = backend.get_many([*map(keys.shard, numbers), keys.seat(seat)])
    shards, seats = list(last.shards), list(last.seats)
    for number, entry in zip(numbers, entries, strict=True):
        shards[number] = _shard(entry, report)
    seats[seat] = _seat(held, report)
    return replace(last, seats=seats, shards=shards, gone=gone, complete=False)


def _seat(entry: Entry | None, report: Report) -> Read[Seat]:
    if entry is None:
        return Read(Seat(None, ""), None)
    try:
        return Read(Seat.from_json(entry.value), entry.version)
    except GarbageError as error:
        # A seat holds nothing but its holder: one that cannot be read is as good as free.
        report(entry.key, str(error))
        return Read(Seat(None, ""), entry.version)


def _shard(entry: Entry | None, report: Report) -> Read[Shard] | None:
    if entry is None:
        return Read(Shard(), None)
    try:
        return Read(Shard.from_json(entry.value), entry.version)
    except GarbageError as error:
        report(entry.key, str(error))
        return None
