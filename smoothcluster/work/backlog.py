"""Backlog of one shard: the waiting tasks, in chunks that are listed, read, and admitted once each.

A chunk is *listed* when the owner knows the name, *read* when the tasks are in memory, and *open* once the shard's
owner has admitted the chunk. To admit a chunk, the owner skips tasks with ids already in the job, and adds the other
ids to ``seen`` in the same commit. The owner keeps only the name of a listed chunk, so a long queue costs little
memory. Jobs take turns, a chunk each.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import cast

from smoothcluster.backend import Entry
from smoothcluster.errors import BackendError
from smoothcluster.group.store import GroupStore
from smoothcluster.jobs.chunks import CHUNK_TASKS, DIGEST_BYTES, decode_chunk, digest, job_of
from smoothcluster.model import Task
from smoothcluster.pool import Run
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.keys import last_part
from smoothcluster.records.shard import OpenChunk, Shard
from smoothcluster.work.pauses import Pauses, Place
from smoothcluster.work.verdict import Stage, stage


def place_of(run: Run) -> Place:
    """The chunk and the index of the run's task."""
    return cast("tuple[object, Place]", run.key)[1]


class Backlog:
    """The waiting tasks of one shard, as far as the owner knows them.

    The backlog calls *arm* before the first listing: every chunk written from then on must set `stale`. A task is
    started apart from others once its blame reaches the stage *suspicious*.
    """

    def __init__(
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
        self.tasks: dict[str, list[Task]] = {}
        """The tasks of each open chunk, once read."""
        self.stale = True
        """Whether the store may hold unlisted chunks."""
        self._arm, self._armed = arm, False
        self.pauses = Pauses(record, store.clock.monotonic())
        """Admitted tasks that wait for their next try."""
        self._unread, self._known = deque(record.open), set(record.open)
        self._read: deque[tuple[str, list[Task]]] = deque()
        self._listed: dict[str, deque[str]] = {}
        self._seen: dict[str, set[bytes]] = {}
        self._admitted: list[tuple[str, list[bytes]]] = []  # What was added to `_seen` since the last `save`.
        self._number, self._record, self._suspicious = number, record, suspicious
        self._backend, self._keys, self._report = store.backend, store.keys, store.report

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
        """Read chunks from the store until *want* tasks could be started, or no chunks are left."""
        self.reopen()
        waiting = len(self.restarts) + len(self.queue)
        if waiting >= want:
            return
        if self.stale:
            self._list()
        ready = waiting + sum(len(tasks) for _, tasks in self._read)
        names: list[str] = []
        while self._listed and ready + len(names) * CHUNK_TASKS < want:
            names.append(self._next_name())
        self._fetch(names)

    def admit(self, fits: Callable[[int], bool]) -> tuple[str, list[bytes]] | None:
        """Open the next read chunk, if all tasks fit. Return the name and the digests new to the job.

        The caller must commit, at once and together, the shard's record and the digests.
        """
        if not self._read or not fits(len(self._read[0][1])):
            return None
        name, tasks = self._read.popleft()
        job = job_of(name)
        seen = self._seen[job]
        chunk = self._record.open[name] = OpenChunk(len(tasks))
        self.tasks[name] = tasks
        fresh: list[bytes] = []
        for index, task in enumerate(tasks):
            mark = digest(task.id)
            if mark in seen:
                chunk.closed |= 1 << index
                self._record.count(job, "skipped")
            else:
                seen.add(mark)
                fresh.append(mark)
                self.queue.append((name, index))
        self._admitted.append((job, fresh))
        return name, fresh

    def save(self) -> Callable[[], None]:
        """Return a function that restores the present state, if no chunk is read in between."""
        queues = [deque(each) for each in (self.restarts, self.queue, self.suspects, self.to_quarantine)]
        tasks, read, seen, pauses = dict(self.tasks), deque(self._read), dict(self._seen), self.pauses.save()
        admitted = self._admitted = []

        def restore() -> None:
            self.restarts, self.queue, self.suspects, self.to_quarantine = queues
            self.tasks, self._read, self._seen = tasks, read, seen
            # Otherwise the next admission of the same chunk would skip all tasks as repeats.
            for job, marks in admitted:
                seen[job].difference_update(marks)
            pauses()

        return restore

    def drop_chunk(self, name: str) -> None:
        """Drop a finished chunk: the key is being deleted. Names of chunks are never used twice."""
        del self.tasks[name]

    def forget_job(self, job: str) -> None:
        """Drop the digests of a finished job: no further tasks will come."""
        self._seen.pop(job, None)

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

    def _next_name(self) -> str:
        job, names = next(iter(self._listed.items()))
        del self._listed[job]
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
            tasks = found.get(name, [])
            if len(tasks) != chunk.size:
                self._abandon(name, chunk)
                continue
            self.tasks[name] = tasks
            self.pauses.resume(name, chunk)
            for index in range(chunk.size):
                if not ((chunk.closed | chunk.run) >> index & 1 or index in chunk.waits):
                    self.put_back((name, index), first=index in chunk.blame)

    def put_back(self, place: Place, *, first: bool = True) -> None:
        """Queue a task again: among others, apart, or for the quarantine, by blame; before fresh tasks if *first*."""
        name, index = place
        found = stage(self._record.open[name].blame.get(index, ()))
        if found is Stage.QUARANTINED:
            self.to_quarantine.append(place)
        elif found >= self._suspicious:
            self.suspects.append(place)
        else:
            (self.restarts if first else self.queue).append(place)

    def start_again(self, place: Place) -> None:
        """Do the same as `put_back`, for a task marked as running."""
        self._record.open[place[0]].run &= ~(1 << place[1])
        self.put_back(place)

    def put_back_due(self, now: float) -> None:
        """Queue failed tasks whose pause is over. They had a turn already, so they go to the end."""
        for place in self.pauses.ended(now):
            self.put_back(place, first=False)

    def _abandon(self, name: str, chunk: OpenChunk) -> None:
        """Skip the tasks of an open chunk that a stranger deleted or overwrote: they cannot run."""
        missing = chunk.size - chunk.closed.bit_count()
        self._report(self._keys.chunk(self._number, name), f"{missing} admitted tasks are not readable any more")
        self._record.count(job_of(name), "skipped", missing)
        del self._record.open[name]

    def _fetch(self, names: list[str]) -> None:
        try:
            for job in sorted({job_of(name) for name in names} - self._seen.keys()):
                self._seen[job] = self._load_seen(job)
            self._read.extend(self._contents(names).items())
        except BackendError:
            self._known.difference_update(names)
            self.stale = True
            raise

    def _load_seen(self, job: str) -> set[bytes]:
        values = (entry.value for entry in self._backend.list(self._keys.seen(job, self._number)))
        return {value[i : i + DIGEST_BYTES] for value in values for i in range(0, len(value), DIGEST_BYTES)}

    def _contents(
        self, names: Iterable[str], ahead: Mapping[str, Entry] = MappingProxyType({})
    ) -> dict[str, list[Task]]:
        """The tasks of each chunk in *names* that exists and is readable."""
        keys = [self._keys.chunk(self._number, name) for name in names]
        missing = [key for key in keys if key not in ahead]
        entries = [*(ahead[key] for key in keys if key in ahead), *(self._backend.get_many(missing) if missing else [])]
        found: dict[str, list[Task]] = {}
        for entry in entries:
            if entry is None:
                continue  # The chunk was finished and deleted after a slower read had listed the name.
            try:
                found[last_part(entry.key)] = decode_chunk(entry.value)
            except GarbageError as error:
                self._report(entry.key, str(error))
        return found
