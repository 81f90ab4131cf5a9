"""Who should hold a seat: pure decisions, written once for every store.

A seat is the licence to be a Runner. A seated member stays; one that comes back pushes nobody
out. Candidates are the living members without a seat, in the order they joined unless the user
gives another. The i-th candidate takes the i-th free seat, so that two who look at the same
picture never want the same one, and two deaths at once wake two backups.

One that should be first but does nothing (it is stopped, or cut off, and its lease has not run out
yet) is passed by after a moment, and so is one that has found itself unfit, unless nobody else is there.

Safety: none of this fences. Two members may well decide on one seat; the commit in `handover`
lets one of them have it.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

from smoothcluster.group.view import View
from smoothcluster.model import Evidence, Role
from smoothcluster.records.group import Member

PATIENCE = 1.0
"""Seconds that a free seat is left to each candidate whose turn comes first."""

Order = Callable[[Member], object]
"""The key by which candidates are sorted; must give values that compare."""


def join_order(member: Member) -> int:
    """First come, first served."""
    return member.join


@dataclass(frozen=True, slots=True)
class SeatClaim:
    """Take seat *number* from *holder*, whose shards come with it."""

    number: int
    holder: str | None
    evidence: Evidence
    depose: bool = False
    """The holder lives but does not run, and has not for one TTL."""


def candidates(view: View, me: str, order: Order = join_order, idle: Container[str] | None = None) -> list[Member]:
    """The living members without a seat that *me* must let go first, and itself.

    One that was constructed but does not run cannot take over, so one that runs passes it by;
    if *idle* is given, only if it is among these. Those that are unfit come last.
    """
    living, runners = view.living(), view.runners()
    running = me in living and living[me].running
    passed = {name for name, m in living.items() if running and not m.running and (idle is None or name in idle)}
    able = [m for name, m in living.items() if name not in passed or name == me]
    # Whose record names a seat took it after the seats were read, or takes it back from who overwrote it.
    waiting = [m for m in able if m.incarnation not in runners and m.seat is None]
    return sorted(waiting, key=lambda member: (member.unfit is not None, order(member), member.join))


def first_in_line(view: View, me: str, order: Order = join_order) -> bool:
    """Whether the next seat that gets free is *me*'s to take, or the next shards, if nobody waits for a seat.

    Where all members are Runners, whatever gets free is due to all of them.
    """
    if view.all_run and me in view.runners():
        return True
    queue = [member for member in candidates(view, me, order) if member.running or member.incarnation == me]
    return not queue or queue[0].incarnation == me


def free_seats(view: View, idle_since: Mapping[str, float], now: float, ttl: float) -> list[SeatClaim]:
    """Seats that may be taken, lowest first.

    *idle_since* says since when, on this process's clock, a holder's record has stood
    unchanged and not running.
    """
    claims: list[SeatClaim] = []
    for number, read in enumerate(view.seats):
        if read.record.closed > view.spec.record.joins:
            continue  # The spec was read before there were fewer seats, and this one after.
        holder = read.record.holder
        evidence = view.verdict(holder)
        if evidence is not None:
            claims.append(SeatClaim(number, holder, evidence))
        elif holder is not None and now - idle_since.get(holder, now) >= ttl:
            claims.append(SeatClaim(number, holder, Evidence.LEFT, depose=True))
    return claims


def seat_to_claim(
    view: View,
    me: str,
    idle_since: Mapping[str, float],
    now: float,
    ttl: float,
    order: Order = join_order,
    vacant_since: Mapping[int, float] | None = None,
) -> SeatClaim | None:
    """The seat that *me* should try to take now, or None.

    *vacant_since* says since when, on this process's clock, each seat has been free.
    """
    living = view.living()
    if view.all_run or me not in living or me in view.seated() or _better_not(view, me, order):
        return None
    free = [claim for claim in free_seats(view, idle_since, now, ttl) if living[me].running or not claim.depose]
    mine = living[me].seat
    if mine is not None:
        # A claim of ours may have landed since the seats were read: then this one is refused.
        return next((claim for claim in free if claim.number == mine), None)
    taken = {member.seat for member in living.values()}
    free = [claim for claim in free if claim.depose or claim.number not in taken]
    # A newcomer takes its seat before it runs: who ran past it at once would upset roles that are being settled.
    idle = {name for name, since in idle_since.items() if now - since >= ttl}
    rank = [member.incarnation for member in candidates(view, me, order, idle)].index(me)
    since = vacant_since or {}
    turns = (place + int((now - since.get(claim.number, now)) / PATIENCE) for place, claim in enumerate(free))
    return next((claim for claim, turn in zip(free, turns, strict=True) if rank <= turn), None)


def _better_not(view: View, me: str, order: Order) -> bool:
    """Whether *me* is unfit and others are there to take over."""
    living = view.living()
    if living[me].unfit is None:
        return False
    others = {*view.runners(), *fit(view, me, order)} - {me}
    return any(living[each].running for each in others & living.keys())


def fit(view: View, me: str, order: Order = join_order) -> list[str]:
    """The candidates that run and have not found themselves unfit, in order."""
    queue = candidates(view, me, order)
    return [member.incarnation for member in queue if member.running and member.unfit is None]


def role_of(view: View, me: str) -> Role:
    """What *me* is, by the store."""
    return Role.RUNNER if me in view.runners() else Role.BACKUP_RUNNER
