"""Backlog of one shard: the tasks that are open, and the `Frontier` of those that are not open yet.

A chunk is *open* once the shard's owner has admitted the chunk. To admit a chunk, the owner skips tasks with ids that
the job has already, and adds the other ids to ``seen`` in the same commit.
"""

from collections import deque
from collections.abc import Callable, Collection, Container, Mapping
from types import MappingProxyType
from typing import cast

from smoothcluster.backend import Entry
from smoothcluster.group.store import GroupStore
from smoothcluster.jobs.chunk_reading import ReadTask, UnreadableTask, lost_chunk
from smoothcluster.jobs.chunks import job_of
from smoothcluster.pool import Run
from smoothcluster.records.shard import OpenChunk, Shard
from smoothcluster.work.frontier import Frontier
from smoothcluster.work.pauses import Pauses, Place
from smoothcluster.work.seen_ids import SeenIds
from smoothcluster.work.verdict import Stage, stage


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
        self._suspicious, self._report = suspicious, store.report
        self.pauses = Pauses(record, store.clock.monotonic())
        """Admitted tasks that wait for their next try."""
        self._unread = deque(record.open)
        # No listed chunk is read before the ids of its job.
        ahead = [*map(job_of, record.open), *(job for job, queue in record.queues.items() if queue.tasks)]
        self.seen = SeenIds(number, store, ahead)
        self.frontier = Frontier(number, record, store, arm, self.seen)
        self._admitted: list[tuple[str, list[bytes]]] = []  # What was added to `seen` since the last `save`.
        self._number, self._record, self._keys = number, record, store.keys

    @property
    def stale(self) -> bool:
        """Whether the store may hold unlisted chunks."""
        return self.frontier.stale

    @stale.setter
    def stale(self, stale: bool) -> None:
        self.frontier.stale = stale

    def promising(self) -> bool:
        """Whether there may be tasks to start; `fill` finds out."""
        return bool(self.restarts or self.queue or self._unread or self.frontier.promising())

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
        if waiting < want:
            self.frontier.fill(want - waiting)

    def fill_of(self, jobs: Collection[str]) -> bool:
        """Read waiting chunks of *jobs*, to be closed; return whether there are any."""
        self.reopen()
        return self.frontier.fill_of(jobs)

    def open(self, name: str, tasks: list[ReadTask], repeats: Container[int] = ()) -> None:
        """Open a chunk: its *tasks* may be started, except for the *repeats*, given by their places in the chunk.

        If the job is *closed*, close each task as cancelled, or as a repeat. The caller must commit, at once and
        together, the shard's record and the digests.
        """
        chunk = self._record.open[name] = OpenChunk(len(tasks))
        self.tasks[name] = tasks
        for index, task in enumerate(tasks):
            if index in repeats:
                chunk.closed |= 1 << index
            else:
                (self.unreadable if isinstance(task, UnreadableTask) else self.queue).append((name, index))

    def note_admitted(self, job: str, marks: list[bytes]) -> None:
        """Note digests that were added to `seen`, for `save`."""
        self._admitted.append((job, marks))

    def save(self) -> Callable[[], None]:
        """Return a function that restores the present state, if no chunk is read in between."""
        named = ("restarts", "queue", "suspects", "to_quarantine", "unreadable")
        queues = {name: deque(getattr(self, name)) for name in named}
        tasks, parts = dict(self.tasks), (self.pauses.save(), self.frontier.save())
        admitted = self._admitted = []

        def restore() -> None:
            for name, queue in queues.items():
                setattr(self, name, queue)
            self.tasks = tasks
            # Otherwise the next admission of the same chunk would skip all tasks as repeats.
            for job, marks in admitted:
                for mark in marks:
                    self.seen.of(job).discard(mark)
            for part in parts:
                part()

        return restore

    def drop_chunk(self, name: str) -> None:
        """Drop a finished chunk: the key is being deleted. Names of chunks are never used twice."""
        del self.tasks[name]

    def forget_job(self, job: str) -> None:
        """Drop the digests of a finished job: no further tasks will come."""
        self.seen.forget(job)
        self.frontier.forget(job)

    def relist(self) -> None:
        """Forget all chunks listed or read, but not admitted: the store may have lost them since."""
        self.frontier.relist()

    def reopen(self, ahead: Mapping[str, Entry] = MappingProxyType({})) -> None:
        """Read, once, the open chunks of a former owner. They are admitted, so their tasks can start at once.

        Chunks read *ahead*, by key, are not read again: the contents of a chunk never change.
        """
        names = list(self._unread)
        found = self.frontier.contents(names, ahead)
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
