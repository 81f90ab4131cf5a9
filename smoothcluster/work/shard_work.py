"""The work on one shard: start waiting tasks, track running tasks, and record outcomes, in one commit at a time.

Every commit compares and sets the shard's record, so a replaced owner records nothing. A commit carries all news since
the last commit: outcomes, tasks added by handlers, finished chunks to delete, newly admitted chunks, and the marks of
tasks about to start. A task is marked in the store before the start: a mark in the process would die with the process.

Each commit is settled before the next commit is built. If the outcome of a commit is unknown, the owner sends the same
bytes again, with the version first expected. If the retry carried more, and the original arrived late, the store would
lose the additions.
"""

# long: the life of a commit, from the news to the answer, is read in one piece

import logging
from collections.abc import Callable
from math import inf
from typing import cast

from smoothcluster.backend import check_commit
from smoothcluster.errors import CommitTooLargeError
from smoothcluster.group.view import Versioned
from smoothcluster.jobs.chunks import job_of
from smoothcluster.model import State, Task, TaskContext
from smoothcluster.pool import Run, RunState
from smoothcluster.records.blame import CHILD_RAISED, STARTED_ALONE
from smoothcluster.records.shard import Shard, bits
from smoothcluster.work.backlog import Backlog, place_of
from smoothcluster.work.closing import close_waiting
from smoothcluster.work.commit import CommitBuilder, NoRoomError
from smoothcluster.work.context import WorkContext
from smoothcluster.work.news import News, save_all
from smoothcluster.work.outbox import Outbox
from smoothcluster.work.pauses import Place
from smoothcluster.work.pending_commit import PendingCommit
from smoothcluster.work.suspects import Suspects
from smoothcluster.work.unreadable import fail_unreadable
from smoothcluster.work.verdict import Stage, stage

log = logging.getLogger("smoothcluster")

SMALLEST_SHARE = 128
"""The last of the attempts to build a commit uses the limits divided by this: it carries a single outcome."""


class ShardWork:
    """One owned shard, and the work of this process on the shard. `Backlog` explains *arm*."""

    def __init__(self, number: int, read: Versioned[Shard], context: WorkContext, arm: Callable[[], None]) -> None:
        self.number, self.key = number, context.store.keys.shard(number)
        self.record, self.version = read.record, read.version
        self.lost, self.moving = False, False  # A shard that is being transferred starts nothing more.
        suspicious = Stage.ISOLATED if context.apart.every else Stage.SUSPECT
        self.backlog = Backlog(number, self.record, context.store, arm, suspicious)
        self.suspects = Suspects(number, self.record, self.backlog, context)
        self.news = News()
        self.outstanding, self.unanswered = 0, 0
        """Number of runs in the pool, and how often the pending commit was sent without an answer."""
        self.pending: PendingCommit | None = None
        self.marked = [(name, index) for name, chunk in self.record.open.items() for index in bits(chunk.run)]
        """Tasks marked as running by the claim itself: to be started once they are read."""
        self._kept = read.record.id  # The id of the record in the last acknowledged commit.
        self._context = context
        self.outbox: Outbox | None = None  # The mover of results, if there is one, makes the outbox.
        self.held, self.held_until = False, -inf
        """Whether, and how long, nothing is started or recorded, because no commit had room for any outcome."""
        self._undo: Callable[[], None] | None = None  # Takes back the pending commit; None once the commit may be sent.
        self._share = 1  # Commits use this part of the limits: one half, one quarter and so on after a miscount.

    def finish(self, run: Run, now: float) -> None:
        """Take a run back from the pool: finished, or not started after all."""
        self.outstanding -= 1
        self.suspects.ended(run, now)
        if run.state in (RunState.NOT_STARTED, RunState.INTERRUPTED):
            self.news.handed_back.append(place_of(run))
        elif run.state is not RunState.DIED:
            self.news.add(run, now)

    def resume(self) -> list[Run]:
        """Start the tasks marked by the claim, as far as their chunks could be read. Return the runs."""
        places = [place for place in self.marked if place[0] in self.backlog.tasks]
        self.marked.clear()
        for place in filter(self.backlog.is_unreadable, places):
            self.backlog.start_again(place)
        runs = [self._run(place) for place in places if not self.backlog.is_unreadable(place)]
        self.suspects.report([place_of(run) for run in runs if run.urgent])
        self.outstanding += len(runs)
        self.suspects.started(runs)
        return runs

    def unmark(self, wanted: Callable[[Place], bool] = lambda place: True) -> None:
        """Unmark the *wanted* tasks marked by the claim and not started yet: an owner starts or closes them later."""
        mine = [*filter(wanted, self.marked)]
        self.marked = [place for place in self.marked if not wanted(place)]
        for name, index in mine:
            self.record.open[name].run &= ~(1 << index)
            if name in self.backlog.tasks:
                self.backlog.put_back((name, index))

    def forget(self, job: str, seen: list[str]) -> None:
        """Plan to drop the records of a finished job: the counts, and the keys *seen* with the digests of ids."""
        self.news.forgotten[job] = seen

    def free(self) -> bool:
        """Whether tasks may be started: no transfer, no unsettled commit, and commits have room."""
        return not self.moving and not self.held and self.pending is None and not (self.outbox and self.outbox.full)

    def startable(self, now: float) -> bool:
        """Whether there may be tasks to start; the store may have to be asked."""
        if not self.free():
            return False
        retry = self.backlog.pauses.next_end()
        return self.backlog.promising() or (retry is not None and retry <= now)

    def unsaid(self) -> bool:
        """Whether there is news for the store."""
        return bool(self.pending or self.news or self.backlog.to_quarantine or self.backlog.unreadable)

    def quiet(self) -> bool:
        """Whether no task runs, no outcome waits to be recorded, and no commit is unsettled."""
        return not (self.unsaid() or self.outstanding or self.marked)

    def drained(self) -> bool:
        """Whether the shard has no task left, as far as known."""
        return self.quiet() and not self.record.open and not self.backlog.promising()

    def present(self) -> Versioned[Shard]:
        """Return the shard's record as of now, for a commit that changes the owner."""
        self.backlog.pauses.note(self._context.store.clock.monotonic())
        return Versioned(self.record, self.version)

    def prepare(self, want: int, now: float, apart: int = 0, *, alone: bool = False) -> PendingCommit | None:
        """Build the next commit, which starts up to *want* tasks; return None if there is no news.

        Start up to *apart* suspects in children; or, if *alone*, one suspect in this process. A commit that is too
        large, by a miscount, is built anew, smaller. Raise CommitTooLargeError if none is small enough.
        """
        assert self.pending is None, "settle it first"
        self._context.quota.prepare(self.news.finished)
        while True:
            self._undo = save_all(self.record, (self.news.save, self.backlog.save, self.suspects.save))
            try:
                self.pending = self._build(want, now, apart, alone=alone)
                check_commit(self._context.limits, [], self.pending.changes) if self.pending else None
            except NoRoomError as error:
                self.take_back()
                raise CommitTooLargeError(str(error)) from error
            except CommitTooLargeError as error:
                if not self.build_smaller(error):
                    raise
            else:
                return self.pending

    def build_smaller(self, error: CommitTooLargeError) -> bool:
        """Take back the pending commit after *error*; return False if the commit must stay, or cannot be smaller."""
        if not self.take_back():
            return False
        if self._share == 1:
            log.error("a commit of shard %d is larger than the store takes, and is built anew: %s", self.number, error)
            self._context.note("too_large", shard=self.number, why=str(error))
        self._share *= 2
        if self._share <= SMALLEST_SHARE:
            return True
        if not self.news.finished or self.news.finished[0].error is not None:
            return False
        CommitBuilder.fail(self.news.finished[0], f"the store takes no commit with the outcome: {error}")
        return True

    def keep_pending(self) -> None:
        """Keep the pending commit as it is from now on: the store may have received the commit."""
        self._undo = None

    def take_back(self) -> bool:
        """Take back what the last `prepare` did; return False if the pending commit must be kept."""
        if self._undo is None:
            return False
        self._undo()
        self.pending = self._undo = None
        return True

    def _build(self, want: int, now: float, apart: int, *, alone: bool) -> PendingCommit | None:
        spoke = self.suspects.blame_deaths(now) or self.unsaid() or self.backlog.pauses.needs_refresh(now)
        for place in self.news.handed_back:
            self.suspects.not_alone(place)
            self.backlog.start_again(place)
        self.news.handed_back.clear()
        draft = CommitBuilder(self.number, self.record, self.backlog, self._context, self._share)
        self.suspects.quarantine(draft)
        fail_unreadable(draft, self.record, self.backlog)
        self._record_outcomes(draft, now)
        # Behind the outcomes: a failed task of a closed job that would be tried again is closed, too.
        spoke |= close_waiting(draft, self.backlog, self._context.closed.jobs)
        if not self.moving:
            self._start_suspects(apart, draft, alone=alone)
            self._start(want, draft, now)
            draft.admission.merge()
        draft.delete_finished_jobs(self.news.forgotten)
        draft.delete_moved(self.news.moved)
        if spoke or draft.changes or draft.starts:
            self.backlog.pauses.note(now)
            return draft.built(self.version)
        return None

    def applied(self, version: str) -> list[Run]:
        """Finish the pending commit, which is in the store now. Return the runs that may start."""
        assert self.pending is not None
        pending, self.pending = self.pending, None
        self._undo, self.unanswered = None, 0
        self.version, self._kept = version, pending.id
        self._context.sent.add(pending.sent)
        self.outstanding += len(pending.starts)
        self.suspects.started(pending.starts)
        pending.report(self._context.note, self.number)
        if self.outbox is not None:
            self.outbox.add(pending.changes, self._context.store)
        self.news.oldest = self.news.oldest if self.news.finished else None
        return pending.starts

    def carry_on(self, read: Versioned[Shard]) -> bool:
        """Continue with a new version of the shard's record, if the record is the last acknowledged; return whether so.

        An equal record means that the store has every commit of this owner. The store may still have lost chunks
        written by others, so chunks that were read, but not committed, are read again.
        """
        if self.pending is not None or read.record.id != self._kept:
            return False
        self.version = read.version
        self.news.drop_deletes()
        self.outbox = None  # Find out anew what lies in the store.
        self.backlog.relist()
        return True

    def resolve_conflict(self, key: str) -> None:
        """Remove the conflict at *key* from the pending commit, which the store refused although we own the shard.

        Names are never used twice. So a stranger created the key in the way, or deleted the missing chunk.
        """
        assert self.pending is not None
        self._context.store.report(key, "in the way of, or missing from, a commit of its shard's owner")
        self.pending = self.pending.without(key)

    def _record_outcomes(self, draft: CommitBuilder, now: float) -> None:
        """Record finished runs, and the tasks added by them, while the commit has room."""
        while self.news.finished and draft.make_room(self.news.finished[0]):
            self._record(self.news.finished.popleft(), draft, now)
        draft.add_tasks()

    def _record(self, run: Run, draft: CommitBuilder, now: float) -> None:
        """Record the outcome of a run, or put the task back for another try."""
        name, index = place = place_of(run)
        chunk = self.record.open[name]
        if self.suspects.doubtful(run):
            self.suspects.blame(place, CHILD_RAISED)
            self.backlog.start_again(place)
            return
        chunk.run &= ~(1 << index)
        fails = chunk.fails.get(index, 0) + 1
        if run.error is not None and self._context.retries.allow_another(fails):
            chunk.fails[index] = fails
            self.backlog.pauses.add(place, now + self._context.retries.pause(fails))
            return
        state = State.DONE if run.error is None else State.FAILED
        draft.record_outcome(place, run.task.id, state, run.encoded, run.error, run.context.attempt)

    def _start_suspects(self, most: int, draft: CommitBuilder, *, alone: bool) -> None:
        for _ in range(min(1 if alone else most, len(self.backlog.suspects))):
            if not draft.room.reserve_start():
                return
            place = self.backlog.suspects.popleft()
            if alone:
                self.suspects.blame(place, STARTED_ALONE)
            run = self._mark(place, draft)
            run.apart, run.alone = not alone, self.suspects.is_isolated(place)

    def _start(self, want: int, draft: CommitBuilder, now: float) -> None:
        """Mark up to *want* tasks as running, admitting chunks as needed."""
        self.backlog.put_back_due(now)
        waiting = self.backlog
        while len(draft.starts) < want and (waiting.restarts or waiting.queue or draft.admission.admit()):
            if waiting.restarts or waiting.queue:
                if not draft.room.reserve_start():
                    return
                self._mark((waiting.restarts or waiting.queue).popleft(), draft)

    def _mark(self, place: Place, draft: CommitBuilder) -> Run:
        """Mark a task as running. The run starts after the commit, so the store knows first."""
        name, index = place
        run = self._run(place)
        self.record.open[name].run |= 1 << index
        draft.starts.append(run)
        return run

    def _run(self, place: Place) -> Run:
        """Make the run for a task that is marked as running."""
        shared = self._context
        name, index = place
        attempt = self.record.open[name].attempts(index) + 1
        context = TaskContext(shared.member, job_of(name), self.number, self.record.epoch, attempt, shared.stopping)
        run = Run(cast("Task", self.backlog.tasks[name][index]), context, (self, place))
        blame = self.record.open[name].blame.get(index, ())
        run.urgent = bool(blame)
        run.apart = shared.apart.every or stage(blame) >= Stage.SUSPECT
        return run


def shard_of(run: Run) -> ShardWork:
    """The `ShardWork` of a run."""
    return cast("tuple[ShardWork, Place]", run.key)[0]
