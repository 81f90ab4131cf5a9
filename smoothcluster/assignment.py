"""Who should own which shard: one pure function for both shapes, balanced and with few moves.

Only members that may work own shards: those that hold a seat and run. Each should own an equal
share; whoever already owns most gets what cannot be divided, so a balanced group never moves.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from smoothcluster.view import View


@dataclass(frozen=True, slots=True)
class Plan:
    """What one member should try now."""

    claim: tuple[int, ...] = ()
    """Shards that nobody else may work on, to be taken."""
    give: tuple[tuple[int, str], ...] = ()
    """Shards of its own, each to be handed to the member named."""
    patient: bool = True
    """False if something is amiss that others ought to mend: look again soon."""


def workers(view: View) -> list[str]:
    """The members that may own shards, by seat."""
    living, seated = view.living(), view.seated()
    return sorted((name for name in seated if name in living and living[name].running), key=seated.__getitem__)


def shares(owned: dict[str, int], total: int) -> dict[str, int]:
    """How many of *total* shards each member should own, given how many it owns."""
    if not owned:
        return {}
    each, extra = divmod(total, len(owned))
    ranked = sorted(owned, key=lambda name: -owned[name])  # stable: equals stay in the order given
    return {name: each + (place < extra) for place, name in enumerate(ranked)}


def plan(view: View, me: str, *, busy: Iterable[int] = (), heir: bool = False) -> Plan:
    """What *me* should claim and give away.

    *busy* are shards of its own with tasks running: given last. *heir* says that a candidate is
    waiting. If a seat is vacant, what is free is left to it, since it takes that with the seat.
    """
    able = workers(view)
    if me not in able:
        return Plan()
    owned = {name: view.owned(name) for name in able}
    usable = [n for n, read in enumerate(view.shards) if read is not None]
    target = shares({name: len(shards) for name, shards in owned.items()}, len(usable))
    free = [n for n in usable if _free(view, n, able)]
    if free and heir and any(view.verdict(seat.record.holder) is not None for seat in view.seats):
        return Plan(patient=False)
    if free:
        return Plan(claim=tuple(_divide(free, owned, target, able)[me]))
    return Plan(give=_surplus(owned, target, me, set(busy)))


def _free(view: View, number: int, able: list[str]) -> bool:
    """Whether its owner may not work: it has gone, holds no seat, or was never there."""
    read = view.shards[number]
    assert read is not None
    owner = read.record.owner
    return owner not in able and (view.verdict(owner) is not None or owner not in view.seated())


def _divide(
    free: list[int], owned: dict[str, list[int]], target: dict[str, int], able: list[str]
) -> dict[str, list[int]]:
    """Deal *free* shards out to those below their share, the neediest first."""
    dealt: dict[str, list[int]] = {name: [] for name in able}
    for number in free:
        needy = max(able, key=lambda name: target[name] - len(owned[name]) - len(dealt[name]))
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
