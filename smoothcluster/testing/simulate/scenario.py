"""What one schedule is like: drawn from its seed, so that no two are alike.

A schedule that has all of everything hides much: where a lot happens, the next event makes up for
the one that was missed. So some schedules are one long storm; some are squalls with few tasks
and few kinds of faults, each followed by a silence in which all must end well; and some are gales
with few tasks, too, in which few members that have many shards, and not all room for many, lose some
again and again. Another kind of message is slow in each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smoothcluster.testing.simulate.simulation import Scenario

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
    capacities: Sequence[int | None]
    """Of each member; there are as many."""
    shards: int
    slow: str
    """The kind of message that is slow, if any."""
    jobs: Sequence[Jobs]
    """The jobs of each storm, squall or gale."""
    isolation: str
    """Which tasks run in child processes: "suspects", "every" one, or "none", since no child can run the handler."""

    @property
    def members(self) -> int:
        return len(self.capacities)


def draw(random: Random, scenario: "Scenario") -> Weather:
    """A storm with all that *scenario* has, or squalls or gales with some of it."""
    kind = random.choices((_storm, _squalls, _gales), (0.15, 0.6, 0.25))[0]
    return kind(random, scenario)


def _storm(random: Random, scenario: "Scenario") -> Weather:
    runner, backup = _numbers(random, scenario)
    drips = {f"d{number}": range(1) for number in range(6)}
    floods = {f"j{number}": range(scenario.tasks) for number in range(scenario.jobs)}
    poison = {"k0": POISON} if random.random() < 0.5 else {}
    return Weather(
        seconds=12.0,
        faults=scenario.faults,
        runner=runner,
        backup=backup,
        capacities=_even(random, scenario.members, runner, scenario.shards),
        shards=scenario.shards,
        slow="renew",  # What that does shows where a lot goes on; anything else that is slow only makes a storm long.
        jobs=[floods | drips | poison],
        isolation=_isolation(random),
    )


def _squalls(random: Random, scenario: "Scenario") -> Weather:
    runner, backup = _numbers(random, scenario)
    capacities = _even(random, scenario.members, runner, scenario.shards)
    squalls: list[dict[str, Sequence[int]]] = [{f"s{number}": _few(random, scenario.tasks)} for number in range(5)]
    if random.random() < 0.5:
        squalls[0]["k0"] = POISON
        squalls[2]["k1"] = POISON
    if backup is not None:
        runner = random.choice((1, runner, runner, scenario.members))
        backup = scenario.members - runner
        capacities = capacities if runner > 1 else [None] * scenario.members
    return Weather(
        seconds=1.0,
        faults=_some(random, scenario.faults, (1, 1, 2, 4)),
        runner=runner,
        backup=backup,
        capacities=capacities,
        shards=random.choice((min(2, scenario.shards), scenario.shards)),
        slow=random.choice(SLOW),
        jobs=squalls,
        isolation=_isolation(random),
    )


def _gales(random: Random, scenario: "Scenario") -> Weather:
    members = random.randint(min(3, scenario.members), scenario.members)
    shards = random.choice((1, 2)) * scenario.shards
    some, every = (max(1, members - 1), min(1, members - 1)), (members, None)
    runner, backup = {"some": some, "all": every}.get(scenario.shape) or random.choice((every, every, some))
    jobs: list[Jobs] = [
        {f"s{number}": _few(random, scenario.tasks), **{f"d{3 * number + each}": range(1) for each in range(3)}}
        for number in range(2)
    ]
    return Weather(
        seconds=4.0,
        faults=_some(random, scenario.faults, (1, 2, 3)),
        runner=runner,
        backup=backup,
        capacities=[random.choice((1, 2, shards // 2, None)) for _ in range(members)],
        shards=shards,
        slow=random.choice(SLOW),
        jobs=jobs,
        isolation=_isolation(random),
    )


def _numbers(random: Random, scenario: "Scenario") -> tuple[int, int | None]:
    """How many are to be Runners, and how many to back them up, in one shape or the other."""
    members = scenario.members
    if scenario.shape == "all" or (scenario.shape == "any" and random.random() < 0.4):
        return random.choice((members, members, max(1, members - 1))), None
    runner = min(scenario.runner, members)
    return runner, members - runner


def _even(random: Random, members: int, runner: int, shards: int) -> "list[int | None]":
    """Room for any number of shards, or for all with one member less, or with none to spare."""
    capacity = random.choice((None, None, None, -(-shards // max(1, runner - 1)), -(-shards // runner)))
    return [capacity] * members


def _some(random: Random, faults: Sequence[str], numbers: Sequence[int]) -> tuple[str, ...]:
    return tuple(random.sample(faults, min(len(faults), random.choice(numbers))))


def _isolation(random: Random) -> str:
    return random.choice(("suspects", "suspects", "suspects", "every", "none"))


def _few(random: Random, tasks: int) -> Sequence[int]:
    """One task that adds many others, or some that add one for two of them, or none."""
    first, most = random.choice(((0, 1), (1000, tasks), (1001, tasks), (1001, tasks)))
    return range(first, first + 2 * min(most, random.choice((1, 4, 16))), 2)
