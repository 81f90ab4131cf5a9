"""One move of recorded outcomes to the results sink: what the background thread does, without the state of the loop."""

from dataclasses import dataclass
from functools import partial
from typing import final

from smoothcluster.backend import Entry
from smoothcluster.errors import GarbageError, SinkUnavailableError
from smoothcluster.group.store import GroupStore
from smoothcluster.records.results import outcomes
from smoothcluster.records.tail import TailRecord
from smoothcluster.sinks import NumberedOutcome, Part, ResultSink
from smoothcluster.sinks.cache import OpenSinks
from smoothcluster.work.outbox import LARGEST_WAIT_BYTES, Moved, seq_of

READ_RECORDS = 16
"""Number of records of outcomes read at once."""


@dataclass(frozen=True, slots=True)
class Move:
    """The end of a move: news for the next commit of the shard's owner."""

    moved: Moved
    size: int
    """Bytes of the records that the commit deletes."""
    more: bool
    """Whether there were more outcomes than a move takes."""


@dataclass(frozen=True, slots=True)
class Destination:
    """The results sink of a group."""

    url: str
    group_id: str
    """The group's mark in the sink, and part of the names of jobs there."""
    ours: bool
    """Whether this member brought the sink to the group. The group may begin anew, without a join that marks."""


@final
class Mover:
    """Reads recorded outcomes and writes them to the sink. The background thread alone calls `move`."""

    def __init__(self, store: GroupStore, destination: Destination, sinks: OpenSinks) -> None:
        self._store, self._destination, self._sinks = store, destination, sinks
        self._checked: set[str] = set()
        """URLs whose place has the mark of the group."""

    def move(self, job: str, shard: int) -> Move:
        """Move outcomes that are in the store behind the tail. The caller owns the shard, and no commit is under way.

        Raise any BackendError, SinkError, UsageError or GarbageError.
        """
        store = self._store
        # The tail and the records must be as new as the claim of the shard: with an older tail, the new tail would
        # lead past outcomes that the last commit moved.
        store.backend.sync()
        before = self._tail(job, shard)
        last = -1 if before is None else before.tail.last
        batch: list[NumberedOutcome] = []
        read: list[str] = []
        size = 0
        keys = [key for key in store.backend.keys(store.keys.results(job, shard)) if seq_of(key) >= 0]
        keys.sort(key=seq_of, reverse=True)
        while keys and size < LARGEST_WAIT_BYTES:
            part = [keys.pop() for _ in range(min(READ_RECORDS, len(keys)))]
            for entry in filter(None, store.backend.get_many(part)):
                found = self._outcomes(entry)
                if found is not None:
                    read.append(entry.key)
                    size += len(entry.value)
                    # Up to the tail, the last owner died before it deleted the records.
                    batch += [each for each in found if each.seq > last]
        tail = self._write(job, shard, before, batch).to_json() if batch else None
        return Move(Moved(tail, before is None, read), size, bool(keys))

    def _outcomes(self, entry: Entry) -> list[NumberedOutcome] | None:
        """Return the outcomes of a record; None if the record is garbage, which stays where it is."""
        try:
            found = [*outcomes(entry.value, partial(self._store.report, entry.key))]
        except GarbageError as error:
            self._store.report(entry.key, str(error))
            return None
        return [NumberedOutcome(seq_of(entry.key), outcome) for outcome in found]

    def _tail(self, job: str, shard: int) -> TailRecord | None:
        key = self._store.keys.tail(job, shard)
        entry = self._store.backend.get(key)
        if entry is None:
            return None
        try:
            return TailRecord.from_json(entry.value)
        except GarbageError as error:  # To begin anew would lose what the sink has.
            self._store.report(key, str(error))
            raise

    def _write(self, job: str, shard: int, before: TailRecord | None, batch: list[NumberedOutcome]) -> TailRecord:
        group_id = self._destination.group_id
        part = Part(f"{job}.{group_id}", shard) if before is None else before.part
        url = self._destination.url if before is None else before.sink
        sink = self._sinks.get(url)
        if url == self._destination.url:
            self._check_mark(sink, url)
        return TailRecord(url, part, sink.write(part, batch, None if before is None else before.tail))

    def _check_mark(self, sink: ResultSink, url: str) -> None:
        """Raise SinkUnavailableError if the URL leads this member to another place than the other members."""
        if url not in self._checked:
            if self._destination.ours:
                sink.mark(self._destination.group_id)
            if not sink.has_mark(self._destination.group_id):
                raise SinkUnavailableError(
                    f"{url} is not the place where the group keeps its results: the mark"
                    f" {self._destination.group_id!r} is missing there; mount or name the right place"
                )
            self._checked.add(url)
