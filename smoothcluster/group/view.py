"""A picture of the group, as one member read it: what every decision starts from.

It may be out of date by the time it is used; that costs a lost race, never a promise, since
every move made on it is a guarded commit.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from smoothcluster.backend import CoordinationBackend, Entry
from smoothcluster.model import Evidence
from smoothcluster.records.breaker import CLOSED, Breaker
from smoothcluster.records.group import GarbageError, Keys, Member, Seat, Shard, Spec, last_part

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
    breaker: Read[Breaker] = Read(CLOSED, None)

    @property
    def all_run(self) -> bool:
        """Whether all members are Runners, without seats."""
        return self.spec.record.backup is None

    def living(self) -> dict[str, Member]:
        """The members that are there and not proved dead."""
        return {name: read.record for name, read in self.members.items() if name not in self.gone}

    def verdict(self, incarnation: str | None) -> Evidence | None:
        """How it is known that *incarnation* no longer works; None if it may well do."""
        if incarnation is None:
            return Evidence.LEFT
        if incarnation in self.gone:
            return self.gone[incarnation]
        if incarnation in self.members:
            return None
        if incarnation in self.breaker.record.dead:
            return self.breaker.record.dead[incarnation].evidence
        return Evidence.LEASE_EXPIRED if self.complete else None

    def seated(self) -> dict[str, int]:
        """Who of the living holds which seat."""
        return {
            read.record.holder: number
            for number, read in enumerate(self.seats)
            if read.record.holder is not None and self.verdict(read.record.holder) is None
        }

    def runners(self) -> list[str]:
        """Who of the living is a Runner: who holds a seat, by seat; or without seats, the first to have joined.

        Without seats one that is unfit is passed over, unless nobody else is there.
        """
        if not self.all_run:
            seated = self.seated()
            return sorted(seated, key=seated.__getitem__)
        living = self.living()
        fit = [name for name, member in living.items() if member.unfit is None] or list(living)
        return sorted(fit, key=lambda name: living[name].join)[: self.spec.record.runner]

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


@dataclass(frozen=True, slots=True)
class Ownership:
    """The spec, and who owns what by the records that are never deleted."""

    spec: Read[Spec]
    seats: list[Read[Seat]]
    shards: list[Read[Shard] | None]
    breaker: Read[Breaker]


def read_ownership(backend: CoordinationBackend, keys: Keys, spec: Spec | None, report: Report) -> Ownership | None:
    """The spec and the records of ownership, in one step if *spec* still tells how many there are."""
    while True:
        if spec is None:
            read = parse_spec(backend.get(keys.spec))
            if read is None:
                return None
            spec = read.record
        seat_keys = [keys.seat(n) for n in range(spec.seats)]
        shard_keys = [keys.shard(n) for n in range(spec.shards)]
        # Shards before seats: who owned a shard held a seat then, so if it holds none *later*, it was deposed.
        first, second, *entries = backend.get_many([keys.spec, keys.breaker, *shard_keys, *seat_keys])
        read = parse_spec(first)
        if read is not None and (read.record.seats, read.record.shards) == (spec.seats, spec.shards):
            shards = [_shard(entry, report) for entry in entries[: spec.shards]]
            seats = [_seat(entry, report) for entry in entries[spec.shards :]]
            return Ownership(read, seats, shards, _breaker(second, report))
        spec = None


def read_seats(
    backend: CoordinationBackend, keys: Keys, numbers: Iterable[int], report: Report
) -> dict[int, Read[Seat]]:
    """Some seats."""
    wanted = list(numbers)
    entries = backend.get_many([keys.seat(n) for n in wanted]) if wanted else []
    return {number: _seat(entry, report) for number, entry in zip(wanted, entries, strict=True)}


def read_view(
    backend: CoordinationBackend, keys: Keys, gone: Mapping[str, Evidence], report: Report, last: View | None = None
) -> View | None:
    """Look at the whole group; None if it does not exist yet. The *last* look saves a step.

    Shards are read before seats, and both before members: whoever owns a shard held a seat before,
    and had joined before that, so if it is not among what is read *later*, it has gone. The other
    way round a newcomer would look dead.
    """
    found = read_ownership(backend, keys, last.spec.record if last else None, report)
    if found is None:
        return None
    members = read_members(backend, keys, report)
    return View(found.spec, found.seats, found.shards, members, gone, breaker=found.breaker)


def glance(
    backend: CoordinationBackend,
    keys: Keys,
    gone: Mapping[str, Evidence],
    report: Report,
    last: View,
    numbers: Sequence[int],
    seat: int | None = None,
) -> tuple[View, dict[str, Entry]]:
    """The *last* look, with some shards, and perhaps a seat, as they are now: when every millisecond counts.

    With it come the chunks that the first of these shards had open at the last look: whoever
    claims them can start their tasks without another read.
    """
    ahead = _opened(keys, last, numbers)
    held = [keys.seat(seat)] if seat is not None else []
    found = backend.get_many([*ahead, keys.breaker, *map(keys.shard, numbers), *held])
    chunks, (first, *entries) = found[: len(ahead)], found[len(ahead) :]
    shards, seats = list(last.shards), list(last.seats)
    for number, entry in zip(numbers, entries, strict=False):
        shards[number] = _shard(entry, report)
    if seat is not None:
        seats[seat] = _seat(entries[-1], report)
    view = replace(last, seats=seats, shards=shards, gone=gone, complete=False, breaker=_breaker(first, report))
    return view, {entry.key: entry for entry in chunks if entry is not None}


def _opened(keys: Keys, view: View, numbers: Sequence[int]) -> list[str]:
    """Keys of the chunks that the first of these shards with any has open: two at most, for they may be large."""
    for number in numbers:
        read = view.shards[number]
        if read is not None and read.record.open:
            return [keys.chunk(number, name) for name in list(read.record.open)[:2]]
    return []


def _breaker(entry: Entry | None, report: Report) -> Read[Breaker]:
    if entry is None:
        return Read(CLOSED, None)
    try:
        return Read(Breaker.from_json(entry.value), entry.version)
    except GarbageError as error:
        # Whom it told of is told again by whoever adopts next.
        report(entry.key, str(error))
        return Read(CLOSED, entry.version)


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
