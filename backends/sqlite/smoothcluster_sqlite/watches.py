"""The watch thread of a backend: polls the file, wakes watchers, and advances the lease clock.

The thread reads the file when another process wakes the backend's socket, up to a limited rate, and otherwise a few
times a second. Each commit adds the changed keys to a short list in the file, and the thread reads the list. If the
thread has fallen too far behind for the list, all watchers are woken. A read that finds the lease clock nearly half a
cap behind advances the clock. So the lease clock runs at full speed while any process is there to wait for an expiry.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import final

from smoothcluster.backend import Watch
from smoothcluster.errors import BackendError, UsageError
from smoothcluster.lifetime import ClientLifetime, notify_all
from smoothcluster_sqlite.reads import Changes
from smoothcluster_sqlite.transaction import split_key
from smoothcluster_sqlite.wakeups import WakeupSocket

_SQLITE_LOG = logging.getLogger("smoothcluster.sqlite")

_LEAST_POLL_SECONDS, _IDLE_POLL_SECONDS = 0.004, 0.12
"""Least seconds between two reads after a wake-up, and seconds without a wake-up: less than half a cap."""

ReadChanges = Callable[[int], tuple[int, Changes | None]]
"""From a commit's number to the latest number and the changes since; None if the list is no longer complete."""


@final
class _PathWatch(Watch):
    """A watch of the key and the directory at *path*."""

    def __init__(self, owner: "Watches", path: str, notify: Callable[[], None], *, values: bool) -> None:
        self._owner = owner
        self.path = path
        self.notify = notify
        self.values = values

    def close(self) -> None:
        self._owner.remove(self)


@final
class Watches:
    """The watches of a backend.

    *read_changes* also advances the lease clock. *publish_socket* tries to write the socket's name into the file.
    """

    def __init__(self, read_changes: ReadChanges, publish_socket: Callable[[], bool], lifetime: ClientLifetime) -> None:
        self._read_changes = read_changes
        self._publish_socket = publish_socket
        self._lifetime = lifetime
        self.wakeup_socket: WakeupSocket | None = None
        self._lock = threading.Lock()
        self._watches: dict[str, dict[_PathWatch, None]] = {}
        self.count = 0
        """The number of open watches."""
        self._seen = -1
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless the thread runs or the backend is closed."""
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self.wakeup_socket = WakeupSocket()
                self._thread = threading.Thread(target=self._run, name="smoothcluster-sqlite", daemon=True)
                self._thread.start()

    def add(self, path: str, notify: Callable[[], None], *, values: bool) -> Watch:
        """Add a watch of *path*. Raise BackendClosedError if `close` has run: nobody would wake the watch."""
        watch = _PathWatch(self, path, notify, values=values)
        with self._lock:
            self._lifetime.check()
            self._watches.setdefault(path, {})[watch] = None
            self.count += 1
        return watch

    def remove(self, watch: _PathWatch) -> None:
        """End a watch. Repeatable."""
        if not self._lifetime.in_own_process:
            return  # In a forked child the lock may be held for ever.
        with self._lock:
            watches = self._watches.get(watch.path, {})
            self.count -= watch in watches
            watches.pop(watch, None)
            if not watches:
                self._watches.pop(watch.path, None)

    def close(self) -> None:
        """End the thread and all watches of a client with an ended lifetime. Wake each watch for the last time."""
        self._closed.set()
        with self._lock:
            watches, self._watches = self._watches, {}
            thread, own = self._thread, self.wakeup_socket
        notify_all(watch.notify for at_path in watches.values() for watch in at_path)
        if own is not None:
            own.wake_self()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        if own is not None:  # After the end of the thread, which waits on the socket.
            own.close()

    def _run(self) -> None:
        assert self.wakeup_socket is not None
        away = published = False
        while not self._closed.is_set():
            woken = self.wakeup_socket.wait(_IDLE_POLL_SECONDS)
            try:
                # Before the read: a process that commits after this read finds the name, and wakes this thread.
                published = published or self._publish_socket()
                self._seen, changes = self._read_changes(self._seen)
            except (BackendError, UsageError) as error:
                if not away:
                    _SQLITE_LOG.debug("cannot read changes for the watches, and will try again: %s", error)
                away = True
                self._closed.wait(_IDLE_POLL_SECONDS)
                continue
            away = False
            published = published and changes is not None  # Another file at the path lacks the name of the socket.
            for watch in self._affected(changes):
                self._wake(watch)
            if woken:
                self._closed.wait(_LEAST_POLL_SECONDS)

    def _affected(self, changes: Changes | None) -> Iterable[_PathWatch]:
        affected: dict[_PathWatch, None] = {}
        with self._lock:
            if changes is None:
                return [watch for watches in self._watches.values() for watch in watches]
            for key, came_or_went in changes:
                for path in (key, split_key(key)[0]):
                    for watch in self._watches.get(path, ()):
                        if came_or_went or watch.values:
                            affected[watch] = None
        return affected

    def _wake(self, watch: _PathWatch) -> None:
        if watch not in self._watches.get(watch.path, ()):
            return  # Closed since the thread found the watch.
        try:
            watch.notify()
        except Exception:  # noqa: BLE001  # The caller's own code failed; still notify the others.
            _SQLITE_LOG.exception("the notify function of a watch raised an exception")
