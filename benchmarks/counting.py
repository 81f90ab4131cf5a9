"""A client of a store that counts the requests, the keys and the bytes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from smoothcluster.backend import (
    Change,
    Committed,
    Condition,
    CoordinationBackend,
    Entry,
    Guarantees,
    HasHistory,
    Lease,
    Refused,
    Watch,
    commit_size,
)


@dataclass
class Tally:
    """What one member has asked of the store."""

    requests: int = 0
    keys: int = 0
    bytes: int = 0

    def read(self, entries: Sequence[Entry | None], keys: Sequence[str] = ()) -> None:
        """Count a request that asked for *keys* and was answered with *entries*."""
        self.requests += 1
        self.keys += max(len(entries), len(keys))
        self.bytes += sum(map(len, keys))
        self.bytes += sum(len(entry.key) + len(entry.value) for entry in entries if entry is not None)

    def copy(self) -> "Tally":
        """Return the present numbers."""
        return Tally(self.requests, self.keys, self.bytes)


@final
class Counted(CoordinationBackend, HasHistory):
    """A client whose requests are counted in `tally`."""

    def __init__(self, inner: CoordinationBackend) -> None:
        self.tally = Tally()
        self._inner = inner

    @property
    def guarantees(self) -> Guarantees:
        return self._inner.guarantees

    @property
    def url(self) -> str:
        return self._inner.url

    def history(self) -> str:
        return self._inner.history() if isinstance(self._inner, HasHistory) else ""

    def get_many(self, keys: Sequence[str]) -> "list[Entry | None]":
        found = self._inner.get_many(keys)
        self.tally.read(found, keys)
        return found

    def keys(self, directory: str) -> "list[str]":
        found = self._inner.keys(directory)
        self.tally.read([], found)
        return found

    def list(self, directory: str) -> "list[Entry]":
        found = self._inner.list(directory)
        self.tally.read(found, [directory])
        return found

    def commit(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        size = commit_size(conditions, changes)
        self.tally.requests += 1
        self.tally.keys += size.operations
        self.tally.bytes += size.bytes
        return self._inner.commit(conditions, changes)

    def lease(self, ttl: float) -> Lease:
        return self._inner.lease(ttl)

    def watch(self, path: str, notify: Callable[[], None], *, values: bool = True) -> Watch:
        self.tally.requests += 1

        def counted() -> None:
            self.tally.requests += 1
            notify()

        return self._inner.watch(path, counted, values=values)

    def sync(self) -> None:
        self.tally.requests += 1
        self._inner.sync()

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self._inner.on_close(callback)

    def close(self) -> None:
        self._inner.close()
