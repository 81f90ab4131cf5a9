"""Watches by path, and the choice of watches to wake after a change."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import final

from smoothcluster.backend import Entry, Watch, check_key
from smoothcluster.lifetime import OwnProcess, notify_all
from smoothcluster.memory.tree import parent


@final
class PathWatch(Watch):
    """A watch kept in a `Watches`."""

    __slots__ = ("_watches", "notify", "open", "owner", "path", "values")

    def __init__(
        self, watches: "Watches", owner: object, path: str, notify: Callable[[], None], *, values: bool
    ) -> None:
        self._watches = watches
        self.owner = owner
        self.path = check_key(path)
        self.notify = notify
        self.values = values
        self.open = True

    def close(self) -> None:
        self._watches.remove(self)


@final
class Watches:
    """The watches of one store or client; *lock* guards them."""

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self._process = OwnProcess("these watches")
        self._at: dict[str, dict[PathWatch, None]] = {}
        self._counts: Counter[int] = Counter()
        """The number of open watches by the identity of their owner, while above zero."""

    def count(self, owner: object) -> int:
        """The number of open watches of *owner*."""
        return self._counts.get(id(owner), 0)

    def add(self, owner: object, path: str, notify: Callable[[], None], *, values: bool) -> PathWatch:
        """Watch *path* for *owner*, as in `CoordinationBackend.watch`."""
        watch = PathWatch(self, owner, path, notify, values=values)
        with self._lock:
            self._at.setdefault(path, {})[watch] = None
            self._counts[id(owner)] += 1
        return watch

    def remove(self, watch: PathWatch) -> None:
        if not self._process.is_current:
            return  # In a forked child the lock may be held for ever.
        with self._lock:
            if watch.open:
                self._counts[id(watch.owner)] -= 1
                if not self._counts[id(watch.owner)]:
                    del self._counts[id(watch.owner)]
            watch.open = False
            at_path = self._at.get(watch.path, {})
            at_path.pop(watch, None)
            if not at_path:
                self._at.pop(watch.path, None)

    def remove_all(self, owner: object) -> None:
        """End every watch of *owner*, which is closed: wake each watch for the last time."""
        with self._lock:
            removed = [watch for watch in self.all() if watch.owner is owner]
            for watch in removed:
                self.remove(watch)
        notify_all(watch.notify for watch in removed)

    def all(self) -> "list[PathWatch]":
        """Every watch. Called under the lock."""
        return [watch for at_path in self._at.values() for watch in at_path]

    def woken(self, before: Mapping[str, Entry | None], after: Mapping[str, Entry | None]) -> Iterable[PathWatch]:
        """The watches to wake after a step from *before* to *after*, each once. Called under the lock."""
        woken: dict[PathWatch, None] = {}
        for key, entry in after.items():
            came_or_went = (entry is None) != (before[key] is None)
            for path in (key, parent(key)):
                for watch in self._at.get(path, ()):
                    if came_or_went or watch.values:
                        woken[watch] = None
        return woken


def wake_watches(watches: Iterable[PathWatch]) -> None:
    """Notify each open watch, outside the lock: a callback may need a lock held by a caller of ours."""
    for watch in watches:
        if watch.open:
            watch.notify()
