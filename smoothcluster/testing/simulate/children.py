"""A member's child processes in virtual time: children start, run tasks, die of tasks, and are killed by others."""

from collections.abc import Callable
from typing import TYPE_CHECKING, final

from smoothcluster.pool import Apart, Run
from smoothcluster.pool.protocol import always
from smoothcluster.records.blame import CHILD_KILLED, CHILD_SHARED
from smoothcluster.work.verdict import DEATHS_TO_QUARANTINE

if TYPE_CHECKING:
    from smoothcluster.testing.simulate.processes import SimMember

MOST_RANDOM_KILLS = DEATHS_TO_QUARANTINE - 2
"""The most random kills of children that run the same task.

Rarely, random kills hit the same task more often, and the task is quarantined. Schedules exclude this chance:
otherwise a schedule in a thousand would report a broken promise."""


@final
class SimChildren(Apart):
    """As `pool.children`, without processes. `World.hits` counts kills by task, over all members."""

    def __init__(self, member: "SimMember", isolation: str, wake: Callable[[], None]) -> None:
        self.every = isolation == "every"
        self.busy: dict[Run, Callable[[str], None]] = {}
        """The runs in child processes, each with the callback for the death of the child."""
        self._able = isolation != "none"
        world = member.world
        self._scheduler, self._process, self._clock = world.scheduler, member.process, member.clock
        self._most, self._hits, self._wake = world.scenario.concurrency, world.hits, wake
        self._up = self._coming = False
        """Whether the host of suspects runs, and whether it starts."""
        self._bystander = False
        self._disturbed_at = -1.0

    @property
    def able(self) -> bool | None:
        return self._able

    def ready(self, waiting: int) -> int:
        if self.every:
            return max(1, self._most // 2)
        if self._able and waiting and not (self._up or self._coming):
            self._coming = True
            self._scheduler.at(0.3 * self._scheduler.random.random(), self._come_up, self._process)
        return self._most if self._up else 0

    def _come_up(self) -> None:
        self._up, self._coming = True, False
        self._wake()

    def disturbed(self, since: float) -> bool:
        return self._disturbed_at >= since

    def run(self, run: Run, can_start: Callable[[Run], bool] = always) -> None:
        raise NotImplementedError  # The simulated pool runs tasks.

    def begin(self, run: Run, died: Callable[[str], None]) -> None:
        """A child has begun to run *run*."""
        run.began = self._clock.monotonic()
        self.busy[run] = died
        self._bystander |= run.alone

    def _guests(self) -> list[Run]:
        """The runs in the host of suspects."""
        return [] if self.every else [run for run in self.busy if not run.alone]

    def die(self, run: Run, death: str) -> None:
        """The child that runs *run* ends in this way, and all runs in the child with it."""
        guests = self._guests()
        died = guests if run in guests else [run]
        self._up = self._up and run not in guests
        calls = [self.busy.pop(each) for each in died]
        for call in calls:
            call(death if len(died) == 1 else CHILD_SHARED)

    def kill_one(self) -> bool:
        """Kill any child; return whether there was a child to kill."""
        guests = self._guests()
        alone = [run for run in self.busy if run not in guests and self._hits[run.task.id] < MOST_RANDOM_KILLS]
        # A kill counts against the only task of a child.
        shared = guests[:1] if len(guests) > 1 or (guests and self._hits[guests[0].task.id] < MOST_RANDOM_KILLS) else []
        idle = [*["bystander"] * self._bystander, *["host"] * (self._up and not guests)]
        victims = [*alone, *shared, *idle]
        if not victims:
            return False
        victim = self._scheduler.random.choice(victims)
        if isinstance(victim, Run):
            self._hits[victim.task.id] += len(guests) < 2 or victim not in guests
            self.die(victim, CHILD_KILLED)
            return True
        self._disturbed_at = self._clock.monotonic()
        if victim == "bystander":
            self._bystander = False
        else:
            self._up = False
        return True
