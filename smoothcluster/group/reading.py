"""Read a group from the store, in the order on which the decisions rely."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from smoothcluster.backend import CoordinationBackend, Entry
from smoothcluster.group.view import Report, Versioned, View
from smoothcluster.model import Evidence
from smoothcluster.records.breaker import CLOSED, Breaker
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.group import Member, Seat, Spec
from smoothcluster.records.keys import Keys, last_part
from smoothcluster.records.shard import Shard


def parse_spec(entry: Entry | None) -> Versioned[Spec] | None:
    """The spec in *entry*; None without an entry. Garbage is fatal here, because a group needs numbers."""
    if entry is None:
        return None
    try:
        return Versioned(Spec.from_json(entry.value), entry.version)
    except GarbageError as error:
        raise GarbageError(f"{entry.key} holds the numbers of the group and cannot be read: {error}") from None


def read_members(backend: CoordinationBackend, keys: Keys, report: Report) -> dict[str, Versioned[Member]]:
    """All members with readable records; report the garbage."""
    members: dict[str, Versioned[Member]] = {}
    for entry in backend.list(keys.members):
        try:
            member = Member.from_json(entry.value)
            if member.incarnation != last_part(entry.key):
                raise GarbageError(f"the record names another incarnation: {member.incarnation!r:.40}")
            members[member.incarnation] = Versioned(member, entry.version)
        except GarbageError as error:
            report(entry.key, str(error))
    return members


@dataclass(frozen=True, slots=True)
class Ownership:
    """The spec, and the records of ownership, which are never deleted."""

    spec: Versioned[Spec]
    seats: list[Versioned[Seat]]
    shards: list[Versioned[Shard] | None]
    breaker: Versioned[Breaker]


def read_ownership(backend: CoordinationBackend, keys: Keys, spec: Spec | None, report: Report) -> Ownership | None:
    """Read the spec and the records of ownership, in a single step if the numbers of *spec* are still valid."""
    while True:
        if spec is None:
            read = parse_spec(backend.get(keys.spec))
            if read is None:
                return None
            spec = read.record
        seat_keys = [keys.seat(n) for n in range(spec.seats)]
        shard_keys = [keys.shard(n) for n in range(spec.shards)]
        # Shards before seats: a shard's owner held a seat then, so an owner without a seat *later* was deposed.
        first, second, *entries = backend.get_many([keys.spec, keys.breaker, *shard_keys, *seat_keys])
        read = parse_spec(first)
        if read is not None and (read.record.seats, read.record.shards) == (spec.seats, spec.shards):
            shards = [_shard(entry, report) for entry in entries[: spec.shards]]
            seats = [_seat(entry, report) for entry in entries[spec.shards :]]
            return Ownership(read, seats, shards, _breaker(second, report))
        spec = None


def read_seats(
    backend: CoordinationBackend, keys: Keys, numbers: Iterable[int], report: Report
) -> dict[int, Versioned[Seat]]:
    """The seats with these numbers."""
    wanted = list(numbers)
    entries = backend.get_many([keys.seat(n) for n in wanted]) if wanted else []
    return {number: _seat(entry, report) for number, entry in zip(wanted, entries, strict=True)}


def read_view(
    backend: CoordinationBackend, keys: Keys, gone: Mapping[str, Evidence], report: Report, last: View | None = None
) -> View | None:
    """Read the whole group; None if the group does not exist yet. The *last* view saves a step.

    Shards are read before seats, and both before members. A shard's owner held a seat before, and had
    joined before the seat, so an owner missing in a *later* read has gone. In the opposite order a newcomer would
    look dead.
    """
    found = read_ownership(backend, keys, last.spec.record if last else None, report)
    if found is None:
        return None
    members = read_members(backend, keys, report)
    return View(found.spec, found.seats, found.shards, members, gone, breaker=found.breaker)


def refresh(
    backend: CoordinationBackend,
    keys: Keys,
    gone: Mapping[str, Evidence],
    report: Report,
    last: View,
    numbers: Sequence[int],
    seat: int | None = None,
) -> tuple[View, dict[str, Entry]]:
    """The *last* view with some shards, and perhaps a seat, read again: a fast read for urgent claims.

    The read includes the chunks that the first of these shards had open in the last view. After the claim, the
    member can start their tasks without another read.
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
    """Keys of the open chunks of the first shard with open chunks: two at most, because chunks may be large."""
    for number in numbers:
        read = view.shards[number]
        if read is not None and read.record.open:
            return [keys.chunk(number, name) for name in list(read.record.open)[:2]]
    return []


def _breaker(entry: Entry | None, report: Report) -> Versioned[Breaker]:
    if entry is None:
        return Versioned(CLOSED, None)
    try:
        return Versioned(Breaker.from_json(entry.value), entry.version)
    except GarbageError as error:
        # The next adopting member records the lost deaths again.
        report(entry.key, str(error))
        return Versioned(CLOSED, entry.version)


def _seat(entry: Entry | None, report: Report) -> Versioned[Seat]:
    if entry is None:
        return Versioned(Seat(None, ""), None)
    try:
        return Versioned(Seat.from_json(entry.value), entry.version)
    except GarbageError as error:
        # A seat records only the holder, so an unreadable seat counts as free.
        report(entry.key, str(error))
        return Versioned(Seat(None, ""), entry.version)


def _shard(entry: Entry | None, report: Report) -> Versioned[Shard] | None:
    if entry is None:
        return Versioned(Shard(), None)
    try:
        return Versioned(Shard.from_json(entry.value), entry.version)
    except GarbageError as error:
        report(entry.key, str(error))
        return None
