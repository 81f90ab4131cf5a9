"""The store of one group: the backend, the keys, the clock and the ids, and the reads on which the decisions rely."""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar, final

from smoothcluster.backend import Change, CoordinationBackend, Create, Entry, HasHistory, Update
from smoothcluster.clock import SYSTEM_CLOCK, Clock
from smoothcluster.group.parsed import ParsedRecords
from smoothcluster.group.view import Report, Versioned, View
from smoothcluster.model import Evidence
from smoothcluster.records.breaker import CLOSED_BREAKER, Breaker
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


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ownership:
    """The spec, and the records of ownership, which are never deleted."""

    spec: Versioned[Spec]
    seats: list[Versioned[Seat]]
    shards: list[Versioned[Shard] | None]
    breaker: Versioned[Breaker]


def put(key: str, value: bytes, version: str | None) -> Change:
    """Write *value* at *key* if the key is still at *version*, or still absent where *version* is None."""
    return Create(key, value) if version is None else Update(key, value, version)


class Stamp(NamedTuple):
    """The mark of a commit: an id that no other commit has, and the wall-clock time, for people to read."""

    id: str
    at: float | None = None


def random_id() -> str:
    """Return an id that no process makes again."""
    return secrets.token_hex(8)


@final
class GroupStore:
    """The store of one group, for a member or for a client.

    Args:
        backend: the client of the store, for this group.
        keys: the names of the group's keys.
        report: called with the key of an unreadable record and the error found.
        clock: the source of time.
        new_id: makes ids that are never made again, anywhere.
    """

    def __init__(
        self,
        backend: CoordinationBackend,
        keys: Keys,
        report: Report,
        clock: Clock = SYSTEM_CLOCK,
        new_id: Callable[[], str] = random_id,
    ) -> None:
        self.backend, self.keys, self.report, self.clock, self.new_id = backend, keys, report, clock, new_id
        self._members = ParsedRecords(self._parse_member)
        self._shards = ParsedRecords(lambda entry: _shard(entry, self.report))

    def stamp(self) -> Stamp:
        """Return the stamp of a new commit."""
        return Stamp(self.new_id(), self.clock.wall())

    def history(self) -> str | None:
        """The store's history in the store's own words; None if the store has none. Raise UnavailableError."""
        return self.backend.history() if isinstance(self.backend, HasHistory) else None

    def read_spec(self) -> Versioned[Spec] | None:
        """The spec; None without a group. Raise GarbageError if it is unreadable: a group needs numbers."""
        return parse_spec(self.backend.get(self.keys.spec))

    def read_records(self, directory: str, decode: Callable[[Entry], T]) -> dict[str, T]:
        """The readable records directly in *directory*, by name; report the garbage, for which *decode* raises."""
        found: dict[str, T] = {}
        for entry in self.backend.list(directory):
            try:
                found[last_part(entry.key)] = decode(entry)
            except GarbageError as error:
                self.report(entry.key, str(error))
        return found

    def read_members(self) -> dict[str, Versioned[Member]]:
        """All members with readable records; report the garbage."""
        found = self._members.read(self.backend.list(self.keys.members))
        return {last_part(key): member for key, member in found.items()}

    def _parse_member(self, entry: Entry) -> Versioned[Member] | None:
        try:
            return parse_member(entry)
        except GarbageError as error:
            self.report(entry.key, str(error))
            return None

    def read_silent(self) -> set[str]:
        """The incarnations whose leases have not been renewed in time, by the store's clock: for people only."""
        leases = {last_part(entry.key): entry.lease for entry in self.backend.list(self.keys.members)}
        silent = self.backend.silent_leases([lease for lease in leases.values() if lease is not None])
        return {incarnation for incarnation, lease in leases.items() if lease in silent}

    def read_ownership(self, spec: Spec | None, version: str | None = None) -> Ownership | None:
        """Read the spec and the records of ownership, in a single step if the numbers of *spec* are still valid.

        If the spec in the store is unreadable, report that and go on with *spec* at *version*, the last good one: the
        store refuses commits that compare this version. Without a last good spec, raise GarbageError.
        """
        while True:
            if spec is None:
                read = self.read_spec()
                if read is None:
                    return None
                spec = read.record
            seat_keys = [self.keys.seat(n) for n in range(spec.seats)]
            shard_keys = [self.keys.shard(n) for n in range(spec.shards)]
            # Shards before seats: a shard's owner held a seat then, so an owner without a seat *later* was deposed.
            first, second, *entries = self.backend.get_many(
                [self.keys.spec, self.keys.breaker, *shard_keys, *seat_keys]
            )
            try:
                read = parse_spec(first)
            except GarbageError as error:
                self.report(self.keys.spec, str(error))
                read = Versioned(spec, version)
            if read is not None and (read.record.seats, read.record.shards) == (spec.seats, spec.shards):
                known = self._shards.read(entries[: spec.shards])
                shards = [
                    known.get(key) if entry is not None else ABSENT_SHARD
                    for key, entry in zip(shard_keys, entries, strict=False)
                ]
                seats = [_seat(entry, self.report) for entry in entries[spec.shards :]]
                return Ownership(read, seats, shards, _breaker(second, self.report))
            spec = None

    def read_shards(self, numbers: Iterable[int]) -> list[Versioned[Shard] | None]:
        """The records of the shards with these numbers; None for each unreadable record."""
        return [_shard(entry, self.report) for entry in self.backend.get_many([self.keys.shard(n) for n in numbers])]

    def read_seats(self, numbers: Iterable[int]) -> dict[int, Versioned[Seat]]:
        """The seats with these numbers."""
        wanted = list(numbers)
        entries = self.backend.get_many([self.keys.seat(n) for n in wanted]) if wanted else []
        return {number: _seat(entry, self.report) for number, entry in zip(wanted, entries, strict=True)}

    def read_view(self, gone: Mapping[str, Evidence], last: View | None = None) -> View | None:
        """Read the whole group; None if the group does not exist yet. The *last* view saves a step.

        Shards are read before seats, and both before members. A shard's owner held a seat before, and had
        joined before the seat, so an owner missing in a *later* read has gone. In the opposite order a newcomer would
        look dead.
        """
        found = self.read_ownership(last.spec.record, last.spec.version) if last else self.read_ownership(None)
        if found is None:
            return None
        members = self.read_members()
        return View(found.spec, found.seats, found.shards, members, gone, breaker=found.breaker)

    def refresh(
        self,
        last: View,
        numbers: Sequence[int],
        seat: int | None = None,
    ) -> tuple[View, dict[str, Entry]]:
        """The *last* view with some shards, and perhaps a seat, read again: a fast read for urgent claims.

        The read includes the chunks that the first of these shards had open in the last view. After the claim, the
        member can start their tasks without another read.
        """
        ahead = _opened(self.keys, last, numbers)
        held = [self.keys.seat(seat)] if seat is not None else []
        found = self.backend.get_many([*ahead, self.keys.breaker, *map(self.keys.shard, numbers), *held])
        chunks, (first, *entries) = found[: len(ahead)], found[len(ahead) :]
        shards, seats = list(last.shards), list(last.seats)
        for number, entry in zip(numbers, entries, strict=False):
            shards[number] = _shard(entry, self.report)
        if seat is not None:
            seats[seat] = _seat(entries[-1], self.report)
        view = replace(last, seats=seats, shards=shards, complete=False, breaker=_breaker(first, self.report))
        return view, {entry.key: entry for entry in chunks if entry is not None}


def parse_member(entry: Entry) -> Versioned[Member]:
    """The member in *entry*; raise GarbageError if the record is unreadable, or of another incarnation."""
    member = Member.from_json(entry.value)
    if member.incarnation != last_part(entry.key):
        raise GarbageError(f"the record names another incarnation: {member.incarnation!r:.40}")
    return Versioned(replace(member, created=entry.created), entry.version)


def _opened(keys: Keys, view: View, numbers: Sequence[int]) -> list[str]:
    """Keys of the open chunks of the first shard with open chunks: two at most, because chunks may be large."""
    for number in numbers:
        read = view.shards[number]
        if read is not None and read.record.open:
            return [keys.chunk(number, name) for name in list(read.record.open)[:2]]
    return []


def _breaker(entry: Entry | None, report: Report) -> Versioned[Breaker]:
    if entry is None:
        return Versioned(CLOSED_BREAKER, None)
    try:
        return Versioned(Breaker.from_json(entry.value), entry.version)
    except GarbageError as error:
        # The next adopting member records the lost deaths again.
        report(entry.key, str(error))
        return Versioned(CLOSED_BREAKER, entry.version)


def _seat(entry: Entry | None, report: Report) -> Versioned[Seat]:
    if entry is None:
        return Versioned(Seat(None, ""), None)
    try:
        return Versioned(Seat.from_json(entry.value), entry.version)
    except GarbageError as error:
        # A seat records only the holder, so an unreadable seat counts as free.
        report(entry.key, str(error))
        return Versioned(Seat(None, ""), entry.version)


ABSENT_SHARD = Versioned(Shard(), None)
"""A shard that nobody has owned yet. Never change it: take a copy."""


def _shard(entry: Entry | None, report: Report) -> Versioned[Shard] | None:
    if entry is None:
        return ABSENT_SHARD
    try:
        return Versioned(Shard.from_json(entry.value), entry.version)
    except GarbageError as error:
        report(entry.key, str(error))
        return None
