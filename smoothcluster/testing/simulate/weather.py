"""What one schedule is like: drawn from its seed, so that no two are alike.

A schedule that has all of everything hides much: where a lot happens, the next event makes up for
the one that was missed. So some schedules are one long storm; the others are squalls with few tasks
and few kinds of faults, each followed by a silence in which all must end well, and another kind
of message is slow in each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smoothcluster.testing.simulate.world import Scenario

SLOW = ("read", "watch", "commit", "renew", "news")
"""Kinds of messages that may be slow: those of calls, and the news of commits, to a server or from it to a watch."""

Jobs = Mapping[str, Sequence[int]]
"""The numbers of each job's tasks; `pool.children` says what comes of them."""


POISON = range(1001, 1021, 2)
"""Tasks of which some end their process."""


@dataclass(frozen=True, slots=True)
class Weather:
    """One schedule's share of everything."""

    seconds: float
    """How long each time faults happen and jobs are handed in."""
    faults: tuple[str, ...]
    runner: int
    backup: int | None
    """None: all are Runners."""
    capacity: int | None
    """Of each member."""
    shards: int
    slow: str
    """The kind of message that is slow, if any."""
    jobs: Sequence[Jobs]
    """The jobs of each storm or squall."""
    isolation: str
    """Which tasks run in child processes: "suspects", "every" one, or "none", since no child can run the handler."""


def draw(random: Random, scenario: "Scenario") -> Weather:
    """A storm with all that *scenario* has, or squalls with some of it."""
    faults, shards, tasks = scenario.faults, scenario.shards, scenario.tasks
    members = scenario.members
    runner = min(scenario.runner, members)
    backup: int | None = members - runner
    if random.random() < 0.4:
        runner, backup = random.choice((members, members, max(1, members - 1))), None
    # Room for all with one member less, or none to spare, or any number of shards.
    capacity = random.choice((None, None, None, -(-shards // max(1, runner - 1)), -(-shards // runner)))
    isolation = random.choice(("suspects", "suspects", "suspects", "every", "none"))
    if random.random() < 0.25:
        drips = {f"d{number}": range(1) for number in range(6)}
        floods = {f"j{number}": range(tasks) for number in range(scenario.jobs)}
        # What a slow renewal does shows where a lot goes on; anything else that is slow only makes a storm long.
        poison = {"k0": POISON} if random.random() < 0.5 else {}
        return Weather(12.0, faults, runner, backup, capacity, shards, "renew", [floods | drips | poison], isolation)
    some = tuple(random.sample(faults, min(len(faults), random.choice((1, 1, 2, 4)))))
    squalls: list[dict[str, Sequence[int]]] = [{f"s{number}": _few(random, tasks)} for number in range(5)]
    if random.random() < 0.5:
        squalls[0]["k0"] = POISON
        squalls[2]["k1"] = POISON
    if backup is not None:
        runner = random.choice((1, runner, runner, members))
        backup, capacity = members - runner, None if runner == 1 else capacity
    few = random.choice((min(2, shards), shards))
    return Weather(1.0, some, runner, backup, capacity, few, random.choice(SLOW), squalls, isolation)


def _few(random: Random, tasks: int) -> Sequence[int]:
    """One task that adds many others, or some that add one for two of them, or none."""
    first, most = random.choice(((0, 1), (1000, tasks), (1001, tasks), (1001, tasks)))
    return range(first, first + 2 * min(most, random.choice((1, 4, 16))), 2)
