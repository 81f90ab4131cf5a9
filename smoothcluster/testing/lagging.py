"""A client with lagging reads, as at a ZooKeeper follower; a store in memory alone has no such lag."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import final

from smoothcluster.backend import (
    Change,
    Committed,
    Condition,
    CoordinationBackend,
    Entry,
    Guarantees,
    Lease,
    Refused,
    Watch,
)
from smoothcluster.memory import Applied, MemoryBackend, MemoryStore, Tree
from smoothcluster.memory.watches import Watches, wake_watches


@final
class Lagging(CoordinationBackend):
    """A client of *store* with a delayed view: up to the client's own last commit, `sync` or `catch_up`.

    Watches wake as the view catches up. Create the client before others write to the store.
    """

    def __init__(self, store: MemoryStore) -> None:
        self._inner = MemoryBackend(store)
        self._lock = threading.RLock()
        self._watches = Watches(self._lock)
        self._unseen: deque[Applied] = deque()
        store.observers.append(self._unseen.append)
        self._seen = Tree(store.tree.entries)

    @property
    def behind(self) -> int:
        """The number of steps of the store's history not seen yet."""
        return len(self._unseen)

    def catch_up(self, steps: int | None = None) -> None:
        """See the whole history up to now, or only the next *steps*."""
        for _ in range(self.behind if steps is None else steps):
            with self._lock:
                if not self._unseen:
                    return
                step = self._unseen.popleft()
                for key, entry in step.after.items():
                    self._seen.set(key, entry)
                woken = self._watches.woken(step.before, step.after)
            wake_watches(woken)

    def sync(self) -> None:
        self._inner.reach().expire()
        self.catch_up()

    @property
    def guarantees(self) -> Guarantees:
        return self._inner.guarantees

    @property
    def one_machine(self) -> bool:
        return self._inner.one_machine

    @property
    def url(self) -> str:
        return self._inner.url

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        self._inner.get_many(keys)  # Refuses malformed keys as the store does.
        with self._lock:
            return [self._seen.entries.get(key) for key in keys]

    def keys(self, directory: str) -> "list[str]":
        self._inner.keys(directory)
        with self._lock:
            return self._seen.names(directory)

    def list(self, directory: str) -> "list[Entry]":
        self._inner.keys(directory)
        with self._lock:
            return self._seen.list(directory)

    def silent_leases(self, leases: Sequence[str]) -> frozenset[str]:
        return self._inner.silent_leases(leases)

    def commit(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        outcome = self._inner.commit(conditions, changes)
        self.catch_up()
        return outcome

    def lease(self, ttl: float) -> Lease:
        return self._inner.lease(ttl)

    def watch(self, path: str, notify: Callable[[], None], *, values: bool = True) -> Watch:
        self._inner.reach()
        return self._watches.add(self, path, notify, values=values)

    def close(self) -> None:
        self._inner.close()
        self._watches.remove_all(self)

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self._inner.on_close(callback)
