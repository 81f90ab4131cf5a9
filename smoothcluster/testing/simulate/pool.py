"""Handlers in virtual time: each task takes a while, then does as the task's id says."""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, final

from smoothcluster.jobs.chunks import encode_task
from smoothcluster.model import Task
from smoothcluster.pool import Pool, Run, RunState
from smoothcluster.pool.protocol import enqueue
from smoothcluster.records.blame import CHILD_KILLED

if TYPE_CHECKING:
    from smoothcluster.testing.simulate.processes import SimMember

LONGEST_RUN_SECONDS_BY_KIND = ((0.002, 0.002, 0.002, 0.002, 0.3, 2.0), (0.002,), (1.0,))
"""The longest running times of tasks, by the kind of job: mixed, fast or slow."""

PAGE_JOB_LETTER = "p"
"""The letter of jobs with pages that have many links. The number of such a job makes its tasks fast ones."""


def children(task_id: str, attempt: int) -> list[str]:
    """The tasks that a task adds, if the number of the task is even.

    An even task adds a task that the neighbouring task adds, too. While the id is short, the task adds two new tasks
    below itself and two known tasks. Only the first attempt finds the task shared with the neighbour: the page has
    changed by the second attempt.
    """
    job, _, path = task_id.partition(":")
    if not path.isdecimal() or int(path) % 2:
        return []
    if job.startswith(PAGE_JOB_LETTER):
        # The job's number is the number of links on each page; a fifth of the links are on every page.
        return [f"{job}:{path if link % 5 else ''}x{link}" for link in range(int(job[1:]))]
    shared = [f"{job}:x{path[:-1]}{int(path[-1]) // 4}"] if attempt == 1 else []
    below = [*(f"{job}:{path}{digit}" for digit in "12"), f"{job}:{path}", f"{job}:{path[0]}"]
    return shared + (below if len(path) < 4 else [])


def fails(task_id: str) -> bool:
    """Whether the task's handler raises."""
    return task_id.endswith("7")


def kills(task_id: str) -> str | None:
    """The way in which the task ends the process, if at all.

    Such tasks are in jobs of their own, with other, harmless tasks.
    """
    if not task_id.startswith("k") or not task_id.endswith("3"):
        return None
    return CHILD_KILLED if task_id.endswith("13") else "child_exit_1"


@final
class SimPool(Pool):
    """A pool with a fixed number of workers."""

    def __init__(self, member: "SimMember", deliver: Callable[[], None], can_start: Callable[[Run], bool]) -> None:
        self.finished: deque[Run] = deque()
        self._scheduler, self._process = member.world.scheduler, member.process
        self._concurrency, self._children = member.world.scenario.concurrency, member.children
        self._member, self._deliver, self._can_start = member, deliver, can_start
        self._queue: deque[Run] = deque()
        self._running = 0

    def put(self, runs: Iterable[Run]) -> None:
        enqueue(self._queue, runs)
        self._scheduler.at(0.0, self._next, self._process)

    def take_back(self) -> list[Run]:
        runs = list(self._queue)
        self._queue.clear()
        return runs

    def stop(self, timeout: float) -> int:  # noqa: ARG002  # nothing is waited for
        return self._running

    def _next(self) -> None:
        while self._queue and self._running < self._concurrency:
            run = self._queue.popleft()
            if not self._can_start(run):
                run.state = RunState.NOT_STARTED
                self._end(run)
                continue
            self._running += 1
            self._member.started(run)
            random = self._scheduler.random
            pace = LONGEST_RUN_SECONDS_BY_KIND[int(run.context.job[1:]) % len(LONGEST_RUN_SECONDS_BY_KIND)]
            takes = random.choice(pace) * random.random()
            if run.apart:
                self._children.begin(run, partial(self._die, run))
            self._scheduler.at(takes, partial(self._finish, run), self._process)

    def _die(self, run: Run, death: str) -> None:
        """The child process that ran *run* has ended."""
        self._running -= 1
        run.state, run.death = RunState.DIED, death
        self._end(run)
        self._next()

    def _finish(self, run: Run) -> None:
        if run.apart and run not in self._children.busy:
            return  # The child was killed before.
        death = kills(run.task.id)
        if death is not None:
            if run.apart:
                self._children.die(run, death)
            else:
                self._member.dies(run)
            return
        self._children.busy.pop(run, None)
        self._running -= 1
        if fails(run.task.id):
            run.fail("ValueError: it ends in 7")
        else:
            run.state, run.encoded = RunState.DONE, "1"
            run.added = [Task(id=name) for name in children(run.task.id, run.context.attempt)]
            run.added_encoded = [encode_task(task) for task in run.added]
        self._end(run)
        self._next()

    def _end(self, run: Run) -> None:
        self.finished.append(run)
        self._deliver()
