"""Frontier of one shard: the waiting tasks that the owner has not opened, in a memory that does not grow with them.

Submitters and handlers write chunks into the directory ``tasks/<shard>``, which the owner lists. A handler's chunk has
few tasks. While more than `MOST_LISTED_CHUNKS` of them wait, the owner merges them into full chunks without repeats in
``queue/<shard>``, numbered for each job. Nobody lists ``queue``: the shard's record has the numbers. So the listing
stays short, whatever waits::

    tasks/<shard>/<chunk> --listed--> name known --read--> batch --opened-----------------> open
                                                             |                               ^
                                                             +--merged--> queue --read-------+

Jobs take turns, a batch each. A job's queue comes before the job's listed chunks, which are younger.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import final

from smoothcluster.backend import Entry
from smoothcluster.errors import BackendError
from smoothcluster.group.store import GroupStore
from smoothcluster.jobs.chunk_reading import ReadTask, least_size, lost_chunk, read_chunk, read_entries
from smoothcluster.jobs.chunks import CHUNK_TASKS, job_of, size_of
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.keys import last_part, queue_number, queued_name
from smoothcluster.records.shard import MOST_CHUNK_TASKS, JobQueue, Shard
from smoothcluster.work.seen_ids import SeenIds

MOST_CHUNKS_PER_READ = 256
"""Most chunks that one read fetches. The chunks that handlers add have few tasks each."""

MOST_LISTED_CHUNKS = 128
"""Chunks that may wait in the listed directory: the owner merges them when there are more."""

MERGED_TASKS_PER_READ = 4 * CHUNK_TASKS
"""Tasks that one read fetches in order to merge their chunks."""

LISTING_SHARE = 0.05
"""Share of the time that goes into listing a shard's chunks again while chunks wait."""


@dataclass(slots=True, eq=False)
class Batch:
    """Chunks of one job that were read and are not open: a queued chunk, or the listed chunks of a job's turn."""

    job: str
    chunks: deque[tuple[str, list[ReadTask]]]
    """The name and the tasks of each chunk. A chunk that is gone meanwhile is left out."""
    number: int | None = None
    """The number in the job's queue, if the batch is a queued chunk."""
    tasks: int = 0


@final
class Frontier:
    """The tasks of shard *number* that are not open yet, as far as the owner has listed or read them.

    The frontier calls *arm* before the first listing: every chunk written from then on must set `stale`.
    """

    def __init__(self, number: int, record: Shard, store: GroupStore, arm: Callable[[], None], seen: SeenIds) -> None:
        self.stale = True
        """Whether the store may hold unlisted chunks."""
        self.read: deque[Batch] = deque()
        """Batches to be opened or merged, in this order."""
        self._number, self._record, self._seen = number, record, seen
        self._backend, self._keys, self._clock, self._report = store.backend, store.keys, store.clock, store.report
        self._arm, self._armed = arm, False
        self._known = set(record.open)
        self._listed: dict[str, deque[str]] = {}
        self._turns = dict.fromkeys(job for job, queue in record.queues.items() if queue.tasks)
        """The jobs with queued or listed chunks; the first has its turn next."""
        self._next_listing = -inf
        """While chunks wait, the time before which the directory is not listed again."""

    def promising(self) -> bool:
        """Whether there may be chunks to open; `fill` finds out."""
        return bool(self.read or self._turns or self.stale)

    @property
    def crowded(self) -> bool:
        """Whether so many listed chunks wait that the owner must merge them."""
        read = sum(len(batch.chunks) for batch in self.read if batch.number is None)
        most = min(MOST_LISTED_CHUNKS, self._backend.guarantees.most_operations // 4)  # A commit merges so many.
        return read + sum(map(len, self._listed.values())) > most

    def fill(self, want: int) -> None:
        """Read batches of *want* tasks in all, and others to be merged, unless too few wait.

        Chunks of a job whose ids take several slices to load are left for later calls.
        """
        self._list_if_due()
        self._fetch(want - sum(batch.tasks for batch in self.read))
        if self.crowded:
            listed = sum(batch.tasks for batch in self.read if batch.number is None)
            self._fetch(MERGED_TASKS_PER_READ - listed, to_merge=True)

    def fill_of(self, jobs: Collection[str]) -> bool:
        """Read listed chunks of *jobs*, to be closed; return whether chunks of the jobs wait, listed or queued."""
        self._list_if_due()
        if not any(batch.job in jobs for batch in self.read):
            self._fetch(MERGED_TASKS_PER_READ, to_merge=True, jobs=jobs)
        queues = [self._record.queues[job] for job in jobs if job in self._record.queues]
        return any(batch.job in jobs for batch in self.read) or any(queue.tasks for queue in queues)

    def forget(self, job: str) -> None:
        """Drop what is known of a finished job: no further tasks will come."""
        self._listed.pop(job, None)
        self._turns.pop(job, None)

    def queued(self, job: str) -> None:
        """Give *job* a turn: chunks of the job were merged into its queue."""
        self._turns.setdefault(job)

    def relist(self) -> None:
        """Forget all chunks listed or read, but not open: the store may have lost them since."""
        self._listed.clear()
        self.read.clear()
        self._turns = dict.fromkeys(job for job, queue in self._record.queues.items() if queue.tasks)
        self._known = set(self._record.open)
        self.stale = True

    def save(self) -> Callable[[], None]:
        """Return a function that restores the present state, if nothing is read in between."""
        batches = [(batch, deque(batch.chunks), batch.tasks) for batch in self.read]
        turns = dict(self._turns)

        def restore() -> None:
            self._turns = turns
            self.read = deque(batch for batch, _, _ in batches)
            for batch, chunks, tasks in batches:
                batch.chunks, batch.tasks = chunks, tasks

        return restore

    def _list_if_due(self) -> None:
        if self.stale and (not self._turns or self._clock.monotonic() >= self._next_listing):
            self._list()

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
            if name not in self._known:
                self._known.add(name)
                self._put(name)
        # The names of all chunks are read each time. So the more chunks wait, the seldomer are they listed.
        ended = self._clock.monotonic()
        self._next_listing = ended + (ended - began) / LISTING_SHARE

    def _put(self, name: str) -> None:
        """Add a listed chunk to those of its job."""
        try:
            job = job_of(name)
            if queue_number(name) is not None:
                raise GarbageError(f"{name!r} is not the name of a chunk from a submitter or handler")
        except GarbageError as error:
            self._report(f"{self._keys.tasks(self._number)}/{name}", str(error))
            return
        self._listed.setdefault(job, deque()).append(name)
        self._turns.setdefault(job)

    # Read

    def _fetch(self, tasks: int, *, to_merge: bool = False, jobs: Collection[str] | None = None) -> None:
        """Read chunks, or listed chunks *to_merge*, that hold so many *tasks* together, as far as there are any.

        *jobs* are the jobs to read chunks of; None for all.
        """
        wanted: list[tuple[Batch, list[str]]] = []
        ahead = Counter(batch.job for batch in self.read if batch.number is not None)
        count = 0
        try:
            while (
                tasks > 0
                and count < MOST_CHUNKS_PER_READ
                and (turn := self._next_turn(ahead, jobs, to_merge=to_merge)) is not None
            ):
                batch, names = turn
                wanted.append(turn)
                count += len(names)
                tasks -= batch.tasks
            found = self.contents(name for _, names in wanted for name in names)
        except BackendError:
            self._known.difference_update(name for _, names in wanted for name in names)
            self._turns.update(dict.fromkeys(batch.job for batch, _ in wanted))
            self.stale = True
            raise
        for batch, names in wanted:
            batch.chunks.extend((name, found[name]) for name in names if name in found)
            batch.tasks = sum(len(each) for _, each in batch.chunks)
            if batch.chunks or batch.number is not None:
                self.read.append(batch)

    def _next_turn(
        self, ahead: Counter[str], jobs: Collection[str] | None, *, to_merge: bool
    ) -> tuple[Batch, list[str]] | None:
        """Return the batch of the next job (of *jobs*) with chunks to read, and the chunks; None without such a job.

        *ahead* counts the queued chunks of each job that are read already. They are not read *to_merge*.
        """
        for job in self._turns:
            if jobs is not None and job not in jobs:
                continue
            queue = self._record.queues.get(job)
            unread = 0 if queue is None else queue.tail - queue.head - ahead[job]
            if queue is not None and unread > 0 and not to_merge:
                number, size = queue.head + ahead[job], queue.tasks // (queue.tail - queue.head)
                batch, names = Batch(job, deque(), number, size), [queued_name(job, number)]
                ahead[job] += 1
            elif job in self._listed and self._seen.load(job):
                names = list(self._turn(job))
                batch = Batch(job, deque(), None, sum(size_of(name) or CHUNK_TASKS for name in names))
            elif queue is not None and queue.tasks and not (to_merge or unread or ahead[job] or job in self._listed):
                batch, names = self._damaged(job, queue), []
            else:
                continue
            del self._turns[job]
            if job in self._listed or (queue is not None and queue.head + ahead[job] < queue.tail):
                self._turns[job] = None
            return batch, names
        return None

    def _turn(self, job: str) -> Iterator[str]:
        """Take the listed chunks of a turn of *job*: a full chunk's tasks in all, and one chunk at least."""
        names, left = self._listed[job], CHUNK_TASKS
        while names and (left == CHUNK_TASKS or left >= (size_of(names[0]) or CHUNK_TASKS)):
            left -= size_of(names[0]) or CHUNK_TASKS
            yield names.popleft()
        if not names:
            del self._listed[job]

    def _damaged(self, job: str, queue: JobQueue) -> Batch:
        """Return the first damaged chunk of an otherwise empty *queue*, with place holders for unreadable tasks.

        The number of tasks of a damaged chunk is unknown, but the sum of all damaged chunks is known. So the last of
        them gets the rest, and the counts of the job add up. If a stranger has removed tasks from readable chunks, a
        further chunk of place holders gets the rest.
        """
        number = queue.damaged[0] if queue.damaged else queue.tail
        name = queued_name(job, number)
        entry = self._backend.get(self._keys.chunk(self._number, name))
        size = min(queue.tasks, MOST_CHUNK_TASKS)
        if len(queue.damaged) > 1:
            least = 1 if entry is None else least_size(entry.value)
            size = max(1, min(least, queue.tasks - len(queue.damaged) + 1))
        tasks = lost_chunk(name, size) if entry is None else read_chunk(name, entry.value, size)
        return Batch(job, deque([(name, tasks)]), number, size)

    def contents(
        self, names: Iterable[str], ahead: Mapping[str, Entry] = MappingProxyType({})
    ) -> dict[str, list[ReadTask]]:
        """Read the tasks of each chunk in *names* that exists, with place holders for unreadable tasks.

        Chunks read *ahead*, by key, are not read again: the contents of a chunk never change.
        """
        keys = [self._keys.chunk(self._number, name) for name in names]
        missing = [key for key in keys if key not in ahead]
        entries = [*(ahead[key] for key in keys if key in ahead), *(self._backend.get_many(missing) if missing else [])]
        return read_entries(entries, self._size_of_open, self._report)

    def _size_of_open(self, name: str) -> int | None:
        chunk = self._record.open.get(name)
        return None if chunk is None else chunk.size
