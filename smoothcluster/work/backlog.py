"""The tasks of one shard that wait to be started: chunks listed, read, and admitted once each.

A chunk is *listed* when its name is known, *read* when its tasks are in memory, and *open* once
the shard's owner has admitted it: looked which of its ids the job already has (these are skipped)
and added the others to ``seen``, in the same commit. Of what is only listed nothing else is kept,
so a long queue costs little memory. Jobs take turns, a chunk each.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import cast

from smoothcluster.backend import CoordinationBackend, Entry
from smoothcluster.errors import BackendError
from smoothcluster.group.view import Report
from smoothcluster.jobs.chunks import CHUNK_TASKS, DIGEST, decode_chunk, digest, job_of
from smoothcluster.model import Task
from smoothcluster.pool import Run
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.keys import Keys, last_part
from smoothcluster.records.shard import OpenChunk, Shard
from smoothcluster.work.verdict import Stage, stage

Place = tuple[str, int]
"""A task of the shard: its chunk's name and its index there."""


def place_of(run: Run) -> Place:
    """Where the run's task stands in its shard."""
    return cast("tuple[object, Place]", run.key)[1]


class Backlog:
    """What one owner knows of its shard's waiting tasks."""

    def __init__(
        self, number: int, record: Shard, keys: Keys, report: Report, suspicious: Stage = Stage.SUSPECT
    ) -> None:
        self.queue: deque[Place] = deque()
        """Admitted tasks that may be started."""
        self.suspects: deque[Place] = deque()
        """Those that may be started apart."""
        self.to_quarantine: deque[Place] = deque()
        """Those that may not be started any more."""
        self.tasks: dict[str, list[Task]] = {}
        """The tasks of each open chunk that was read."""
        self.stale = True
        """Whether names may have come that were not listed yet."""
        self.arm: Callable[[], None] = lambda: None
        """Called before the first listing: whatever comes from then on must set `stale`."""
        self._armed = False
        self._delayed: list[tuple[float, Place]] = []
        self._unread = deque(record.open)
        self._read: deque[tuple[str, list[Task]]] = deque()
        self._listed: dict[str, deque[str]] = {}
        self._known = set(record.open)
        self._seen: dict[str, set[bytes]] = {}
        self._number, self._record, self._keys, self._report = number, record, keys, report
        self._suspicious = suspicious

    def promising(self) -> bool:
        """Whether there may be something to start, if one looks."""
        return bool(self.queue or self._unread or self._read or self._listed or self.stale)

    def fill(self, backend: CoordinationBackend, want: int) -> None:
        """Read from the store until *want* tasks could be started, or there is no more."""
        self.reopen(backend)
        if len(self.queue) >= want:
            return
        if self.stale:
            self._list(backend)
        ready = len(self.queue) + sum(len(tasks) for _, tasks in self._read)
        names: list[str] = []
        while self._listed and ready + len(names) * CHUNK_TASKS < want:
            names.append(self._next_name())
        self._fetch(backend, names)

    def admit(self, fits: Callable[[int], bool]) -> tuple[str, list[bytes]] | None:
        """Open the next chunk that was read, if so many tasks fit: its name and the digests that are new to its job.

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
        return name, fresh

    def forget(self, name: str) -> None:
        """The chunk is finished and its key goes. Names of chunks are never used twice."""
        del self.tasks[name]

    def forget_job(self, job: str) -> None:
        """The job has finished: no task of it will come."""
        self._seen.pop(job, None)

    def relist(self) -> None:
        """Forget what was listed or read, and not admitted: the store may have lost it since."""
        self._listed.clear()
        self._read.clear()
        self._known = set(self._record.open)
        self.stale = True

    def _list(self, backend: CoordinationBackend) -> None:
        if not self._armed:
            self.arm()
            self._armed = True
        self.stale = False  # Before reading: what comes while we read must not be forgotten.
        try:
            names = [last_part(key) for key in backend.keys(self._keys.tasks(self._number))]
        except BackendError:
            self.stale = True
            raise
        here = set(names)
        # What is finished and gone need not be known any longer; what is open must be.
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

    def reopen(self, backend: CoordinationBackend, ahead: Mapping[str, Entry] = MappingProxyType({})) -> None:
        """Read the chunks that a former owner had open, once; they are admitted, so they can go on at once.

        What has been read *ahead*, by key, is not read again: what a chunk holds never changes.
        """
        names = list(self._unread)
        found = self._contents(backend, names, ahead)
        self._unread.clear()
        for name in names:
            chunk = self._record.open[name]
            tasks = found.get(name, [])
            if len(tasks) != chunk.size:
                self._abandon(name, chunk)
                continue
            self.tasks[name] = tasks
            for index in range(chunk.size):
                if not (chunk.closed | chunk.run) >> index & 1:
                    self.put_back((name, index), first=index in chunk.blame)

    def put_back(self, place: Place, *, first: bool = True) -> None:
        """A task is to be started again: by what it is blamed for, among others or apart. It has waited longest."""
        name, index = place
        found = stage(self._record.open[name].blame.get(index, ()))
        if found is Stage.QUARANTINED:
            self.to_quarantine.append(place)
        elif found >= self._suspicious:
            self.suspects.append(place)
        else:
            (self.queue.appendleft if first else self.queue.append)(place)

    def start_again(self, place: Place) -> None:
        """As `put_back`, for one that is marked as running."""
        self._record.open[place[0]].run &= ~(1 << place[1])
        self.put_back(place)

    def put_off(self, place: Place, until: float) -> None:
        """A task that failed is to be started again, but not before *until*."""
        heapq.heappush(self._delayed, (until, place))

    def next_retry(self) -> float | None:
        """When a task that failed is to be tried again."""
        return self._delayed[0][0] if self._delayed else None

    def put_back_due(self, now: float) -> None:
        """Those that were put off until now have had their turn: they go to the end."""
        while self._delayed and self._delayed[0][0] <= now:
            self.put_back(heapq.heappop(self._delayed)[1], first=False)

    def _abandon(self, name: str, chunk: OpenChunk) -> None:
        """An open chunk was taken away or overwritten by a stranger: its tasks cannot be run."""
        missing = chunk.size - chunk.closed.bit_count()
        self._report(self._keys.chunk(self._number, name), f"{missing} admitted tasks are not readable any more")
        self._record.count(job_of(name), "skipped", missing)
        del self._record.open[name]

    def _fetch(self, backend: CoordinationBackend, names: list[str]) -> None:
        try:
            for job in sorted({job_of(name) for name in names} - self._seen.keys()):
                self._seen[job] = self._load_seen(backend, job)
            self._read.extend(self._contents(backend, names).items())
        except BackendError:
            self._known.difference_update(names)
            self.stale = True
            raise

    def _load_seen(self, backend: CoordinationBackend, job: str) -> set[bytes]:
        values = (entry.value for entry in backend.list(self._keys.seen(job, self._number)))
        return {value[i : i + DIGEST] for value in values for i in range(0, len(value), DIGEST)}

    def _contents(
        self, backend: CoordinationBackend, names: Iterable[str], ahead: Mapping[str, Entry] = MappingProxyType({})
    ) -> dict[str, list[Task]]:
        """The tasks of each chunk that is there and readable."""
        keys = [self._keys.chunk(self._number, name) for name in names]
        missing = [key for key in keys if key not in ahead]
        entries = [*(ahead[key] for key in keys if key in ahead), *(backend.get_many(missing) if missing else [])]
        found: dict[str, list[Task]] = {}
        for entry in entries:
            if entry is None:
                continue  # Finished and deleted after it was listed by a slower read.
            try:
                found[last_part(entry.key)] = decode_chunk(entry.value)
            except GarbageError as error:
                self._report(entry.key, str(error))
        return found
