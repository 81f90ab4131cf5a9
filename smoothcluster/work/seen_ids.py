"""The ids that each job has on one shard, as digests: loaded from the store in slices, and kept in little memory.

The owner of a shard must know all ids of a job before the owner admits a chunk of the job. A new owner loads the ids
from the store. A job may have a million of them, so a load may take many *slices*. A slice is one request and a bounded
number of digests. Between two slices the member's loop takes a whole turn: tasks that were admitted before start, run
and are recorded. Each slice has the full timeout of the store for itself; a slice that fails is read again. The states
of a job::

    unknown --begin: the names are listed, a first slice is read--> loading --the last slice is read--> loaded
                                                                                 loaded --forget--> unknown

The slices miss no digest. Only the owner of a shard adds digests, in commits that compare the shard's record. The load
begins after the commit by which this member became the owner, and this member adds none before the end of the load.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import final

from smoothcluster.group.store import GroupStore
from smoothcluster.jobs.chunks import DIGEST_BYTES
from smoothcluster.jobs.digest_set import DigestSet

SLICE_BYTES = 64 * 1024
"""Bytes of digests that a slice should have: 4,096 digests, some 10 milliseconds of work."""

FIRST_SLICE_KEYS, MOST_SLICE_KEYS = 8, 256
"""Keys in the first slice of a load, while the sizes of the values are unknown; and in any slice at most."""


@dataclass(slots=True)
class _Load:
    """A load that is not finished."""

    unread: list[str]
    """The keys still to be read; the next key is the last."""
    digests: DigestSet = field(default_factory=DigestSet)
    keys: int = FIRST_SLICE_KEYS
    """The number of keys in the next slice."""


@final
class SeenIds:
    """The digests of the ids that each job has on shard *number*.

    The ids of the jobs *ahead* are loaded without a call of `load`: a former owner admitted tasks of these jobs, and
    probably more tasks of the jobs wait. So the load goes on while the admitted tasks run, not after them.
    """

    def __init__(self, number: int, store: GroupStore, ahead: Iterable[str] = ()) -> None:
        self._number, self._store = number, store
        self._ahead = dict.fromkeys(ahead)
        self._loaded: dict[str, DigestSet] = {}
        self._loads: dict[str, _Load] = {}
        """Unfinished loads; the next slice is of the first."""
        self._may_begin = True
        """Whether `load` may begin another load; false from an unfinished slice to the next call of `load_slice`."""

    @property
    def loading(self) -> bool:
        """Whether there are loads to begin or to go on with: `load_slice` should be called soon."""
        return bool(self._loads or self._ahead)

    def load(self, job: str) -> bool:
        """Return whether the digests of *job* are loaded. Begin a load if there is none, and read a first slice.

        Most jobs have few digests or none, and are loaded at once. After a longer load has begun, no other load
        begins before the next call of `load_slice`: so any number of calls in one turn reads only one full slice.
        Raise any BackendError; then nothing has begun, or the slice is read again.
        """
        if job in self._loaded:
            return True
        if job in self._loads or not self._may_begin:
            return False
        names = self._store.backend.keys(self._store.keys.seen(job, self._number))
        self._loads[job] = _Load(names[::-1])
        self._ahead.pop(job, None)
        self._may_begin = self._read_slice(job)
        return self._may_begin

    def load_slice(self) -> None:
        """Read one slice of an unfinished load, if there is one; the loads take turns. Raise any BackendError."""
        self._may_begin = True
        if self._loads:
            self._read_slice(next(iter(self._loads)))
        elif self._ahead:
            self.load(next(iter(self._ahead)))

    def of(self, job: str) -> DigestSet:
        """Return the digests of a loaded job. The caller adds further digests, in step with the store.

        A job forgotten since begins anew: the store deletes the digests, too.
        """
        load = self._loads.get(job)
        return load.digests if load is not None else self._loaded.setdefault(job, DigestSet())

    def forget(self, job: str) -> None:
        """Drop the digests of a finished job: no further tasks will come."""
        self._loaded.pop(job, None)
        self._loads.pop(job, None)
        self._ahead.pop(job, None)

    def _read_slice(self, job: str) -> bool:
        """Read the next slice of the load of *job*. Return whether the load is finished."""
        load = self._loads[job]
        names = load.unread[-load.keys :]
        read = 0
        for entry in self._store.backend.get_many(names) if names else ():
            if entry is not None:  # None: a stranger has deleted the key, or the store was rolled back.
                read += len(entry.value)
                self._take(entry.key, entry.value, load.digests)
        # Only now: if the read fails, the same slice is read again.
        del load.unread[-load.keys :]
        del self._loads[job]
        if not load.unread:
            self._loaded[job] = load.digests
            return True
        load.keys = max(1, min(MOST_SLICE_KEYS, SLICE_BYTES * len(names) // max(read, 1)))
        self._loads[job] = load  # Behind the other loads.
        return False

    def _take(self, key: str, value: bytes, digests: DigestSet) -> None:
        if len(value) % DIGEST_BYTES:
            self._store.report(key, f"the record has {len(value)} bytes, not a multiple of {DIGEST_BYTES}")
        for start in range(0, len(value) - DIGEST_BYTES + 1, DIGEST_BYTES):
            digests.add(value[start : start + DIGEST_BYTES])
