"""Leader election: pure decisions on the holders of seats, written once for every store.

A seat is the licence to be a Runner. A seated member stays; a returning member pushes no holder
out. Candidates are the living members without a seat, in the order of joining unless the user
gives another order. The i-th candidate takes the i-th free seat. So two candidates with the same
snapshot never claim the same seat, and two deaths at once wake two Backup Runners.

The first candidate may be inactive: stopped or cut off, with a lease still valid. The next candidates pass an
inactive candidate by after a moment. They also pass by an unfit candidate, unless no other member is there.

Safety: these decisions do not fence. Two members may decide on the same seat; the commit in `handover`
gives the seat to only one of them.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field

from smoothcluster.group.view import View
from smoothcluster.model import Evidence, Role
from smoothcluster.records.group import Member

CANDIDATE_TURN_SECONDS = 1.0
"""Seconds for which a free seat is left to each candidate with an earlier turn."""

Order = Callable[[Member], object]
"""The key by which candidates are sorted; must give values that compare."""


def join_order(member: Member) -> object:
    """First come, first served."""
    return member.place


@dataclass(frozen=True, slots=True)
class SeatClaim:
    """A claim on seat *number* and on the shards of the present *holder*."""

    number: int
    holder: str | None
    evidence: Evidence
    inactive: bool = False
    """Whether the holder lives, but has not run for a TTL."""


def candidates(view: View, me: str, order: Order = join_order, idle: Container[str] | None = None) -> list[Member]:
    """The queue for seats as *me* sees the queue: living members without a seat, *me* included.

    A member that was constructed but does not run cannot take over, so a running member passes such members
    by; if *idle* is given, only those in *idle*. Unfit members come last.
    """
    living, runners = view.living(), view.runners()
    running = me in living and living[me].running
    passed = {name for name, m in living.items() if running and not m.running and (idle is None or name in idle)}
    able = [m for name, m in living.items() if name not in passed or name == me]
    # A member with a seat in its record claimed the seat after the seats were read, or is about to reclaim it.
    waiting = [m for m in able if m.incarnation not in runners and m.seat is None]
    return sorted(waiting, key=lambda member: (member.unfit is not None, order(member), member.place))


def first_in_line(view: View, me: str, order: Order = join_order) -> bool:
    """Whether *me* is first to take the next free seat, or the next free shards if no candidate waits.

    Where all members are Runners, every Runner is first in line for free shards.
    """
    if view.all_run and me in view.runners():
        return True
    queue = [member for member in candidates(view, me, order) if member.running or member.incarnation == me]
    return not queue or queue[0].incarnation == me


@dataclass(frozen=True, slots=True)
class Observation:
    """The times that a member has seen pass, all on the monotonic clock of its own process."""

    now: float
    ttl: float
    """Seconds without a sign of life after which a holder counts as inactive."""
    idle_since: Mapping[str, float]
    """For each member that does not run: the time since when its record has been unchanged."""
    vacant_since: Mapping[int, float] = field(default_factory=dict[int, float])
    """For each free seat: the time since when it has been free."""


def free_seats(view: View, seen: Observation) -> list[SeatClaim]:
    """Claims on the free seats, lowest first."""
    claims: list[SeatClaim] = []
    for number, read in enumerate(view.seats):
        if read.record.closed > view.spec.record.joins:
            continue  # The spec was read before a resize closed seats, and this seat after.
        holder = read.record.holder
        evidence = view.verdict(holder)
        if evidence is not None:
            claims.append(SeatClaim(number, holder, evidence))
        elif holder is not None and seen.now - seen.idle_since.get(holder, seen.now) >= seen.ttl:
            claims.append(SeatClaim(number, holder, Evidence.LEFT, inactive=True))
    return claims


def seat_to_claim(view: View, me: str, seen: Observation, order: Order = join_order) -> SeatClaim | None:
    """The seat for *me* to claim now, or None."""
    living = view.living()
    if view.all_run or me not in living or me in view.seated() or _better_not(view, me, order):
        return None
    free = [claim for claim in free_seats(view, seen) if living[me].running or not claim.inactive]
    mine = living[me].seat
    if mine is not None:
        # An own claim may have landed since the seats were read: then the store refuses this claim.
        return next((claim for claim in free if claim.number == mine), None)
    taken = {member.seat for member in living.values()}
    free = [claim for claim in free if claim.inactive or claim.number not in taken]
    # A newcomer claims a seat before running: to pass it by at once would upset roles in the making.
    idle = {name for name, since in seen.idle_since.items() if seen.now - since >= seen.ttl}
    rank = [member.incarnation for member in candidates(view, me, order, idle)].index(me)
    waited = (seen.now - seen.vacant_since.get(claim.number, seen.now) for claim in free)
    turns = (place + int(seconds / CANDIDATE_TURN_SECONDS) for place, seconds in enumerate(waited))
    return next((claim for claim, turn in zip(free, turns, strict=True) if rank <= turn), None)


def _better_not(view: View, me: str, order: Order) -> bool:
    """Whether *me* is unfit and other running members can take over."""
    living = view.living()
    if living[me].unfit is None:
        return False
    others = {*view.runners(), *fit(view, me, order)} - {me}
    return any(living[each].running for each in others & living.keys())


def fit(view: View, me: str, order: Order = join_order) -> list[str]:
    """The running candidates that have not found themselves unfit, in order."""
    queue = candidates(view, me, order)
    return [member.incarnation for member in queue if member.running and member.unfit is None]


def role_of(view: View, me: str) -> Role:
    """The role of *me*, according to the store."""
    return Role.RUNNER if me in view.runners() else Role.BACKUP_RUNNER
