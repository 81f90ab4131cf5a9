"""The moves by which ownership changes, each one guarded commit: claim, give, leave.

Safety: a claim compares and sets three things at once. The shard, so that one claimant wins
and the former owner's next progress commit is refused. The seat, so that there are never more
Runners than seats. The claimant's own member record, so that one whose incarnation has ended,
or whose earlier claim landed late, claims nothing.

A move whose outcome is unknown needs no memory here: what a member holds is what the store
says it holds, so it looks again and adopts whatever is its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from smoothcluster.backend import Change, Create, Delete, Guarantees, Update, commit_size
from smoothcluster.election import SeatClaim
from smoothcluster.model import Evidence
from smoothcluster.records import Keys, Member, Seat, Shard, bits
from smoothcluster.suspicion import write
from smoothcluster.view import Read, View


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
    evidence: Evidence = Evidence.LEFT
    former: str | None = None
    """Whose shards these were, for people."""


def succeed(shard: Shard, member: Member, evidence: Evidence, commit_id: str, at: float | None = None) -> Shard:
    """The shard as its next owner takes it over, *at* this time by the wall clock.

    What was marked as running is blamed on the former owner: that start is counted, and
    whoever asks later why a task was started twice finds here who had it and how that ended.
    """
    after = shard.copy()
    blamed = write(shard.owner, shard.epoch, evidence, at)
    for chunk in after.open.values():
        for index in bits(chunk.run & ~chunk.closed):
            chunk.blame.setdefault(index, []).append(blamed)
        chunk.run = 0
    after.owner, after.name = member.incarnation, member.name
    after.epoch += 1
    after.id = commit_id
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
    me: Read[Member],
    seat: SeatClaim | None,
    shards: Iterable[int],
    commit_id: str,
    limits: Guarantees,
    starts: int = 0,
    at: float | None = None,
) -> Move:
    """Take *seat*, if any, and as many of *shards* as fit into one commit.

    The claim itself marks up to *starts* of their tasks as running, so that they can be started
    as soon as they are read, without another commit.
    """
    mine = replace(me.record, id=commit_id, seat=me.record.seat if seat is None else seat.number)
    changes: list[Change] = [Update(keys.member(mine.incarnation), mine.to_json(), me.version)]
    dead: set[str] = set()
    if seat is not None:
        changes.append(
            _put(keys.seat(seat.number), Seat(mine.incarnation, commit_id).to_json(), view.seats[seat.number].version)
        )
        dead |= {seat.holder} if seat.holder else set()
        if seat.depose and seat.holder:
            holder = view.members[seat.holder]
            changes.append(
                Update(
                    keys.member(seat.holder), replace(holder.record, seat=None, id=commit_id).to_json(), holder.version
                )
            )
    taken: dict[int, Shard] = {}
    rest: list[int] = []
    for number in shards:
        read = view.shards[number]
        assert read is not None, "garbage is never planned for"
        evidence = view.verdict(read.record.owner) or Evidence.LEFT
        after = succeed(read.record, mine, evidence, commit_id, at)
        marked = mark(after, starts)
        change = _put(keys.shard(number), after.to_json(), read.version)
        if rest or not _fits([*changes, change], limits):
            rest.append(number)
            continue
        changes.append(change)
        starts -= marked
        taken[number] = after
        dead |= {read.record.owner} if read.record.owner else set()
    buried = sorted(name for name in dead if name in view.gone and name in view.members)
    changes.extend(Delete(keys.member(name)) for name in buried)
    former = seat.holder if seat else next(iter(sorted(dead)), None)
    return Move(changes, commit_id, mine, taken, tuple(rest), view.verdict(former) or Evidence.LEFT, former)


def give(keys: Keys, me: Member, target: Read[Member], shards: Mapping[int, Read[Shard]], commit_id: str) -> Move:
    """Hand *shards*, on which nothing runs, to *target*, whose own record tells it so."""
    changes: list[Change] = [
        Update(keys.member(target.record.incarnation), replace(target.record, id=commit_id).to_json(), target.version)
    ]
    after = {n: succeed(read.record, target.record, Evidence.LEFT, commit_id) for n, read in shards.items()}
    changes.extend(Update(keys.shard(n), after[n].to_json(), shards[n].version) for n in after)
    return Move(changes, commit_id, me, after)


def leave(
    keys: Keys, view: View, me: Read[Member], shards: Mapping[int, Read[Shard]], commit_id: str, limits: Guarantees
) -> Move:
    """Let go of *shards*, as many as fit, and with the last of them of the seat and the membership."""
    mine = me.record
    closing: list[Change] = [Delete(keys.member(mine.incarnation), me.version)]
    for number, seat in enumerate(view.seats):
        if seat.record.holder == mine.incarnation:
            closing.append(_put(keys.seat(number), Seat(None, commit_id).to_json(), seat.version))
    changes: list[Change] = []
    after: dict[int, Shard] = {}
    rest: list[int] = []
    for number, read in shards.items():
        freed = read.record.copy()
        freed.owner, freed.id = None, commit_id  # The name stays, for people: whose it was.
        for chunk in freed.open.values():
            for index in bits(chunk.run & ~chunk.closed):
                chunk.blame.setdefault(index, []).append(write(mine.incarnation, freed.epoch, Evidence.LEFT))
            chunk.run = 0
        change = Update(keys.shard(number), freed.to_json(), read.version)
        if rest or not _fits([*closing, *changes, change], limits):
            rest.append(number)
            continue
        changes.append(change)
        after[number] = freed
    return Move(changes if rest else [*changes, *closing], commit_id, mine, after, tuple(rest))


def _put(key: str, value: bytes, version: str | None) -> Change:
    return Create(key, value) if version is None else Update(key, value, version)


def _fits(changes: list[Change], limits: Guarantees) -> bool:
    # Room is left for burying the dead: at most one key for each change.
    size = commit_size([], changes)
    return size.bytes + 128 * len(changes) <= limits.largest_commit and 2 * size.operations <= limits.most_operations
