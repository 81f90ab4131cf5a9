"""Backlog of one shard: the waiting tasks, in chunks that are listed, read, and admitted once each.

A chunk is *listed* when the owner knows the name, *read* when the tasks are in memory, and *open* once the shard's
owner has admitted the chunk. To admit a chunk, the owner skips tasks with ids already in the job, and adds the other
ids to ``seen`` in the same commit. The owner keeps only the name of a listed chunk, so a long queue costs little
memory. Jobs take turns, a chunk each.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from math import inf
from types import MappingProxyType
from typing import cast

from smoothcluster.backend import Entry
from smoothcluster.errors import BackendError
from smoothcluster.group.store import GroupStore
from smoothcluster.jobs.chunk_reading import ReadTask, UnreadableTask, lost_chunk, read_entries
from smoothcluster.jobs.chunks import CHUNK_TASKS, digest, job_of, size_of
from smoothcluster.pool import Run
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.keys import last_part
from smoothcluster.records.shard import OpenChunk, Shard
from smoothcluster.work.pauses import Pauses, Place
from smoothcluster.work.seen_ids import SeenIds
from smoothcluster.work.verdict import Stage, stage

MOST_CHUNKS_PER_READ = 256
"""Most chunks that one read fetches. The chunks that handlers add have few tasks each."""

LISTING_SHARE = 0.05
"""Share of the time that goes into listing a shard's chunks again while listed chunks wait."""


def place_of(run: Run) -> Place:
    """The chunk and the index of the run's task."""
    return cast("tuple[object, Place]", run.key)[1]


class Backlog:
    """The waiting tasks of one shard, as far as the owner knows them.

    The backlog calls *arm* before the first listing: every chunk written from then on must set `stale`. A task is
    started apart from others once its blame reaches the stage *suspicious*.
    """

    def __init__(  # long: most lines are fields with explanations
        self,
        number: int,
        record: Shard,
        store: GroupStore,
        arm: Callable[[], None],
        suspicious: Stage = Stage.SUSPECT,
    ) -> None:
        self.restarts: deque[Place] = deque()
        """Admitted tasks that were started before, or almost: to be started before all others."""
        self.queue: deque[Place] = deque()
        """Admitted tasks that may be started."""
        self.suspects: deque[Place] = deque()
        """Admitted tasks that may be started only apart."""
        self.to_quarantine: deque[Place] = deque()
        """Admitted tasks that may not be started any more."""
        self.unreadable: deque[Place] = deque()
        """Admitted tasks that nobody can read: to be recorded as failed."""
        self.tasks: dict[str, list[ReadTask]] = {}
        """The tasks of each open chunk, once read."""
        self.stale = True
        """Whether the store may hold unlisted chunks."""
        self._arm, self._armed, self._suspicious, self._report = arm, False, suspicious, store.report
        self.pauses = Pauses(record, store.clock.monotonic())
        """Admitted tasks that wait for their next try."""
        self._unread, self._known = deque(record.open), set(record.open)
        self._read: deque[tuple[str, list[ReadTask]]] = deque()
        self._listed: dict[str, deque[str]] = {}
        self._clock, self._next_listing = store.clock, -inf
        """While listed chunks wait, the time before which the chunks are not listed again."""
        self.seen = SeenIds(number, store, map(job_of, record.open))  # No chunk is read before the ids of its job.
        self._admitted: list[tuple[str, list[bytes]]] = []  # What was added to `seen` since the last `save`.
        self._number, self._record, self._backend, self._keys = number, record, store.backend, store.keys

    def promising(self) -> bool:
        """Whether there may be tasks to start; `fill` finds out."""
        return bool(self.restarts or self.queue or self._unread or self._read or self._listed or self.stale)

    def unread(self) -> list[str]:
        """The keys of the open chunks of a former owner that are still to be read by `reopen`."""
        return [self._keys.chunk(self._number, name) for name in self._unread]

    def unread_restarts(self) -> bool:
        """Whether any of the unread chunks holds a task that was started before."""
        return any(self._record.open[name].blame for name in self._unread)

    def fill(self, want: int) -> None:
        """Read chunks from the store until *want* tasks could be started, or no chunks are left.

        Chunks of a job whose ids take several slices to load are left for later calls.
        """
        self.reopen()
        waiting = len(self.restarts) + len(self.queue)
        if waiting >= want:
            return
        self._list_if_due()
        self._fetch(want - waiting - sum(len(tasks) for _, tasks in self._read))

    def _list_if_due(self) -> None:
        if self.stale and (not self._listed or self._clock.monotonic() >= self._next_listing):
            self._list()

    def fill_of(self, jobs: Collection[str]) -> bool:
        """Read waiting chunks of *jobs*, to be admitted before all others; return whether there are any."""
        self.reopen()
        self._list_if_due()
        if not any(job_of(name) in jobs for name, _ in self._read):
            self._fetch(MOST_CHUNKS_PER_READ * CHUNK_TASKS // 8, jobs)
        self._read = deque(sorted(self._read, key=lambda each: job_of(each[0]) not in jobs))
        return self.next_job() in jobs

    def next_job(self) -> str | None:
        """The job of the chunk that `admit` would open next; None if no chunk is read."""
        return job_of(self._read[0][0]) if self._read else None

    def admit(self, fits: Callable[[str, int], bool], closed: Collection[str] = ()) -> tuple[str, list[bytes]] | None:
        """Open the next read chunk, if *fits*, given the job and the number of tasks. Return name and new digests.

        If the job is *closed*, close each task as cancelled, or as a repeat. The caller must commit, at once and
        together, the shard's record and the digests.
        """
        if not self._read:
            return None
        name, tasks = self._read[0]
        job = job_of(name)
        if not fits(job, len(tasks)):
            return None
        self._read.popleft()
        seen = self.seen.of(job)
        chunk = self._record.open[name] = OpenChunk(len(tasks))
        self.tasks[name] = tasks
        fresh: list[bytes] = []
        for index, task in enumerate(tasks):
            mark = digest(task.id)
            if seen.add(mark):
                fresh.append(mark)
                if job in closed:
                    chunk.closed |= 1 << index
                    self._record.count(job, "cancelled")
                    continue
                (self.unreadable if isinstance(task, UnreadableTask) else self.queue).append((name, index))
            else:
                chunk.closed |= 1 << index
                self._record.count(job, "skipped")
        self._admitted.append((job, fresh))
        return name, fresh

    def save(self) -> Callable[[], None]:
        """Return a function that restores the present state, if no chunk is read in between."""
        named = ("restarts", "queue", "suspects", "to_quarantine", "unreadable", "_read")
        queues = {name: deque(getattr(self, name)) for name in named}
        tasks, pauses = dict(self.tasks), self.pauses.save()
        admitted = self._admitted = []

        def restore() -> None:
            for name, queue in queues.items():
                setattr(self, name, queue)
            self.tasks = tasks
            # Otherwise the next admission of the same chunk would skip all tasks as repeats.
            for job, marks in admitted:
                for mark in marks:
                    self.seen.of(job).discard(mark)
            pauses()

        return restore

    def drop_chunk(self, name: str) -> None:
        """Drop a finished chunk: the key is being deleted. Names of chunks are never used twice."""
        del self.tasks[name]

    def forget_job(self, job: str) -> None:
        """Drop the digests of a finished job: no further tasks will come."""
        self.seen.forget(job)

    def relist(self) -> None:
        """Forget all chunks listed or read, but not admitted: the store may have lost them since."""
        self._listed.clear()
        self._read.clear()
        self._known = set(self._record.open)
        self.stale = True

    def _list(self) -> None:
        if not self._armed:
            self._arm()
            self._armed = True
        self.stale = False  # Before reading: what comes while we read must not be forgotten.
        began = self._clock.monotonic()
        try:
            names = [last_part(key) for key in self._backend.keys(self._keys.tasks(self._number))]
        except BackendError:
            self.stale = True
            raise
        here = set(names)
        # Finished and deleted chunks need not be known any longer; open chunks must be.
        self._known = (self._known & here) | set(self._record.open)
        for name in names:
            if name in self._known:
                continue
            self._known.add(name)
            try:
                self._listed.setdefault(job_of(name), deque()).append(name)
            except GarbageError as error:
                self._report(self._keys.chunk(self._number, name), str(error))
        # The names of all waiting chunks are read each time. So the more chunks wait, the seldomer are they listed.
        ended = self._clock.monotonic()
        self._next_listing = ended + (ended - began) / LISTING_SHARE

    def _next_name(self, jobs: Collection[str] | None = None) -> str | None:
        """Take the next listed chunk of a job (one of *jobs*) with loaded ids; None if there is none."""
        wanted = [job for job in self._listed if jobs is None or job in jobs]
        job = next((job for job in wanted if self.seen.load(job)), None)
        if job is None:
            return None
        names = self._listed.pop(job)
        name = names.popleft()
        if names:
            self._listed[job] = names
        return name

    def reopen(self, ahead: Mapping[str, Entry] = MappingProxyType({})) -> None:
        """Read, once, the open chunks of a former owner. They are admitted, so their tasks can start at once.

        Chunks read *ahead*, by key, are not read again: the contents of a chunk never change.
        """
        names = list(self._unread)
        found = self._contents(names, ahead)
        self._unread.clear()
        for name in names:
            chunk = self._record.open[name]
            self.tasks[name] = found.get(name) or self._lost(name, chunk)
            self.pauses.resume(name, chunk)
            for index in range(chunk.size):
                if not ((chunk.closed | chunk.run) >> index & 1 or index in chunk.waits):
                    self.put_back((name, index), first=index in chunk.blame)

    def put_back(self, place: Place, *, first: bool = True) -> None:
        """Queue a task again: among others, apart, or for the quarantine, by blame; before fresh tasks if *first*."""
        name, index = place
        found = stage(self._record.open[name].blame.get(index, ()))
        if found is Stage.QUARANTINED:
            self._append(self.to_quarantine, place)
        elif found >= self._suspicious:
            self._append(self.suspects, place)
        else:
            self._append(self.restarts if first else self.queue, place)

    def _append(self, queue: deque[Place], place: Place) -> None:
        """Put a task into *queue*, or with the unreadable tasks."""
        (self.unreadable if self.is_unreadable(place) else queue).append(place)

    def is_unreadable(self, place: Place) -> bool:
        """Whether nobody can read the task, so that no handler can run."""
        return isinstance(self.tasks[place[0]][place[1]], UnreadableTask)

    def start_again(self, place: Place) -> None:
        """Do the same as `put_back`, for a task marked as running."""
        self._record.open[place[0]].run &= ~(1 << place[1])
        self.put_back(place)

    def put_back_due(self, now: float) -> None:
        """Queue failed tasks whose pause is over. They had a turn already, so they go to the end."""
        for place in self.pauses.ended(now):
            self.put_back(place, first=False)

    def _lost(self, name: str, chunk: OpenChunk) -> list[ReadTask]:
        """Return place holders for the tasks of an open chunk that a stranger deleted."""
        self._report(self._keys.chunk(self._number, name), "the store has lost this open chunk")
        return lost_chunk(name, chunk.size)

    def _fetch(self, tasks: int, jobs: Collection[str] | None = None) -> None:
        """Read chunks (of *jobs*) that hold so many *tasks* together, as far as there are any."""
        names: list[str] = []
        try:
            while tasks > 0 and len(names) < MOST_CHUNKS_PER_READ and (name := self._next_name(jobs)) is not None:
                names.append(name)
                tasks -= size_of(name) or CHUNK_TASKS
            self._read.extend(self._contents(names).items())
        except BackendError:
            self._known.difference_update(names)
            self.stale = True
            raise

    def _contents(
        self, names: Iterable[str], ahead: Mapping[str, Entry] = MappingProxyType({})
    ) -> dict[str, list[ReadTask]]:
        """The tasks of each chunk in *names* that exists, with place holders for unreadable tasks."""
        keys = [self._keys.chunk(self._number, name) for name in names]
        missing = [key for key in keys if key not in ahead]
        entries = [*(ahead[key] for key in keys if key in ahead), *(self._backend.get_many(missing) if missing else [])]
        return read_entries(entries, self._size_of_open, self._report)

    def _size_of_open(self, name: str) -> int | None:
        chunk = self._record.open.get(name)
        return None if chunk is None else chunk.size
