"""Who should own which shard: one pure function for both shapes, balanced and with few moves.

Only members that may work own shards: Runners that run. Each should own an equal share, but no
more than its capacity; whoever already owns most gets what cannot be divided, so a balanced group
never moves. What is beyond everybody's capacity is left *unassigned*.

The shards of the dead are adopted with care by those that have some already: a few at once, and
none while the breaker is open. Who has none takes its share at once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf

from smoothcluster.group.view import View
from smoothcluster.model import Evidence


@dataclass(frozen=True, slots=True)
class Plan:
    """What one member should try now."""

    claim: tuple[int, ...] = ()
    """Shards that nobody else may work on, to be taken."""
    give: tuple[tuple[int, str | None], ...] = ()
    """Shards of its own, each to be handed to the member named, or let go of if that is None."""
    resign: bool = False
    """It owns shards and may not any more: all are given away."""
    patient: bool = True
    """False if something is amiss that others ought to mend: look again soon."""
    later: bool = False
    """Whether more of the dead's shards are to be adopted once the next round is due."""
    unplaced: tuple[int, ...] = ()
    """Free shards for which nobody has room."""


def workers(view: View) -> list[str]:
    """The members that may own shards: the Runners that run, in one order for all."""
    living = view.living()
    return [name for name in view.runners() if name in living and living[name].running]


def room(view: View, me: str) -> int | None:
    """How many more shards *me* may own by its capacity; None for any number."""
    capacity = view.members[me].record.capacity
    return None if capacity is None else max(0, capacity - len(view.owned(me)))


def shares(owned: Mapping[str, int], total: int, capacity: Mapping[str, float] | None = None) -> dict[str, int]:
    """How many of *total* shards each member should own, given how many it owns and how many it may."""
    target: dict[str, int] = {}
    ranked: list[str] = sorted(owned, key=lambda name: -owned[name])  # stable: equals stay in the order given
    limits = capacity or {}
    while ranked:
        each, extra = divmod(total, len(ranked))
        level = {name: each + (place < extra) for place, name in enumerate(ranked)}
        full = [name for name in ranked if limits.get(name, inf) < level[name]]
        if not full:
            return target | level
        # What these may not have is shared by the others.
        target |= {name: int(limits[name]) for name in full}
        total -= sum(target[name] for name in full)
        ranked = [name for name in ranked if name not in target]
    return target


def plan(view: View, me: str, *, busy: Iterable[int] = (), successor: bool = False, adopt: int | None = None) -> Plan:
    """What *me* should claim and give away.

    *busy* are shards of its own with tasks running: given last. *successor* says that a candidate is
    waiting. If a seat is vacant, what is free is left to it, since it takes that with the seat.
    Of the dead's shards no more than *adopt* are claimed, if given.
    """
    able = workers(view)
    owned = {name: view.owned(name) for name in able}
    usable = [n for n, read in enumerate(view.shards) if read is not None]
    target = shares({name: len(shards) for name, shards in owned.items()}, len(usable), _capacities(view, able))
    if me not in able:
        return _resignation(view, me, owned, target)
    free = [n for n in usable if _free(view, n, able)]
    if free and successor and any(view.verdict(seat.record.holder) is not None for seat in view.seats):
        return Plan(patient=False)
    dealt = _divide(free, owned, target, able)
    if any(dealt.values()):
        now = _portion(view, dealt[me], adopt)
        return Plan(claim=tuple(now), later=len(now) < len(dealt[me]))
    return Plan(give=_surplus(owned, target, me, set(busy)), unplaced=tuple(free))


def _capacities(view: View, able: list[str]) -> dict[str, float]:
    """The most that each may own, of those that have said so."""
    capacities = {name: view.members[name].record.capacity for name in able}
    return {name: capacity for name, capacity in capacities.items() if capacity is not None}


def _free(view: View, number: int, able: list[str]) -> bool:
    """Whether its owner does not work: it has gone, was never there, or holds no seat and does not run.

    One that runs has lost its seat to a change of the numbers: it hands its shards over itself.
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
    """All of *me*'s shards to those who may work, or to nobody, if it runs and is no Runner any more."""
    runners, able = view.runners(), list(owned)
    resigning = [name for name, m in view.living().items() if m.running and name not in runners and view.owned(name)]
    if me not in resigning or not able:
        return Plan()
    # All who resign deal out the same shards in the same order, so no two overload one.
    dealt = _divide(sorted(n for name in resigning for n in view.owned(name)), owned, target, able)
    takers: dict[int, str] = {number: name for name in able for number in dealt[name]}
    return Plan(give=tuple((number, takers.get(number)) for number in view.owned(me)), resign=True)


def orphaned(view: View, number: int) -> bool:
    """Whether its owner has died: who adopts it does not know yet what it died of."""
    read = view.shards[number]
    assert read is not None
    return view.verdict(read.record.owner) in (Evidence.PROCESS_GONE, Evidence.LEASE_EXPIRED)


def _portion(view: View, dealt: list[int], adopt: int | None) -> list[int]:
    """What is to be claimed at once: what nobody died of, and so many of the others."""
    orphans = [number for number in dealt if orphaned(view, number)]
    left = set(orphans[adopt:]) if adopt is not None else set[int]()
    return [number for number in dealt if number not in left]


def _divide(
    free: list[int], owned: dict[str, list[int]], target: dict[str, int], able: list[str]
) -> dict[str, list[int]]:
    """Deal *free* shards out to those below their share, the neediest first, while there are any."""
    dealt: dict[str, list[int]] = {name: [] for name in able}
    for number in free:
        needs = {name: target[name] - len(owned[name]) - len(dealt[name]) for name in able}
        needy = max(able, key=needs.__getitem__)
        if needs[needy] > 0:
            dealt[needy].append(number)
    return dealt


def _surplus(
    owned: dict[str, list[int]], target: dict[str, int], me: str, busy: set[int]
) -> tuple[tuple[int, str], ...]:
    """Which of *me*'s shards go to whom."""
    spare = len(owned[me]) - target[me]
    if spare <= 0:
        return ()
    lacking = [name for name in owned for _ in range(target[name] - len(owned[name]))]
    givers = [name for name in owned for _ in range(len(owned[name]) - target[name])]
    # Every giver serves its own stretch of those who lack, so two never feed the same mouth.
    start = givers.index(me)
    chosen = sorted(owned[me], key=lambda number: (number in busy, number))[:spare]
    return tuple(zip(chosen, lacking[start : start + spare], strict=False))
