"""The suspects of one shard: record blame against tasks, count deaths of children, and quarantine tasks.

The module `verdict` decides how much blame makes a task suspect, isolated or quarantined.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

from smoothcluster.backend import Create
from smoothcluster.jobs.chunks import job_of
from smoothcluster.model import State, Task
from smoothcluster.pool import Run, RunState
from smoothcluster.records.blame import (
    CHILD_DISTURBED,
    CHILD_KILLED,
    CHILD_RAISED,
    STARTED_ALONE,
    ended_as,
    format_entry,
    parse_entries,
)
from smoothcluster.records.quarantine import QuarantinedTask
from smoothcluster.records.shard import Shard
from smoothcluster.work.backlog import Backlog, place_of
from smoothcluster.work.commit import CommitBuilder, NoRoomError
from smoothcluster.work.context import WorkContext
from smoothcluster.work.pauses import Place
from smoothcluster.work.pending_commit import MOST_TASK_IDS_IN_EVENT
from smoothcluster.work.verdict import Stage, stage

CONFIRM_DEATH_SECONDS = 1.0
"""Seconds that a member must outlive a child before the death counts: a kill of both proves nothing."""


class Suspects:
    """The suspects of one owned shard. `ShardWork` starts them; this class does the rest."""

    def __init__(self, number: int, record: Shard, backlog: Backlog, context: WorkContext) -> None:
        self.in_children = 0
        """Number of suspects that run in children now."""
        self._number, self._record, self._backlog, self._context = number, record, backlog, context
        self._suspicious = Stage.ISOLATED if context.apart.every else Stage.SUSPECT
        self._died: deque[tuple[float, Run]] = deque()
        """Runs whose child died, each with the time from which the death counts."""
        self._told = False

    def save(self) -> Callable[[], None]:
        """Return a function that restores the deaths not counted yet. The blame itself is in the shard's record."""
        died = deque(self._died)

        def restore() -> None:
            self._died = died

        return restore

    def report(self, started: Sequence[Place] = ()) -> None:
        """Note the event ``suspect``, once for each shard taken over, with the suspects of the former owner.

        The suspects are those that wait, and those *started* that the claim has marked.
        """
        places = [place for place in started if self._is_suspect(place)]
        places += self._backlog.suspects
        if places and not self._told:
            self._told = True
            ids = [self._backlog.tasks[name][index].id for name, index in places[:MOST_TASK_IDS_IN_EVENT]]
            where = "in a child" if self._context.apart.able is not False else "alone in the member"
            self._context.note("suspect", shard=self._number, tasks=ids, count=len(places), run=where)

    def started(self, runs: list[Run]) -> None:
        """Count *runs*, which the pool has from now on."""
        self.in_children += sum(map(self._counts, runs))

    def ended(self, run: Run, now: float) -> None:
        """Take note that the pool returned *run*; if the child died, the death counts after `CONFIRM_DEATH_SECONDS`."""
        self.in_children -= self._counts(run)
        if run.state is RunState.DIED:
            self._died.append((now + CONFIRM_DEATH_SECONDS, run))

    def _counts(self, run: Run) -> bool:
        """Whether *run* is the run of a suspect in a child."""
        return run.apart and (run.alone or not self._context.apart.every)

    def next_verdict(self) -> float | None:
        """The time from which the next death of a child counts; None if no child has died."""
        return self._died[0][0] if self._died else None

    # Blame

    def blame(self, place: Place, evidence: str) -> None:
        """Add an entry to the blame of a task: a start failed, or the task is about to run alone."""
        entry = format_entry(self._context.incarnation, self._record.epoch, evidence, self._context.store.clock.wall())
        self._record.open[place[0]].blame.setdefault(place[1], []).append(entry)

    def _is_suspect(self, place: Place) -> bool:
        return stage(self._record.open[place[0]].blame.get(place[1], ())) >= self._suspicious

    def is_isolated(self, place: Place) -> bool:
        """Whether the task must run alone in a child."""
        return stage(self._record.open[place[0]].blame.get(place[1], ())) is Stage.ISOLATED

    def not_alone(self, place: Place) -> None:
        """Remove the entry ``alone`` of this incarnation, if there is one: the task was not started after all."""
        blame = self._record.open[place[0]].blame.get(place[1], [])
        last = next(parse_entries(blame[-1:]), None)
        if last is not None and (last.incarnation, last.evidence) == (self._context.incarnation, STARTED_ALONE):
            blame.pop()

    def doubtful(self, run: Run) -> bool:
        """Whether a suspect raised an error in a child, where the handler may lack resources of the member's process.

        The task did not kill the child, so the task runs once more in the member. If the task then kills the member,
        the next error in a child is final.
        """
        name, index = place_of(run)
        if run.error is None or not run.apart or self._context.apart.every:
            return False
        return not ended_as(self._record.open[name].blame.get(index, ()), CHILD_RAISED)

    def blame_deaths(self, now: float) -> bool:
        """Blame tasks for deaths of children which this member has outlived. Return whether there were any."""
        due = False
        while self._died and self._died[0][0] <= now and not self._context.stopping.is_set():
            run, due = self._died.popleft()[1], True
            disturbed = run.death == CHILD_KILLED and self._context.apart.disturbed(run.began)
            self.blame(place_of(run), CHILD_DISTURBED if disturbed else run.death)
            self._backlog.start_again(place_of(run))
        return due

    def quarantine(self, draft: CommitBuilder) -> None:
        """Quarantine tasks while the commit has room: an outcome and a record in the quarantine for each.

        A task that no commit can carry into the quarantine fails instead.
        """
        while self._backlog.to_quarantine:
            name, index = place = self._backlog.to_quarantine[0]
            chunk, task = self._record.open[name], cast("Task", self._backlog.tasks[name][index])
            unique = f"{self._number}.{self._record.epoch}.{self._record.seq}.{len(draft.quarantined)}"
            verdict = QuarantinedTask.of(
                unique, job_of(name), task, chunk.blame[index], chunk.attempts(index),
                self._context.member, self._number, self._record.epoch, self._context.store.clock.wall(),
            )  # fmt: skip
            value = verdict.to_json()
            key = self._context.store.keys.quarantined(unique)
            fits = len(value) <= self._context.limits.largest_value
            if fits and draft.reserve_failure(place, task, verdict.error, len(key) + len(value), 1):
                state = State.QUARANTINED
                draft.changes.append(Create(key, value))
                draft.quarantined.append(verdict)
            elif (draft.room.empty or not fits) and draft.reserve_failure(place, task, verdict.error):
                # The store takes no commit with the task and the evidence, so the task cannot be kept for a release.
                state = State.FAILED
            elif draft.room.empty:
                raise NoRoomError(f"the record of shard {self._number} leaves no room in a commit for an outcome")
            else:
                break
            self._backlog.to_quarantine.popleft()
            draft.record_outcome(place, task.id, state, "null", verdict.error, verdict.attempts)
