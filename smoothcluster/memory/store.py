"""The in-memory store: one history of commits and lost leases, seen by every client of the store.

Every operation first ends the leases that are due. On the machine's own clock a thread also ends due
leases while leases live, so that watchers wake; on any other clock the owner of the clock calls
`MemoryStore.expire`.
"""

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from smoothcluster.backend import (
    Change,
    Committed,
    Condition,
    Create,
    Delete,
    Entry,
    Guarantees,
    Refused,
    check_commit,
    check_directory,
    check_key,
)
from smoothcluster.clock import SYSTEM_CLOCK, Clock, SystemClock
from smoothcluster.errors import LeaseLostError
from smoothcluster.lifetime import OwnProcess
from smoothcluster.memory.tree import Applied, Tree
from smoothcluster.memory.watches import PathWatch, Watches, wake_watches

WEAKEST = Guarantees(  # name: exported by smoothcluster.memory, whose documentation shows it
    linearizable_writes=True,
    survives_failover=False,
    unique_versions=False,
    shortest_ttl=0.0,
    longest_ttl=86_400.0,
    ttl_step=0.0,
    largest_value=900_000,
    largest_commit=1_000_000,
    most_operations=128,
)
"""The weakest guarantees of any supported store, except for the lease times."""

_RESTORE_VERSION_STEP = 1_000_000
"""Rise of versions at a restore of a past: more than the versions given since."""


@final
@dataclass(frozen=True, slots=True)
class Past:
    """The contents of a store at one moment."""

    entries: Mapping[str, Entry]
    leases: Mapping[str, tuple[float, frozenset[str]]]
    """Time and keys of each lease."""


@final
@dataclass(slots=True, eq=False)
class LeaseRecord:
    """A lease on the side of the store."""

    id: str
    ttl: float
    expires: float
    keys: set[str]
    renewed: float = math.inf  # By `Clock.since_boot`; infinite if unknown.


class MemoryStore:
    """The state shared by several `MemoryBackend` objects. Keeps to *guarantees*, the weak parts included.

    Commits, leases and histories are counted from *begin*.
    """

    def __init__(
        self,
        *,
        clock: Clock = SYSTEM_CLOCK,
        guarantees: Guarantees = WEAKEST,
        name: str = "(private)",
        begin: int = 0,
    ) -> None:
        self.name = name
        self.process = OwnProcess(f"the store memory://{name}")
        self.clock = clock
        self.guarantees = guarantees
        self.tree = Tree()
        """Every key, for reading: only commits change the tree."""
        self.observers: list[Callable[[Applied], None]] = []
        """The store calls each observer with every step, in order, before any watch wakes."""
        self._leases: dict[str, LeaseRecord] = {}
        self._number = self._grants = self._begin = begin
        self._restored = 0
        self._soonest = math.inf  # No lease is due before this time.
        self._lock = threading.RLock()
        self.watches = Watches(self._lock)
        self._earlier_expiry = clock.signal()
        self._reaper: threading.Thread | None = None

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        self._expire_due()
        with self._lock:
            return [self.tree.entries.get(check_key(key)) for key in keys]

    def keys(self, directory: str) -> list[str]:
        self._expire_due()
        with self._lock:
            names = self.tree.names(check_key(directory))
        check_directory(self.guarantees, directory, len(names))
        return names

    def list(self, directory: str) -> "list[Entry]":
        self._expire_due()
        with self._lock:
            entries = self.tree.list(check_key(directory))
        check_directory(self.guarantees, directory, len(entries))
        return entries

    def commit(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        lease = check_commit(self.guarantees, conditions, changes)
        self._expire_due()
        with self._lock:
            # Checked under the lock: another thread may have ended the lease since the caller or the line above looked.
            if lease is not None and lease.id not in self._leases:
                raise LeaseLostError(f"{lease.id} is gone")
            failed = self.tree.refusal(conditions, changes)
            if failed is not None:
                return Refused(failed)
            self.tree.check_places(changes)
            self._number += 1
            after = {change.key: self._entry_after(change) for change in changes}
            woken = self._step(tuple(changes), after, None)
        wake_watches(woken)
        return Committed({key: entry.version for key, entry in after.items() if entry is not None})

    def _entry_after(self, change: Change) -> Entry | None:
        """The entry at the key after *change*; None after a deletion."""
        if isinstance(change, Delete):
            return None
        if isinstance(change, Create):
            # No version exceeds the number of commits, so a version that starts at this number is new.
            version = str(
                (self._number if self.guarantees.unique_versions else 0) + self._restored * _RESTORE_VERSION_STEP
            )
            lease = None if change.lease is None else change.lease.id
            return Entry(change.key, change.value, version, self._number, lease)
        old = self.tree.entries[change.key]
        return Entry(change.key, change.value, str(int(old.version) + 1), old.created, old.lease)

    def _step(
        self, changes: tuple[Change, ...], after: Mapping[str, Entry | None], lease: str | None
    ) -> Iterable[PathWatch]:
        """Apply the entries of *after*, and return the watches to wake."""
        before = {key: self.tree.entries.get(key) for key in after}
        for key, entry in after.items():
            self.tree.set(key, entry)
            if (entry is None) != (before[key] is None):
                self._note_on_lease(entry or before[key])
        for observer in self.observers:
            observer(Applied(self._number, changes, before, after, lease))
        return self.watches.woken(before, after)

    def _note_on_lease(self, entry: Entry | None) -> None:
        """Update the lease's set of keys: *entry* has come or gone."""
        if entry is None or entry.lease is None or entry.lease not in self._leases:
            return
        keys = self._leases[entry.lease].keys
        if entry.key in keys:
            keys.remove(entry.key)
        else:
            keys.add(entry.key)

    def past(self) -> Past:
        """The present contents of the store, for `go_back`."""
        with self._lock:
            leases = {lease: (granted.ttl, frozenset(granted.keys)) for lease, granted in self._leases.items()}
            return Past(dict(self.tree.entries), leases)

    def go_back(self, past: Past) -> None:
        """Lose every commit made since *past*, like a store whose replica takes over too early.

        Versions from before the call no longer hold, every remaining lease gets the full time again,
        and every watch wakes. Observers get one step without changes and without a lease.
        """
        with self._lock:
            self._restored += 1
            self._number += 1
            entries = past.entries.values()
            before = dict(self.tree.entries)
            self.tree = Tree(
                {each.key: replace(each, version=str(int(each.version) + _RESTORE_VERSION_STEP)) for each in entries}
            )
            now = self.clock.monotonic()
            self._leases = {
                each: LeaseRecord(each, ttl, now + ttl, set(keys)) for each, (ttl, keys) in past.leases.items()
            }
            self._soonest = min((granted.expires for granted in self._leases.values()), default=math.inf)
            keys = sorted(before.keys() | self.tree.entries.keys())
            step = {key: before.get(key) for key in keys}, {key: self.tree.entries.get(key) for key in keys}
            for observer in self.observers:
                observer(Applied(self._number, (), *step, None))
            woken = self.watches.all()
        wake_watches(woken)

    @property
    def history(self) -> str:
        """Name of the present history; changes each time the store has lost commits."""
        return f"history {self._begin + self._restored}"

    def grant(self, ttl: float) -> LeaseRecord:
        """Grant a lease of *ttl* seconds, adjusted to the limits of the guarantees."""
        if not ttl > 0:
            raise ValueError(f"a lease needs a positive time, not {ttl}")
        promised = self.guarantees
        ttl = max(ttl, promised.shortest_ttl)
        if promised.ttl_step:
            ttl = math.ceil(ttl / promised.ttl_step) * promised.ttl_step
        ttl = min(ttl, promised.longest_ttl)
        with self._lock:
            self._grants += 1
            expires, now = self.clock.monotonic() + ttl, self.clock.since_boot()
            granted = LeaseRecord(f"lease-{self._grants}", ttl, expires, set(), now)
            self._leases[granted.id] = granted
            self._soonest = min(self._soonest, granted.expires)
            if isinstance(self.clock, SystemClock):
                self._start_reaper()
        return granted

    def renew(self, lease: str) -> bool:
        """Start the full time of *lease* again; False if the lease is gone."""
        self._expire_due()
        with self._lock:
            granted = self._leases.get(lease)
            if granted is not None:
                granted.expires = self.clock.monotonic() + granted.ttl
                granted.renewed = self.clock.since_boot()
            return granted is not None

    def silent_leases(self, leases: Iterable[str]) -> frozenset[str]:
        """The ids among *leases* without a renewal for their time; see `CoordinationBackend.silent_leases`."""
        with self._lock:
            now, found = self.clock.since_boot(), [self._leases[each] for each in leases if each in self._leases]
            return frozenset(each.id for each in found if now - each.renewed >= each.ttl)

    def end(self, lease: str) -> None:
        """End a lease now, due or not, and delete the lease's keys. Harmless if the lease is gone."""
        with self._lock:
            woken = self._end(lease)
            self._earlier_expiry.set()
        wake_watches(woken)

    def expire(self) -> None:
        """End every lease that is due, and wake the watches on the leases' keys."""
        with self._lock:
            now = self.clock.monotonic()
            due = [granted.id for granted in self._leases.values() if granted.expires <= now]
            woken = [watch for lease in due for watch in self._end(lease)]
            self._soonest = min((granted.expires for granted in self._leases.values()), default=math.inf)
        wake_watches(woken)

    def next_expiry(self) -> float | None:
        """When the next lease is due without a renewal, on the store's clock; None if there is no lease."""
        with self._lock:
            return min((granted.expires for granted in self._leases.values()), default=None)

    def _end(self, lease: str) -> Iterable[PathWatch]:
        granted = self._leases.pop(lease, None)
        if granted is None:
            return ()
        self._number += 1
        return self._step((), dict.fromkeys(sorted(granted.keys)), lease)

    def _expire_due(self) -> None:
        if self.clock.monotonic() >= self._soonest:
            self.expire()

    def _start_reaper(self) -> None:
        if self._reaper is None:
            self._reaper = threading.Thread(
                target=self._end_due_leases, name=f"smoothcluster-memory-{self.name}", daemon=True
            )
            self._reaper.start()
        self._earlier_expiry.set()

    def _end_due_leases(self) -> None:
        """End leases as they fall due, until none is left."""
        while True:
            with self._lock:
                soonest = self.next_expiry()
                if soonest is None:
                    # Under the lock: a `grant` after this line starts another thread.
                    self._reaper = None
                    return
            self._earlier_expiry.wait(max(0.0, soonest - self.clock.monotonic()))
            # Cleared before the leases are read again: a lease granted from now on sets the signal for the next wait.
            self._earlier_expiry.clear()
            self.expire()
