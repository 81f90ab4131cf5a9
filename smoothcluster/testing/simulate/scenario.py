"""Draws the contents of one schedule from the seed; no two schedules are alike.

A schedule with everything in it hides bugs: when much happens, the next event makes up for a missed event. So there
are three kinds of schedules. Some are a long storm. Some are squalls with few tasks and few kinds of faults; after
each squall comes a silence, in which the group must recover. Some are gales with few tasks, too: few members with
many shards, not all of them with capacity for many, lose shards again and again. Each schedule makes another kind of
message slow.

Every tenth schedule is a crowd: a group with more shards, and pages with more links, than the small store takes in a
commit. The largest crowds come in long runs only, because the time of a schedule rises with the number of shards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from smoothcluster.backend import Guarantees
from smoothcluster.memory import WEAKEST

if TYPE_CHECKING:
    from smoothcluster.testing.simulate.simulation import Scenario

SLOW_MESSAGE_KINDS = ("read", "watch", "commit", "renew", "news")
"""The kinds of messages that may be slow.

These are the messages of calls, and the news of commits, to a server or from a server to a watch.
"""

Jobs = Mapping[str, Sequence[int]]
"""The numbers of each job's tasks; `pool.children` derives the added tasks."""


POISON_TASK_NUMBERS = range(1001, 1021, 2)
"""Numbers of tasks, some of them fatal to their process."""

CROWD_PERIOD = 10
"""One schedule of so many is a crowd."""

CROWD_SIZES = (
    *2 * ((48, 8, 40, 8),),
    *2 * ((64, 12, 100, 16),),
    (64, 64, 502, 64),
    (160, 64, 502, 64),
)
"""Numbers of shards, of operations in a commit, of links on a page, and of KiB in a commit."""

LARGE_CROWD_SIZES = {198: (256, 64, 502, 64), 398: (1024, 64, 502, 64), 998: (4096, 64, 502, 64)}
"""The sizes that take many times as long, by the last three digits of the seed: for long runs."""


@dataclass(frozen=True, slots=True)
class Weather:
    """The contents of one schedule."""

    seconds: float
    """Seconds of faults and submits in each storm, squall or gale."""
    faults: tuple[str, ...]
    runner: int
    backup: int | None
    """The number of Backup Runners; None if all members are Runners."""
    capacities: Sequence[int | None]
    """The capacity of each member."""
    shards: int
    slow: str
    """The kind of message that is slow."""
    jobs: Sequence[Jobs]
    """The jobs of each storm, squall or gale."""
    isolation: str
    """The tasks for child processes: "suspects", "every" task, or "none", since no child can run the handler."""
    limits: Guarantees | None = None
    """The limits of the store, if the schedule needs certain limits."""
    late: float = 0.0
    """Seconds by which the last member starts later than the others."""

    @property
    def members(self) -> int:
        return len(self.capacities)


def draw(random: Random, scenario: "Scenario", seed: int) -> Weather:
    """Draw a storm with all of *scenario*, or squalls or gales with a part of *scenario*; for some seeds a crowd."""
    if seed % CROWD_PERIOD == CROWD_PERIOD - 2:
        return _crowd(random, scenario, *LARGE_CROWD_SIZES.get(seed % 1000, random.choice(CROWD_SIZES)))
    kind = random.choices((_storm, _squalls, _gales), (0.15, 0.6, 0.25))[0]
    return kind(random, scenario)


def _storm(random: Random, scenario: "Scenario") -> Weather:
    runner, backup = _numbers(random, scenario)
    drips = {f"d{number}": range(1) for number in range(6)}
    floods = {f"j{number}": range(scenario.tasks) for number in range(scenario.jobs)}
    poison = {"k0": POISON_TASK_NUMBERS} if random.random() < 0.5 else {}
    return Weather(
        seconds=12.0,
        faults=scenario.faults,
        runner=runner,
        backup=backup,
        capacities=_even(random, scenario.members, runner, scenario.shards),
        shards=scenario.shards,
        slow="renew",  # Slow renewals have effects where much goes on; any other slow message only makes a storm long.
        jobs=[floods | drips | poison],
        isolation=_isolation(random),
    )


def _squalls(random: Random, scenario: "Scenario") -> Weather:
    runner, backup = _numbers(random, scenario)
    capacities = _even(random, scenario.members, runner, scenario.shards)
    squalls: list[dict[str, Sequence[int]]] = [{f"s{number}": _few(random, scenario.tasks)} for number in range(5)]
    if random.random() < 0.5:
        squalls[0]["k0"] = POISON_TASK_NUMBERS
        squalls[2]["k1"] = POISON_TASK_NUMBERS
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
        slow=random.choice(SLOW_MESSAGE_KINDS),
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
        slow=random.choice(SLOW_MESSAGE_KINDS),
        jobs=jobs,
        isolation=_isolation(random),
    )


def _crowd(random: Random, scenario: "Scenario", shards: int, operations: int, links: int, kib: int) -> Weather:
    members = min(random.choice((2, 2, 3)), scenario.members)
    runner, backup = _numbers(random, replace(scenario, members=members, runner=members))
    # Who leaves and comes back releases a share of the shards, and is transferred one.
    leave = [fault for fault in ("leave",) if fault in scenario.faults]
    # Survivors adopt a shard at a time, which takes too long where the shards are thousands.
    others = _some(random, scenario.faults, (1, 1, 2)) if shards < 1024 else ()
    return Weather(
        seconds=4.0,
        faults=tuple(dict.fromkeys((*leave, *others))),
        runner=runner,
        backup=backup,
        capacities=[None] * members,
        shards=shards,
        slow=random.choice(SLOW_MESSAGE_KINDS),
        jobs=[{f"p{links}": range(0, random.choice((2, 4)), 2)}],
        isolation=_isolation(random),
        limits=replace(
            WEAKEST, most_operations=operations, largest_commit=kib * 1024, largest_value=kib * 1024 - kib * 64
        ),
        late=2.0,  # The others have all shards by then, and transfer a share.
    )


def _numbers(random: Random, scenario: "Scenario") -> tuple[int, int | None]:
    """Draw the numbers of Runners and of Backup Runners, in either shape."""
    members = scenario.members
    if scenario.shape == "all" or (scenario.shape == "any" and random.random() < 0.4):
        return random.choice((members, members, max(1, members - 1))), None
    runner = min(scenario.runner, members)
    return runner, members - runner


def _even(random: Random, members: int, runner: int, shards: int) -> "list[int | None]":
    """Draw equal capacities: unlimited, enough for all shards with a Runner missing, or just enough."""
    capacity = random.choice((None, None, None, -(-shards // max(1, runner - 1)), -(-shards // runner)))
    return [capacity] * members


def _some(random: Random, faults: Sequence[str], numbers: Sequence[int]) -> tuple[str, ...]:
    return tuple(random.sample(faults, min(len(faults), random.choice(numbers))))


def _isolation(random: Random) -> str:
    return random.choice(("suspects", "suspects", "suspects", "every", "none"))


def _few(random: Random, tasks: int) -> Sequence[int]:
    """Draw a task that adds many others, or several tasks that add another for each pair of them, or for none."""
    first, most = random.choice(((0, 1), (1000, tasks), (1001, tasks), (1001, tasks)))
    return range(first, first + 2 * min(most, random.choice((1, 4, 16))), 2)
