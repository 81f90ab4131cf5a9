"""A member's child processes in virtual time: children start, run tasks, die of tasks, and are killed by others."""

from collections.abc import Callable
from typing import TYPE_CHECKING, final

from smoothcluster.pool import Apart, Run
from smoothcluster.pool.protocol import always
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
        self.busy: dict[Run, Callable[[], None]] = {}
        """The runs in child processes, each with the callback for a killed child."""
        self._able = isolation != "none"
        world = member.world
        self._scheduler, self._process, self._clock = world.scheduler, member.process, member.clock
        self._most, self._hits, self._wake = world.scenario.concurrency, world.hits, wake
        self._up = 0
        self._coming = False
        self._bystander = False
        self._disturbed_at = -1.0

    @property
    def able(self) -> bool | None:
        return self._able

    def ready(self, waiting: int) -> int:
        if self.every:
            return max(1, self._most // 2)
        if self._able and not self._coming and self._up < min(self._most, waiting + len(self.busy)):
            self._coming = True
            self._scheduler.at(0.3 * self._scheduler.random.random(), self._come_up, self._process)
        return self._up

    def _come_up(self) -> None:
        self._coming = False
        self._up += 1
        self._wake()

    def disturbed(self, since: float) -> bool:
        return self._disturbed_at >= since

    def run(self, run: Run, can_start: Callable[[Run], bool] = always) -> None:
        raise NotImplementedError  # The simulated pool runs tasks.

    def begin(self, run: Run, killed: Callable[[], None]) -> None:
        """A child has begun to run *run*."""
        run.began = self._clock.monotonic()
        self.busy[run] = killed
        self._bystander |= run.alone

    def end(self, run: Run) -> bool:
        """The task of *run* has ended; return False if the child was killed before."""
        return self.busy.pop(run, None) is not None

    def die(self, run: Run) -> None:
        """The child that ran *run* has ended."""
        self.busy.pop(run, None)
        self._up -= not run.alone and not self.every

    def kill_one(self) -> bool:
        """Kill any child; return whether there was a child to kill."""
        busy = 0 if self.every else sum(not run.alone for run in self.busy)
        idle = [*["bystander"] * self._bystander, *["idle"] * (self._up - busy)]
        victims = [*(run for run in self.busy if self._hits[run.task.id] < MOST_RANDOM_KILLS), *idle]
        if not victims:
            return False
        victim = self._scheduler.random.choice(victims)
        if isinstance(victim, Run):
            self._hits[victim.task.id] += 1
            self.busy[victim]()
            return True
        self._disturbed_at = self._clock.monotonic()
        if victim == "bystander":
            self._bystander = False
        else:
            self._up -= 1
        return True
