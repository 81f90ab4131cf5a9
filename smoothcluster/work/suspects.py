"""The suspects of one shard: what is put down against a task, when a death counts, and what goes into quarantine.

What blame says about a task, `suspicion` decides.
"""

from collections import deque

from smoothcluster.backend import Create
from smoothcluster.jobs.chunks import job_of
from smoothcluster.model import State
from smoothcluster.pool import Run, RunState
from smoothcluster.records.blame import ALONE, DISTURBED, KILLED, RAISED, ended_as, format_entry, parse_entries
from smoothcluster.records.quarantine import QuarantinedTask
from smoothcluster.records.shard import Shard
from smoothcluster.work.backlog import Backlog, Place, place_of
from smoothcluster.work.commit import CommitBuilder
from smoothcluster.work.context import WorkContext
from smoothcluster.work.verdict import Stage, stage

CONFIRM = 1.0
"""Seconds that a member must outlive a child before that death counts: who kills both proves nothing."""

TOLD = 20
"""Suspects named in one event."""


class Suspects:
    """What one owner does about them, besides starting them."""

    def __init__(self, number: int, record: Shard, backlog: Backlog, context: WorkContext) -> None:
        self.in_children = 0
        """How many run in children."""
        self._number, self._record, self._backlog, self._context = number, record, backlog, context
        self._died: deque[tuple[float, Run]] = deque()
        """Runs whose child is gone, and when that counts."""
        self._told = False

    def tell(self) -> None:
        """Note, once for each shard taken over, what its former owner may have died of."""
        if not self._told:
            self._told = True
            places = list(self._backlog.suspects)
            ids = [self._backlog.tasks[name][index].id for name, index in places[:TOLD]]
            where = "in a child" if self._context.apart.able is not False else "alone in the member"
            self._context.note("suspect", shard=self._number, tasks=ids, count=len(places), run=where)

    def started(self, runs: list[Run]) -> None:
        """The pool has these from now on."""
        self.in_children += sum(map(self._counts, runs))

    def ended(self, run: Run, now: float) -> None:
        """The pool has given it back."""
        self.in_children -= self._counts(run)
        if run.state is RunState.DIED:
            self._died.append((now + CONFIRM, run))

    def _counts(self, run: Run) -> bool:
        """Whether it is a suspect's, in a child."""
        return run.apart and (run.alone or not self._context.apart.every)

    def next_verdict(self) -> float | None:
        """When the death of a child will count."""
        return self._died[0][0] if self._died else None

    # What is put down

    def blame(self, place: Place, evidence: str) -> None:
        """One more start came to nothing, or is about to be made alone."""
        entry = format_entry(self._context.incarnation, self._record.epoch, evidence, self._context.wall())
        self._record.open[place[0]].blame.setdefault(place[1], []).append(entry)

    def is_isolated(self, place: Place) -> bool:
        """Whether it is to run in a child that nothing else is run in."""
        return stage(self._record.open[place[0]].blame.get(place[1], ())) is Stage.ISOLATED

    def not_alone(self, place: Place) -> None:
        """The task was not started after all: if that was announced to be alone, it is taken back."""
        blame = self._record.open[place[0]].blame.get(place[1], [])
        last = next(parse_entries(blame[-1:]), None)
        if last is not None and (last.incarnation, last.evidence) == (self._context.incarnation, ALONE):
            blame.pop()

    def doubtful(self, run: Run) -> bool:
        """Whether a suspect has failed in a child, which may lack what the handler finds in the member.

        It did not kill, so it is given to the member once. Should it kill there, the next such error stands.
        """
        name, index = place_of(run)
        if run.error is None or not run.apart or self._context.apart.every:
            return False
        return not ended_as(self._record.open[name].blame.get(index, ()), RAISED)

    def judge(self, now: float) -> bool:
        """Put down what children have died of and we have not; whether there was anything."""
        due = False
        while self._died and self._died[0][0] <= now and not self._context.stopping.is_set():
            run, due = self._died.popleft()[1], True
            disturbed = run.death == KILLED and self._context.apart.disturbed(run.began)
            self.blame(place_of(run), DISTURBED if disturbed else run.death)
            self._backlog.start_again(place_of(run))
        return due

    def quarantine(self, draft: CommitBuilder) -> None:
        """Put the guilty into quarantine, while they fit: the outcome, and a record of its own."""
        while self._backlog.to_quarantine:
            name, index = place = self._backlog.to_quarantine[0]
            chunk, task = self._record.open[name], self._backlog.tasks[name][index]
            unique = f"{self._number}.{self._record.epoch}.{self._record.seq}.{len(draft.quarantined)}"
            verdict = QuarantinedTask.of(
                unique, job_of(name), task, chunk.blame[index], chunk.attempts(index),
                self._context.member, self._number, self._record.epoch, self._context.wall(),
            )  # fmt: skip
            value = verdict.to_json()
            if not draft.book(len(value) + 4096, 3):
                break
            self._backlog.to_quarantine.popleft()
            draft.changes.append(Create(self._context.keys.quarantined(unique), value))
            draft.quarantined.append(verdict)
            draft.end(place, task.id, State.QUARANTINED, "null", verdict.error, verdict.attempts)
