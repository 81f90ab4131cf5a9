"""Handover: the moves that change ownership (claim, transfer, release, leave), each a single guarded commit.

Each move takes as many shards as fit into a commit (`Portion`); the rest is for the next move.

Safety: a claim compares and sets three records at once. The shard: only a single claimant wins, and the store
refuses the former owner's next progress commit. The seat: there are never more Runners than seats. The
claimant's member record: a claimant with an ended incarnation, or with an earlier claim that landed late, claims
nothing. A claim on shards of dead members also compares the circuit breaker and records new deaths there, so the
breaker was closed when the shards were taken.

A move with an unknown outcome needs no memory here. The store alone says which shards and seats a member holds, so
the member reads the group again and takes up all shards recorded as its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from smoothcluster.backend import AtVersion, Change, Condition, Delete, Guarantees, Update
from smoothcluster.group.election import SeatClaim
from smoothcluster.group.portion import Portion
from smoothcluster.group.store import Stamp, put
from smoothcluster.group.view import Versioned, View
from smoothcluster.model import Evidence
from smoothcluster.records.blame import format_entry, parse_entries
from smoothcluster.records.breaker import Breaker
from smoothcluster.records.group import Member, Seat
from smoothcluster.records.keys import Keys
from smoothcluster.records.shard import Shard, bits

_ENDS_OF_OWNERS = frozenset(Evidence)
"""The ends of a start with the end of the owner: no child process ran the task."""


@dataclass(frozen=True, slots=True)
class Move:
    """A commit to try, and the state after the commit."""

    changes: list[Change]
    id: str
    me: Member
    """The own member record afterwards."""
    shards: Mapping[int, Shard]
    """The shards set by the move, as they are afterwards."""
    rest: tuple[int, ...] = ()
    """Shards that did not fit into the commit, for the next move."""
    former: Mapping[int, str | None] = field(default_factory=dict[int, str | None])
    """The former owner of each shard."""
    holder: str | None = None
    """The former holder of the claimed seat, if any."""
    conditions: list[Condition] = field(default_factory=list[Condition])
    unfit: tuple[int, ...] = ()
    """Shards with a record too large for any commit: nothing can move them."""


def succeed(shard: Shard, member: Member, evidence: Evidence, commit_id: str, at: float | None = None) -> Shard:
    """The shard as the successor takes over, *at* this time by the wall clock.

    Each task marked as running gets an entry of blame with the former owner. The entry counts as a start. The
    entry also explains a second start of the task: the record names the earlier owner and the end of the earlier start.
    """
    after = _parted(shard, evidence, commit_id, at)
    after.owner, after.name = member.incarnation, member.name
    after.epoch += 1
    return after


def release(shard: Shard, commit_id: str) -> Shard:
    """The shard as the owner releases it. The name of the former owner stays, for people."""
    after = _parted(shard, Evidence.LEFT, commit_id)
    after.owner = None
    return after


def _parted(shard: Shard, evidence: Evidence, commit_id: str, at: float | None = None) -> Shard:
    """A copy of the shard, with blame on the owner for each task marked as running."""
    after = shard.copy()
    after.id = commit_id
    blamed = format_entry(shard.owner, shard.epoch, evidence, at)
    for chunk in after.open.values():
        for index in bits(chunk.run & ~chunk.closed):
            chunk.blame.setdefault(index, []).append(blamed)
        chunk.run = 0
    return after


def in_flight(shard: Shard) -> int:
    """How many open tasks of the shard were running when the owner died, or were started before."""
    return sum(
        len({*bits(chunk.run & ~chunk.closed), *chunk.blame} - chunk.waits.keys()) for chunk in shard.open.values()
    )


def mark(shard: Shard, restarts: int, starts: int) -> tuple[int, int]:
    """Mark open tasks as running: up to *restarts* that ran in a former owner, and up to *starts* that never started.

    Return how many of each. Tasks that ended a child process, or ran alone, are left for later.
    """
    before = restarts, starts
    for chunk in shard.open.values():
        for index in range(chunk.size):
            if not (restarts or starts):
                break
            if index in chunk.waits:
                continue
            blame = chunk.blame.get(index)
            if blame and restarts and all(entry.evidence in _ENDS_OF_OWNERS for entry in parse_entries(blame)):
                restarts -= 1
            elif starts and not (chunk.closed >> index & 1 or chunk.attempts(index)):
                starts -= 1
            else:
                continue
            chunk.run |= 1 << index
    return before[0] - restarts, before[1] - starts


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """The seat and the shards that a member wants, and the changes that belong into the same commit."""

    seat: SeatClaim | None
    shards: Iterable[int]
    restarts: int = 0
    """Most tasks to mark as running of those that ran in the former owners. Marked tasks start without another commit,
    once they are read."""
    starts: int = 0
    """Most tasks to mark as running of those that never started."""
    breaker: Breaker | None = None
    """The breaker's record afterwards, if there are deaths to record."""
    spare: tuple[int, Versioned[Shard]] | None = None
    """An own shard to release."""


def claim(
    keys: Keys, view: View, me: Versioned[Member], wanted: ClaimRequest, limits: Guarantees, stamp: Stamp
) -> Move:
    """Claim the wanted seat, if any, and as many of the wanted shards as fit into a commit."""
    seat, restarts, starts, commit_id = wanted.seat, wanted.restarts, wanted.starts, stamp.id
    mine = replace(me.record, id=commit_id, seat=me.record.seat if seat is None else seat.number)
    changes: list[Change] = [Update(keys.member(mine.incarnation), mine.to_json(), me.version)]
    conditions = _compare_breaker(keys, view, wanted.breaker, changes)
    if wanted.spare is not None:
        number, owned = wanted.spare
        changes.append(put(keys.shard(number), release(owned.record, commit_id).to_json(), owned.version))
    if seat is not None:
        changes.extend(_take_seat(keys, view, mine.incarnation, seat, commit_id))
    holder = seat.holder if seat is not None else None
    dead = {name: removal(keys, view.members[name].record) for name in view.gone if name in view.members}
    changes.extend(dead.pop(holder) if holder in dead else [])
    taken: dict[int, Shard] = {}
    portion, left = Portion(changes, limits, conditions, always=1), _Left()
    for number in wanted.shards:
        after = succeed(_read(view, number).record, mine, _evidence(view, number), commit_id, stamp.at)
        marked = mark(after, restarts, starts)
        change = put(keys.shard(number), after.to_json(), _read(view, number).version)
        owner = _read(view, number).record.owner
        if left.take(number, portion, change, *dead.get(owner or "", ())):
            taken[number], restarts, starts = after, restarts - marked[0], starts - marked[1]
            dead.pop(owner or "", None)
    former = {number: _read(view, number).record.owner for number in taken}
    return Move(
        portion.changes, commit_id, mine, taken, tuple(left.rest), former, holder, conditions, tuple(left.unfit)
    )


def removal(keys: Keys, member: Member, version: str | None = None) -> list[Change]:
    """Remove the record of *member*, at *version* if given, and the key of the name.

    The name's key was created in one commit with the record, and goes only with the record. So a late commit is refused
    if the record has gone, and cannot remove the key of a later member of this name.
    """
    name: list[Change] = [Delete(keys.name(member.name))] if member.named else []
    return [Delete(keys.member(member.incarnation), version), *name]


@dataclass
class _Left:
    """The shards that a move leaves out."""

    rest: list[int] = field(default_factory=list[int])
    unfit: list[int] = field(default_factory=list[int])

    def take(self, number: int, portion: Portion, *changes: Change) -> bool:
        """Add the *changes* of a shard to *portion*, or leave the shard out; return whether they were added."""
        if not portion.fits_alone(*changes):
            self.unfit.append(number)
            return False
        if self.rest or not portion.add(*changes):
            self.rest.append(number)
            return False
        return True


def _compare_breaker(keys: Keys, view: View, breaker: Breaker | None, changes: list[Change]) -> list[Condition]:
    """Have the claim write *breaker*, if there are deaths to record, or compare the record that *view* shows."""
    if breaker is not None:
        changes.append(put(keys.breaker, breaker.to_json(), view.breaker.version))
    elif view.breaker.version is not None:
        return [AtVersion(keys.breaker, view.breaker.version)]
    return []


def _take_seat(keys: Keys, view: View, me: str, seat: SeatClaim, commit_id: str) -> list[Change]:
    """The changes that give *seat* to *me*; a deposed holder learns so from its own member record."""
    changes = [put(keys.seat(seat.number), Seat(me, commit_id).to_json(), view.seats[seat.number].version)]
    if seat.inactive and seat.holder:
        holder = view.members[seat.holder]
        former_holder = replace(holder.record, seat=None, id=commit_id)
        changes.append(Update(keys.member(seat.holder), former_holder.to_json(), holder.version))
    return changes


def _read(view: View, number: int) -> Versioned[Shard]:
    read = view.shards[number]
    assert read is not None, "garbage is never planned for"
    return read


def _evidence(view: View, number: int) -> Evidence:
    return view.verdict(_read(view, number).record.owner) or Evidence.LEFT


def transfer(
    keys: Keys,
    me: Member,
    target: Versioned[Member],
    shards: Mapping[int, Versioned[Shard]],
    commit_id: str,
    limits: Guarantees,
) -> Move:
    """Transfer as many of *shards* as fit, all without running tasks, to *target*.

    The same commit updates the member record that *target* watches.
    """
    told = replace(target.record, id=commit_id)
    wake = Update(keys.member(told.incarnation), told.to_json(), target.version)
    after = {n: succeed(read.record, target.record, Evidence.LEFT, commit_id) for n, read in shards.items()}
    return _move(keys, me, Portion([wake], limits), shards, after, commit_id)


def release_shards(
    keys: Keys, me: Member, shards: Mapping[int, Versioned[Shard]], commit_id: str, limits: Guarantees
) -> Move:
    """Release as many of *shards* as fit, without a successor, so any member with room may claim them later."""
    after = {number: release(read.record, commit_id) for number, read in shards.items()}
    return _move(keys, me, Portion([], limits), shards, after, commit_id)


def leave(
    keys: Keys,
    view: View,
    me: Versioned[Member],
    shards: Mapping[int, Versioned[Shard]],
    commit_id: str,
    limits: Guarantees,
) -> Move:
    """Release as many of *shards* as fit; with the last of them, give up the seat and delete the member record."""
    mine = me.record
    closing = removal(keys, mine, me.version)
    for number, seat in enumerate(view.seats):
        if seat.record.holder == mine.incarnation:
            closing.append(put(keys.seat(number), Seat(None, commit_id).to_json(), seat.version))
    after = {number: release(read.record, commit_id) for number, read in shards.items()}
    move = _move(keys, mine, Portion(closing, limits), shards, after, commit_id)
    return replace(move, changes=move.changes[len(closing) :]) if move.rest else move


def _move(
    keys: Keys,
    me: Member,
    portion: Portion,
    before: Mapping[int, Versioned[Shard]],
    after: Mapping[int, Shard],
    commit_id: str,
) -> Move:
    """The move that sets as many shards as fit to their state *after*."""
    left = _Left()
    moved = {
        number: shard
        for number, shard in after.items()
        if left.take(number, portion, Update(keys.shard(number), shard.to_json(), before[number].version))
    }
    return Move(portion.changes, commit_id, me, moved, tuple(left.rest), unfit=tuple(left.unfit))
