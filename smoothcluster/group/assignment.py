"""Shard assignment: a pure function for both shapes of a group, balanced and with few moves.

Only running Runners own shards. Each Runner should own an equal share, up to its capacity. The members with
most shards keep the remainder of the division, so a balanced group never moves a shard. Shards beyond the
capacity of all members stay *unassigned*.

A member with shards adopts the shards of dead members carefully: a few at once, and none while the circuit breaker
is open. A member without shards takes a full share at once.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from math import inf

from smoothcluster.group.view import View
from smoothcluster.model import Evidence


@dataclass(frozen=True, slots=True)
class Plan:
    """The moves for a member to try now."""

    claim: tuple[int, ...] = ()
    """Shards to claim; no other member may work on them."""
    give: tuple[tuple[int, str | None], ...] = ()
    """Own shards to hand over, each with the incarnation of the receiver, or with None to release the shard."""
    resign: bool = False
    """Whether the member owns shards but may not any more, and gives all of them away."""
    patient: bool = True
    """False if other members should act first: re-read the group soon."""
    later: bool = False
    """Whether the next round of adoption has more shards of dead members to adopt."""
    unplaced: tuple[int, ...] = ()
    """Free shards for which no member has room."""


def workers(view: View) -> list[str]:
    """The members that may own shards: the running Runners, in the same order for all."""
    living = view.living()
    return [name for name in view.runners() if name in living and living[name].running]


def room(view: View, me: str) -> int | None:
    """How many more shards the capacity of *me* allows; None for any number."""
    capacity = view.members[me].record.capacity
    return None if capacity is None else max(0, capacity - len(view.owned(me)))


def shares(owned: Mapping[str, int], total: int, capacity: Mapping[str, float] | None = None) -> dict[str, int]:
    """How many of *total* shards each member should own, given the present numbers and the capacities."""
    target: dict[str, int] = {}
    ranked: list[str] = sorted(owned, key=lambda name: -owned[name])  # stable: equals stay in the order given
    limits = capacity or {}
    while ranked:
        each, extra = divmod(total, len(ranked))
        level = {name: each + (place < extra) for place, name in enumerate(ranked)}
        full = [name for name in ranked if limits.get(name, inf) < level[name]]
        if not full:
            return target | level
        # The other members share the shards beyond these members' limits.
        target |= {name: int(limits[name]) for name in full}
        total -= sum(target[name] for name in full)
        ranked = [name for name in ranked if name not in target]
    return target


def plan(view: View, me: str, *, busy: Iterable[int] = (), successor: bool = False, adopt: int | None = None) -> Plan:
    """The shards that *me* should claim and give away.

    *busy* are shards of *me* with running tasks, to be given last. *successor* says whether a candidate waits for
    a seat. If a seat is vacant, the free shards are left to the candidate, who takes them with the seat.
    *adopt*, if given, bounds how many shards of dead members are claimed.
    """
    able = workers(view)
    owned = {name: view.owned(name) for name in able}
    usable = [n for n, read in enumerate(view.shards) if read is not None]
    target = shares({name: len(shards) for name, shards in owned.items()}, len(usable), _capacities(view, able))
    if me not in able:
        return _resignation(view, me, owned, target)
    workers_now = frozenset(able)
    free = [n for n in usable if _free(view, n, workers_now)]
    if free and successor and any(view.verdict(seat.record.holder) is not None for seat in view.seats):
        return Plan(patient=False)
    dealt = _divide(free, owned, target, able)
    if any(dealt.values()):
        now = _portion(view, dealt[me], adopt)
        return Plan(claim=tuple(now), later=len(now) < len(dealt[me]))
    return Plan(give=_surplus(owned, target, me, set(busy)), unplaced=tuple(free))


def _capacities(view: View, able: list[str]) -> dict[str, float]:
    """The capacity of each member with a limited capacity."""
    capacities = {name: view.members[name].record.capacity for name in able}
    return {name: capacity for name, capacity in capacities.items() if capacity is not None}


def _free(view: View, number: int, able: Collection[str]) -> bool:
    """Whether a shard is free: the owner has gone, never existed, or neither holds a seat nor runs.

    A running owner without a seat has lost the seat to a resize, and hands the shards over itself.
    """
    read = view.shards[number]
    assert read is not None
    owner = read.record.owner
    if owner is None or owner in able or view.verdict(owner) is not None:
        return owner not in able
    if view.all_run or owner in view.seated():
        return False
    return owner in view.members and not view.members[owner].record.running


def _resignation(view: View, me: str, owned: dict[str, list[int]], target: dict[str, int]) -> Plan:
    """The plan to give all shards of *me* away, if *me* runs and is no Runner any more; else an empty plan."""
    runners, able = frozenset(view.runners()), list(owned)
    resigning = [name for name, m in view.living().items() if m.running and name not in runners and view.owned(name)]
    if me not in resigning or not able:
        return Plan()
    # All resigning members deal out the same shards in the same order, so two of them never overload a receiver.
    dealt = _divide(sorted(n for name in resigning for n in view.owned(name)), owned, target, able)
    takers: dict[int, str] = {number: name for name in able for number in dealt[name]}
    return Plan(give=tuple((number, takers.get(number)) for number in view.owned(me)), resign=True)


def orphaned(view: View, number: int) -> bool:
    """Whether the shard's owner has died. The cause of the death is still unknown when a member adopts the shard."""
    read = view.shards[number]
    assert read is not None
    return view.verdict(read.record.owner) in (Evidence.PROCESS_GONE, Evidence.LEASE_EXPIRED)


def _portion(view: View, dealt: list[int], adopt: int | None) -> list[int]:
    """The shards to claim at once: all without a dead owner, and up to *adopt* of the others."""
    orphans = [number for number in dealt if orphaned(view, number)]
    left = set(orphans[adopt:]) if adopt is not None else set[int]()
    return [number for number in dealt if number not in left]


def _divide(
    free: list[int], owned: dict[str, list[int]], target: dict[str, int], able: list[str]
) -> dict[str, list[int]]:
    """Deal *free* shards out to the members below their share, the neediest first."""
    dealt: dict[str, list[int]] = {name: [] for name in able}
    # A heap of those with a need, the neediest first, and of equals the first in order.
    needs = [(len(owned[name]) - target[name], place) for place, name in enumerate(able)]
    waiting = [need for need in needs if need[0] < 0]
    heapify(waiting)
    for number in free:
        if not waiting:
            break
        need, place = waiting[0]
        dealt[able[place]].append(number)
        if need < -1:
            heapreplace(waiting, (need + 1, place))
        else:
            heappop(waiting)
    return dealt


def _surplus(
    owned: dict[str, list[int]], target: dict[str, int], me: str, busy: set[int]
) -> tuple[tuple[int, str], ...]:
    """The surplus shards of *me*, each with its receiver."""
    spare = len(owned[me]) - target[me]
    if spare <= 0:
        return ()
    lacking = [name for name in owned for _ in range(target[name] - len(owned[name]))]
    givers = [name for name in owned for _ in range(len(owned[name]) - target[name])]
    # Each giver serves a separate stretch of the receivers, so two givers never serve the same need.
    start = givers.index(me)
    chosen = sorted(owned[me], key=lambda number: (number in busy, number))[:spare]
    return tuple(zip(chosen, lacking[start : start + spare], strict=False))
