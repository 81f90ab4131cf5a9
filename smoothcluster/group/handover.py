"""The moves by which ownership changes, each one guarded commit: claim, give, leave.

Safety: a claim compares and sets three things at once. The shard, so that one claimant wins
and the former owner's next progress commit is refused. The seat, so that there are never more
Runners than seats. The claimant's own member record, so that one whose incarnation has ended,
or whose earlier claim landed late, claims nothing. A claim on the shards of the dead compares the
breaker, too, and tells it of deaths that it does not know of: so it was closed when they were taken.

A move whose outcome is unknown needs no memory here: what a member holds is what the store
says it holds, so it looks again and adopts whatever is its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from smoothcluster.backend import AtVersion, Change, Condition, Create, Delete, Guarantees, Update, commit_size
from smoothcluster.group.election import SeatClaim
from smoothcluster.group.view import Versioned, View
from smoothcluster.model import Evidence
from smoothcluster.records.blame import format_entry
from smoothcluster.records.breaker import Breaker
from smoothcluster.records.group import Member, Seat
from smoothcluster.records.keys import Keys
from smoothcluster.records.shard import Shard, bits


@dataclass(frozen=True, slots=True)
class Move:
    """A commit to be tried, and what is true once it was applied."""

    changes: list[Change]
    id: str
    me: Member
    """My own record afterwards."""
    shards: Mapping[int, Shard]
    """The shards it sets, as they are afterwards."""
    rest: tuple[int, ...] = ()
    """Shards that did not fit, for the next move."""
    former: Mapping[int, str | None] = field(default_factory=dict[int, str | None])
    """Whose shards these were."""
    holder: str | None = None
    """Whose seat it takes."""
    conditions: list[Condition] = field(default_factory=list[Condition])


def succeed(shard: Shard, member: Member, evidence: Evidence, commit_id: str, at: float | None = None) -> Shard:
    """The shard as its next owner takes it over, *at* this time by the wall clock.

    What was marked as running is blamed on the former owner: that start is counted, and
    whoever asks later why a task was started twice finds here who had it and how that ended.
    """
    after = _parted(shard, evidence, commit_id, at)
    after.owner, after.name = member.incarnation, member.name
    after.epoch += 1
    return after


def release(shard: Shard, commit_id: str) -> Shard:
    """The shard as its owner lets go of it. The name stays, for people: whose it was."""
    after = _parted(shard, Evidence.LEFT, commit_id)
    after.owner = None
    return after


def _parted(shard: Shard, evidence: Evidence, commit_id: str, at: float | None = None) -> Shard:
    """A copy of the shard in which what was marked as running is blamed on its owner."""
    after = shard.copy()
    after.id = commit_id
    blamed = format_entry(shard.owner, shard.epoch, evidence, at)
    for chunk in after.open.values():
        for index in bits(chunk.run & ~chunk.closed):
            chunk.blame.setdefault(index, []).append(blamed)
        chunk.run = 0
    return after


def mark(shard: Shard, most: int) -> int:
    """Mark as running up to *most* of the tasks that are open and were never begun; return how many.

    What was begun before is left to be started later: it may be what its owner died of.
    """
    marked = 0
    for chunk in shard.open.values():
        for index in range(chunk.size):
            if marked == most:
                return marked
            if not (chunk.closed >> index & 1 or chunk.attempts(index)):
                chunk.run |= 1 << index
                marked += 1
    return marked


def claim(
    keys: Keys,
    view: View,
    me: Versioned[Member],
    seat: SeatClaim | None,
    shards: Iterable[int],
    commit_id: str,
    limits: Guarantees,
    starts: int = 0,
    breaker: Breaker | None = None,
    spare: tuple[int, Versioned[Shard]] | None = None,
    at: float | None = None,
) -> Move:
    """Take *seat*, if any, and as many of *shards* as fit into one commit.

    The claim itself marks up to *starts* of their tasks as running, so that they can be started
    as soon as they are read, without another commit. *breaker* is its record afterwards, if it
    must be told of deaths. *spare* is a shard of mine to be let go of in the same commit.
    """
    mine = replace(me.record, id=commit_id, seat=me.record.seat if seat is None else seat.number)
    changes: list[Change] = [Update(keys.member(mine.incarnation), mine.to_json(), me.version)]
    conditions: list[Condition] = []
    if breaker is not None:
        changes.append(put(keys.breaker, breaker.to_json(), view.breaker.version))
    elif view.breaker.version is not None:
        conditions.append(AtVersion(keys.breaker, view.breaker.version))
    if spare is not None:
        number, owned = spare
        changes.append(put(keys.shard(number), release(owned.record, commit_id).to_json(), owned.version))
    if seat is not None:
        changes.extend(_sit_down(keys, view, mine.incarnation, seat, commit_id))
    taken: dict[int, Shard] = {}
    rest: list[int] = []
    for number in shards:
        after = succeed(_read(view, number).record, mine, _evidence(view, number), commit_id, at)
        marked = mark(after, starts)
        change = put(keys.shard(number), after.to_json(), _read(view, number).version)
        if rest or not _fits([*changes, change], limits):
            rest.append(number)
            continue
        changes.append(change)
        taken[number], starts = after, starts - marked
    former = {number: _read(view, number).record.owner for number in taken}
    holder = seat.holder if seat is not None else None
    emptied = {name for name in (holder, *former.values()) if name is not None}
    dead = sorted(name for name in emptied if name in view.gone and name in view.members)
    changes.extend(Delete(keys.member(name)) for name in dead)
    return Move(changes, commit_id, mine, taken, tuple(rest), former, holder, conditions)


def _sit_down(keys: Keys, view: View, me: str, seat: SeatClaim, commit_id: str) -> list[Change]:
    """The changes by which *seat* becomes *me*'s; a holder that lives is told by its own record."""
    changes = [put(keys.seat(seat.number), Seat(me, commit_id).to_json(), view.seats[seat.number].version)]
    if seat.depose and seat.holder:
        holder = view.members[seat.holder]
        deposed = replace(holder.record, seat=None, id=commit_id)
        changes.append(Update(keys.member(seat.holder), deposed.to_json(), holder.version))
    return changes


def _read(view: View, number: int) -> Versioned[Shard]:
    read = view.shards[number]
    assert read is not None, "garbage is never planned for"
    return read


def _evidence(view: View, number: int) -> Evidence:
    return view.verdict(_read(view, number).record.owner) or Evidence.LEFT


def give(
    keys: Keys, me: Member, target: Versioned[Member], shards: Mapping[int, Versioned[Shard]], commit_id: str
) -> Move:
    """Hand *shards*, on which nothing runs, to *target*, whose own record tells it so."""
    changes: list[Change] = [
        Update(keys.member(target.record.incarnation), replace(target.record, id=commit_id).to_json(), target.version)
    ]
    after = {n: succeed(read.record, target.record, Evidence.LEFT, commit_id) for n, read in shards.items()}
    changes.extend(Update(keys.shard(n), after[n].to_json(), shards[n].version) for n in after)
    return Move(changes, commit_id, me, after)


def let_go(keys: Keys, me: Member, shards: Mapping[int, Versioned[Shard]], commit_id: str) -> Move:
    """Leave *shards* to nobody: whoever has room for them some time may take them."""
    after = {number: release(read.record, commit_id) for number, read in shards.items()}
    return Move([Update(keys.shard(n), after[n].to_json(), shards[n].version) for n in after], commit_id, me, after)


def leave(
    keys: Keys,
    view: View,
    me: Versioned[Member],
    shards: Mapping[int, Versioned[Shard]],
    commit_id: str,
    limits: Guarantees,
) -> Move:
    """Let go of *shards*, as many as fit, and with the last of them of the seat and the membership."""
    mine = me.record
    closing: list[Change] = [Delete(keys.member(mine.incarnation), me.version)]
    for number, seat in enumerate(view.seats):
        if seat.record.holder == mine.incarnation:
            closing.append(put(keys.seat(number), Seat(None, commit_id).to_json(), seat.version))
    changes: list[Change] = []
    after: dict[int, Shard] = {}
    rest: list[int] = []
    for number, read in shards.items():
        freed = release(read.record, commit_id)
        change = Update(keys.shard(number), freed.to_json(), read.version)
        if rest or not _fits([*closing, *changes, change], limits):
            rest.append(number)
            continue
        changes.append(change)
        after[number] = freed
    return Move(changes if rest else [*changes, *closing], commit_id, mine, after, tuple(rest))


def put(key: str, value: bytes, version: str | None) -> Change:
    """Have *value* at *key*, if it is still at *version*, or still absent if that is None."""
    return Create(key, value) if version is None else Update(key, value, version)


def _fits(changes: list[Change], limits: Guarantees) -> bool:
    # Room is left for burying the dead: at most one key for each change.
    size = commit_size([], changes)
    return size.bytes + 128 * len(changes) <= limits.largest_commit and 2 * size.operations <= limits.most_operations
