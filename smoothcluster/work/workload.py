"""What one member works on: its shards, its handler pool, and a commit whenever one is due.

How many tasks are marked as running is as many as can run at once, and besides what should
finish within one commit interval, so that nobody waits for a commit. Slow tasks so leave few
suspects behind if the process dies; fast ones leave many, which cost little to run again.
"""

from collections import deque
from collections.abc import Callable, Mapping

from smoothcluster.backend import CoordinationBackend, Entry, Refused, Watch
from smoothcluster.clock import Clock
from smoothcluster.group.view import Versioned
from smoothcluster.pool import Pool, Run
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.shard import Shard
from smoothcluster.work import ShardWork, WorkContext, shard_of

INTERVAL = 0.05
"""Seconds that an outcome may wait for others to be recorded with."""

BATCH = 512
"""Outcomes of one shard that are recorded without waiting for more."""

SLICE = 0.2
"""Seconds after which another shard has its turn: long enough for outcomes to share commits."""

RAMP = 0.05
"""Seconds after which to look whether suspects that wait could use more children."""

WINDOW = 8192
"""Tasks marked at once at most, however fast they are."""


class Workload:
    """The shards a member owns, and the tasks of them that run here."""

    def __init__(
        self,
        backend: CoordinationBackend,
        pool: Pool,
        clock: Clock,
        context: WorkContext,
        concurrency: int,
        held: Callable[[], bool],
    ) -> None:
        self.works: dict[int, ShardWork] = {}
        self.stopping = False
        """Start nothing more."""
        self.on_start: Callable[[int], None] = lambda shard: None
        """Told of a shard when tasks of it were handed to the pool."""
        self.on_lost: Callable[[int], None] = lambda shard: None
        self.on_behind: Callable[[int, int, int], None] = lambda shard, kept, acknowledged: None
        """Told of a shard of ours whose record is not the one we left: commits kept and acknowledged."""
        self.epochs: dict[int, int] = {}
        """The last epoch under which each shard was worked on here."""
        self.ahead: Mapping[str, Entry] = {}
        """Chunks, by key, that were read before the claim was made which is to start their tasks."""
        self.wake: Callable[[], None] = lambda: None
        self._backend, self._pool, self._clock, self._context, self._held = backend, pool, clock, context, held
        self._apart = context.apart
        self._concurrency = concurrency
        self._turns: deque[int] = deque()
        self._turn_ends = clock.monotonic() + SLICE
        self._watches: dict[int, Watch] = {}
        self._alone = self._solitary = False
        """Whether a suspect runs alone in this process; whether one does or waits to: nothing else may start."""
        self._rate = 0.0
        self._counted, self._counted_since = 0, clock.monotonic()

    # What is owned

    def adopt(self, number: int, read: Versioned[Shard]) -> ShardWork:
        """Begin to work on a shard that the store says is ours."""
        work = self.works[number] = ShardWork(number, read, self._context)
        self.epochs[number] = read.record.epoch
        # It may be ours, again, because the store has lost our having it before, and what we sent meanwhile.
        self._context.sent.clear()
        work.backlog.arm = lambda: self._watch(work)
        # What was running when its owner went is the oldest debt: it goes first.
        (self._turns.appendleft if read.record.open else self._turns.append)(number)
        return work

    def drop(self, number: int) -> None:
        """The shard is not ours any more; what still runs of it is not waited for."""
        self.works.pop(number).lost = True
        self._turns.remove(number)
        watch = self._watches.pop(number, None)
        if watch is not None:
            watch.close()

    def reconcile(self, number: int, read: Versioned[Shard]) -> bool:
        """The store has our shard at another version than we left: go on, or drop it; whether it is whole."""
        self._context.sent.clear()  # Of what we remember to have sent, nothing is certain.
        work = self.works[number]
        whole = work.carry_on(read)
        if not whole:
            self.drop(number)
            self.on_behind(number, read.record.seq, work.record.seq)
        return whole

    def drop_all(self) -> None:
        """Nothing is ours any more."""
        for number in list(self.works):
            self.drop(number)
        self._pool.take_back()

    def _watch(self, work: ShardWork) -> None:
        def notify() -> None:
            work.backlog.stale = True
            self.wake()

        directory = self._context.keys.tasks(work.number)
        self._watches[work.number] = self._backend.watch(directory, notify, values=False)

    @property
    def outstanding(self) -> int:
        """Tasks of our shards that the pool has."""
        return sum(work.outstanding for work in self.works.values())

    def room(self) -> int:
        """How many more tasks could run at once now; none while nothing may start."""
        if self._solitary or not self._may_start():
            return 0
        return max(0, self._concurrency - self.outstanding)

    def _may_start(self) -> bool:
        return not self.stopping and self._held()

    def quiet(self) -> bool:
        """Whether nothing runs, and everything that did is recorded."""
        return all(work.quiet() for work in self.works.values())

    # What is done

    def turn(self) -> None:
        """Take in what has finished, start what can be, and record what is due."""
        now = self._clock.monotonic()
        self.collect(now)
        if self._may_start():
            self._start_suspects(now)
            if not self._alone:
                self._resume()
            if not self._solitary:
                self._top_up(now)
        for work in list(self.works.values()):
            if self._due(work, now):
                self._commit(work, 0, now)

    def next_time(self) -> float | None:
        """When `turn` is needed at the latest, if nothing else happens."""
        now = self._clock.monotonic()
        works = [work for work in self.works.values() if work.pending is None]
        times = [work.oldest + INTERVAL for work in works if work.oldest is not None]
        # A retry that is due already waits for a free worker, and that will wake us.
        retries = [work.backlog.next_retry() for work in works if not work.moving]
        times += [retry for retry in retries if retry is not None and retry > now]
        # While the lease may be lost, and so perhaps the shards, nobody is convicted.
        verdicts = [verdict for work in works if (verdict := work.suspects.next_verdict()) is not None]
        times += verdicts if self._may_start() else [max(verdict, now + INTERVAL) for verdict in verdicts]
        # What the last turn has put back, after it had started what there was.
        if any(work.backlog.queue for work in works if work.free()) and self.room():
            times.append(now)
        if any(work.backlog.suspects for work in works if work.free()):
            times.append(now + RAMP)
        return min(times, default=None)

    def collect(self, now: float) -> None:
        """Take finished runs from the pool to their shards."""
        finished = self._pool.finished
        count = 0
        while finished:
            run = finished.popleft()
            count += 1
            self._return(run, now)
        self._counted += count
        passed = now - self._counted_since
        if passed >= INTERVAL:
            self._rate = self._counted / passed
            self._counted, self._counted_since = 0, now

    def _return(self, run: Run, now: float) -> None:
        work = shard_of(run)
        if not work.lost:  # If it is, the outcome is its next owner's to find.
            work.finish(run, now)

    def hand_back(self, wanted: Callable[[ShardWork], bool] = lambda work: True) -> None:
        """Take back from the pool what has not started, of the shards *wanted*."""
        now = self._clock.monotonic()
        for work in filter(wanted, self.works.values()):
            work.unmark()
        again: list[Run] = []
        for run in self._pool.take_back():
            if wanted(shard_of(run)):
                self._return(run, now)
            else:
                again.append(run)
        self._pool.put(again)

    def _due(self, work: ShardWork, now: float) -> bool:
        verdict = work.suspects.next_verdict()
        if verdict is not None and verdict <= now and work.pending is None and self._may_start():
            return True
        if work.lost or not work.unsaid():
            return False
        if work.oldest is None or work.pending is not None:
            return True
        return len(work.finished) >= BATCH or now >= work.oldest + INTERVAL or not self.outstanding

    def _resume(self) -> None:
        """Start what was marked in the very claims that made the shards ours: reading it is all it takes."""
        for work in self.works.values():
            if work.marked and not work.moving:
                work.backlog.reopen(self._backend, self.ahead)
                self._dispatch(work, work.resume())
        self.ahead = {}

    def _top_up(self, now: float) -> None:
        """Start more tasks if the pool runs low, staying with one shard while it has some."""
        ahead = min(WINDOW, int(self._rate * INTERVAL))
        window = self._concurrency + ahead
        have = self.outstanding
        if have >= self._concurrency + ahead // 4:
            return
        if now >= self._turn_ends:
            self._turns.rotate(-1)
            self._turn_ends = now + SLICE
        for _ in range(len(self._turns)):
            number = self._turns[0]
            work = self.works[number]
            if work.startable(now):
                have += self._commit(work, window - have, now)
                if have >= window or work.lost:
                    return
            self._turns.rotate(-1)

    def _start_suspects(self, now: float) -> None:
        """Start suspects in children, as far as there are any; or one alone, where no child can run the handler."""
        works = [work for work in self.works.values() if work.backlog.suspects and work.free()]
        for work in works:
            work.suspects.tell()
        if self._alone and not self.outstanding:
            # It came back; but until that is recorded it shares the blame for what the next one does.
            self._alone = not self._record(now)
        self._solitary = self._alone or (bool(works) and self._apart.able is False)
        if self._solitary:
            self._start_alone(now)
            return
        if not works:
            return
        waiting = sum(len(work.backlog.suspects) for work in works)
        room = self._apart.ready(waiting) - sum(work.suspects.in_children for work in self.works.values())
        for work in works:
            if room > 0:
                room -= self._commit(work, 0, now, apart=room)

    def _start_alone(self, now: float) -> None:
        """Start one suspect here, once nothing else runs and what did is recorded: what dies then is its doing."""
        if self.outstanding or any(work.marked for work in self.works.values()):
            return
        recorded = self._record(now)
        able = [work for work in self.works.values() if work.backlog.suspects and work.free()]
        if able and recorded:
            self._alone = self._commit(able[0], 0, now, alone=True) > 0

    def _record(self, now: float) -> bool:
        """Record at once whatever is over; whether that is all said."""
        for work in list(self.works.values()):
            if work.unsaid():
                self._commit(work, 0, now)
        return not any(work.unsaid() for work in self.works.values())

    def _commit(self, work: ShardWork, want: int, now: float, *, apart: int = 0, alone: bool = False) -> int:
        """Send the shard's next commit, or the one not settled yet; return how many tasks it started."""
        if work.pending is None:
            if want:
                work.backlog.fill(self._backend, want)
            work.prepare(want, now, apart, alone=alone)
        while work.pending is not None and not work.lost:
            result = self._backend.commit([], work.pending.changes)
            if isinstance(result, Refused):
                version = self._settle(work, result.key)
            else:
                version = result.versions[self._key(work)]
            if version is not None:
                return self._dispatch(work, work.applied(version))
        return 0

    def _key(self, work: ShardWork) -> str:
        return self._context.keys.shard(work.number)

    def _dispatch(self, work: ShardWork, runs: list[Run]) -> int:
        if runs:
            self._pool.put(runs)
            self.on_start(work.number)
        return len(runs)

    def _settle(self, work: ShardWork, key: str) -> str | None:
        """After a refusal: the version if our commit is there after all; None to try again, or if lost."""
        assert work.pending is not None
        self._backend.sync()
        entry = self._backend.get(self._key(work))
        try:
            record = Shard.from_json(entry.value) if entry is not None else None
        except GarbageError as error:
            self._context.report(self._key(work), str(error))
            record = None
        if entry is not None and record is not None:
            if record.id == work.pending.id:
                # What was lost with the answer may be more than the answer, where the store can lose its past.
                self._context.sent.clear()
                work.backlog.relist()
                return entry.version
            if entry.version == work.version and record.owner == self._context.incarnation:
                work.mend(key)
                return None
        self.drop(work.number)
        if record is not None and (record.owner, record.epoch) == (self._context.incarnation, work.record.epoch):
            self.on_behind(work.number, record.seq, work.record.seq - 1)  # The last one was never acknowledged.
        else:
            self.on_lost(work.number)
        return None
