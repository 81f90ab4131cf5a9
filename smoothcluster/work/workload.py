"""Workload of a member: own shards, feed tasks to the handler pool, and commit each shard when due.

A member marks as many tasks as can run at once, plus as many as should finish within one commit interval, so no
worker waits for a commit. If the process dies, slow tasks leave few suspects. Fast tasks leave many suspects, but cost
little to run again.
"""

from collections.abc import Callable
from functools import partial

from smoothcluster.backend import Watch
from smoothcluster.errors import CommitTooLargeError
from smoothcluster.group.view import Versioned
from smoothcluster.pool import Pool, Run
from smoothcluster.records.shard import Shard
from smoothcluster.work import ShardWork, WorkContext, shard_of
from smoothcluster.work.closer import Closer
from smoothcluster.work.observer import WorkloadObserver
from smoothcluster.work.pace import COMMIT_INTERVAL_SECONDS, Pace, Turns
from smoothcluster.work.restarts import CHILD_CHECK_SECONDS, Restarts
from smoothcluster.work.sending import Sender

FULL_COMMIT_OUTCOMES = 512
"""Number of outcomes of one shard that is recorded without waiting for more."""


class Workload:
    """The shards owned by a member, and their tasks running in this process."""

    def __init__(
        self, pool: Pool, context: WorkContext, concurrency: int, held: Callable[[], bool], observer: WorkloadObserver
    ) -> None:
        self.works: dict[int, ShardWork] = {}
        self.stopping = False
        """Whether the member is stopping: start nothing more."""
        self.epochs: dict[int, int] = {}
        """The last epoch of each shard in this process."""
        self._backend, self._clock = context.store.backend, context.store.clock
        self._pool, self._context, self._held, self._observer = pool, context, held, observer
        self._concurrency = concurrency
        now = self._clock.monotonic()
        self._turns, self._pace = Turns(now), Pace(now, concurrency)
        self._watches: dict[int, Watch] = {}
        self._slices = 0
        """Number of slices of ids loaded so far."""
        self._sender = Sender(context, observer, self.drop)
        self.restarts = Restarts(self.works, context, self._commit)
        self._closer = Closer(self.works, context, pool, self._return, self._commit, observer.wake)

    # Ownership

    def adopt(self, number: int, read: Versioned[Shard]) -> ShardWork:
        """Begin to work on a shard that this incarnation owns in the store."""
        work = self.works[number] = ShardWork(number, read, self._context, partial(self._watch, number))
        self.epochs[number] = read.record.epoch
        self._context.closed.stale = True
        # After a store rollback we may adopt a shard that we owned before. Forget which added tasks were acknowledged.
        self._context.sent.clear()
        # Tasks that ran when the former owner died have waited longest: start them first.
        self._turns.add(number, first=bool(read.record.open))
        return work

    def drop(self, number: int) -> None:
        """Drop a shard that is no longer owned, without waiting for running tasks."""
        self.works.pop(number).lost = True
        self._turns.order.remove(number)
        watch = self._watches.pop(number, None)
        if watch is not None:
            watch.close()

    def reconcile(self, number: int, read: Versioned[Shard]) -> bool:
        """Continue with, or drop, an owned shard with an unexpected version. Return whether no commit is missing."""
        self._context.sent.clear()  # The store may have lost acknowledged tasks.
        work = self.works[number]
        whole = work.carry_on(read)
        if not whole:
            self.drop(number)
            self._observer.behind(number, read.record.seq, work.record.seq)
        return whole

    def drop_all(self) -> None:
        """Drop all shards: none is owned any more."""
        for number in list(self.works):
            self.drop(number)
        self._pool.take_back()

    def _watch(self, number: int) -> None:
        backlog = self.works[number].backlog

        def notify() -> None:
            # The flag first: the woken loop must find it.
            backlog.stale = True
            self._observer.wake()

        directory = self._context.store.keys.tasks(number)
        self._watches[number] = self._backend.watch(directory, notify, values=False)

    @property
    def outstanding(self) -> int:
        """Number of tasks of owned shards in the pool."""
        return sum(work.outstanding for work in self.works.values())

    def room(self) -> int:
        """How many more fresh tasks could run now; 0 while nothing may start."""
        if self.restarts.solitary or not self._may_start():
            return 0
        return max(0, self._concurrency - self.outstanding - self.restarts.reserved)

    def claimable(self, in_flight: int) -> tuple[int, int]:
        """How many tasks a claim of shards with tasks *in_flight* may mark: tasks in flight, and fresh tasks."""
        self.restarts.coming = 0  # They come with this claim.
        return self.restarts.claimable(in_flight, self.room())

    def _may_start(self) -> bool:
        return not self.stopping and self._held()

    def _may_blame(self) -> bool:
        return self._may_start() and not self._context.stopping.is_set()

    def quiet(self) -> bool:
        """Whether no task runs, and all outcomes are recorded."""
        return all(work.quiet() for work in self.works.values())

    # Steps of the loop

    def step(self) -> None:
        """Collect finished runs, start tasks, and commit the shards that are due."""
        now = self._clock.monotonic()
        self.collect(now)
        for work in self.works.values():
            work.held = now < work.held_until
        if self._may_start():
            self._closer.step(now)
            self.restarts.step(now)
            if not self.restarts.alone:
                self._resume()
            if not self.restarts.solitary:
                self._top_up(now)
        for work in list(self.works.values()):
            if self._due(work, now):
                self._commit(work, 0, now)
        self._load_ids()

    def _load_ids(self) -> None:
        """Load a slice of the ids of one shard that needs some; the shards take turns.

        Called last in a turn, after all starts and commits, and only a slice: the tasks of other jobs, and those
        admitted before, go on while the ids of a large job are loaded.
        """
        loading = [work.backlog.seen for work in self.works.values() if work.backlog.seen.loading]
        if loading and self._may_start():
            self._slices += 1
            loading[self._slices % len(loading)].load_slice()
            self._observer.wake()  # The next turn reads the next slice, or the chunks that waited for this slice.

    def next_time(self) -> float | None:
        """The latest time for the next `turn`, if nothing else happens; None if there is no need."""
        now = self._clock.monotonic()
        works = [work for work in self.works.values() if work.pending is None and not work.held]
        wait = COMMIT_INTERVAL_SECONDS if self._pace.outcomes_wait(now) else 0.0
        times = [work.news.oldest + wait for work in works if work.news.oldest is not None]
        # A retry that is due already waits for a free worker, whose finished run wakes the loop.
        retries = [work.backlog.pauses.next_end() for work in works if not work.moving]
        times += [retry for retry in retries if retry is not None and retry > now]
        times += [refresh for work in works if (refresh := work.backlog.pauses.next_refresh(now)) is not None]
        # While the lease, and so the shards, may be lost, or a Runner resigns, no death counts against a task.
        verdicts = [verdict for work in works if (verdict := work.suspects.next_verdict()) is not None]
        times += (
            verdicts if self._may_blame() else [max(verdict, now + COMMIT_INTERVAL_SECONDS) for verdict in verdicts]
        )
        # Tasks that the last turn put back after starting others.
        if any(work.backlog.queue or work.backlog.restarts for work in works if work.free()) and self.room():
            times.append(now)
        if any(work.backlog.suspects for work in works if work.free()):
            times.append(now + CHILD_CHECK_SECONDS)
        times += [work.held_until for work in self.works.values() if work.held]
        return min(times, default=None)

    def collect(self, now: float) -> None:
        """Take finished runs from the pool to their shards."""
        finished = self._pool.finished
        count = 0
        while finished:
            self._return(finished.popleft(), now)
            count += 1
        self._pace.count(count, now)

    def _return(self, run: Run, now: float) -> None:
        work = shard_of(run)
        if not work.lost:  # After a loss, the next owner runs the task again.
            work.finish(run, now)

    def hand_back(self, wanted: Callable[[ShardWork], bool] = lambda work: True) -> None:
        """Take back from the pool the runs not started yet, of the shards *wanted*."""
        now = self._clock.monotonic()
        for work in filter(wanted, self.works.values()):
            work.unmark()
        again: list[Run] = []
        for run in self._pool.take_back():
            if wanted(shard_of(run)):
                self._return(run, now)
            else:
                again.append(run)
        if again:
            self._pool.put(again)

    def _due(self, work: ShardWork, now: float) -> bool:
        if work.held:
            return False
        verdict = work.suspects.next_verdict()
        if verdict is not None and verdict <= now and work.pending is None and self._may_blame():
            return True
        if not work.lost and work.pending is None and work.backlog.pauses.needs_refresh(now):
            return True
        if work.lost or not work.unsaid():
            return False
        if work.news.oldest is None or work.pending is not None:
            return True
        return (
            len(work.news.finished) >= FULL_COMMIT_OUTCOMES
            or now >= work.news.oldest + COMMIT_INTERVAL_SECONDS
            or not self._pace.outcomes_wait(now)
            or not self.outstanding
        )

    def _resume(self) -> None:
        """Start the tasks marked in the claims of their shards."""
        for work in self.works.values():
            if work.marked and not work.moving:
                self._dispatch(work, work.resume())

    def _top_up(self, now: float) -> None:
        """Start more tasks if the pool runs low. Stay with one shard until the turn ends or no tasks are left."""
        for work in [work for work in self.works.values() if work.backlog.restarts and work.free()]:
            self._commit(work, len(work.backlog.restarts), now)
        ahead = self._pace.ahead(now)
        window = self._concurrency + ahead
        have = self.outstanding + self.restarts.reserved
        if have >= self._concurrency + ahead // 4:
            return
        self._turns.advance_if_over(now)
        for _ in range(len(self._turns.order)):
            number = self._turns.order[0]
            work = self.works[number]
            if work.startable(now):
                have += self._commit(work, window - have, now)
                if have >= window or work.lost:
                    return
            self._turns.advance()

    def _commit(self, work: ShardWork, want: int, now: float, *, apart: int = 0, alone: bool = False) -> int:
        """Send the shard's next commit, or the unsettled commit; return the number of started tasks."""
        prepare = partial(work.prepare, want, now, apart, alone=alone)
        try:
            if work.pending is None:
                if want:
                    work.backlog.fill(want)
                prepare()
            return self._dispatch(work, self._sender.settle(work, prepare))
        except CommitTooLargeError as error:
            self._sender.hold(work, now, error)
            return 0

    def _dispatch(self, work: ShardWork, runs: list[Run]) -> int:
        if runs:
            self._pool.put(runs)
            self._observer.started(work.number)
        return len(runs)
