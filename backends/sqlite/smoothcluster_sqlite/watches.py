"""The watch thread of a backend: polls the file, wakes watchers, and advances the lease clock.

The thread looks at the file when the backend's bell rings, up to a limited rate, and otherwise a few times a
second. Each commit adds the changed keys to a short list in the file, and the thread reads the list. If the thread has
fallen too far behind for the list, all watchers are woken. A look that finds the lease clock nearly half a cap behind
advances the clock. So the lease clock runs at full speed while any process is there to wait for an expiry.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import final

from smoothcluster.backend import Watch
from smoothcluster.errors import BackendError, UsageError
from smoothcluster_sqlite.transaction import split
from smoothcluster_sqlite.wakeups import Bell

_LOG = logging.getLogger("smoothcluster.sqlite")

_BETWEEN, _UNASKED = 0.004, 0.12
"""Least seconds between two looks when the bell rings, and seconds without a bell: less than half a cap."""

Changes = Iterable[tuple[str, bool]]
"""Keys, each with True if the key was created or deleted, and False if the key got a new value."""

Look = Callable[[int], tuple[int, Changes | None]]
"""From a commit's number to the latest number, and the changes since; None if the list is no longer complete."""


@final
class _Order(Watch):
    def __init__(self, watches: "Watches", path: str, notify: Callable[[], None], *, values: bool) -> None:
        self._watches = watches
        self.path = path
        self.notify = notify
        self.values = values

    def close(self) -> None:
        self._watches.remove(self)


@final
class Watches:
    """The watches of a backend. *look* reads and advances the lease clock; *hang* tries to publish the bell."""

    def __init__(self, look: Look, hang: Callable[[], bool]) -> None:
        self._look = look
        self._hang = hang
        self.bell: Bell | None = None
        self._lock = threading.Lock()
        self._orders: dict[str, dict[_Order, None]] = {}
        self._seen = -1
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless the thread runs or the backend is closed."""
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self.bell = Bell()
                self._thread = threading.Thread(target=self._run, name="smoothcluster-sqlite", daemon=True)
                self._thread.start()

    def add(self, path: str, notify: Callable[[], None], *, values: bool) -> Watch:
        """Add a watch of *path*."""
        order = _Order(self, path, notify, values=values)
        with self._lock:
            self._orders.setdefault(path, {})[order] = None
        return order

    def remove(self, order: _Order) -> None:
        """End a watch. Repeatable."""
        with self._lock:
            orders = self._orders.get(order.path, {})
            orders.pop(order, None)
            if not orders:
                self._orders.pop(order.path, None)

    def close(self) -> None:
        """End all watches and the thread."""
        self._closed.set()
        with self._lock:
            self._orders.clear()
            thread, bell = self._thread, self.bell
        if bell is not None:
            bell.wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        if bell is not None:
            bell.close()

    def _run(self) -> None:
        assert self.bell is not None
        away = hung = False
        while not self._closed.is_set():
            rung = self.bell.wait(_UNASKED)
            try:
                hung = hung or self._hang()
                self._seen, changes = self._look(self._seen)
            except (BackendError, UsageError) as error:
                if not away:
                    _LOG.info("watches see nothing for now: %s", error)
                away = True
                self._closed.wait(_UNASKED)
                continue
            away = False
            for order in self._concerned(changes):
                self._wake(order)
            if rung:
                self._closed.wait(_BETWEEN)

    def _concerned(self, changes: Changes | None) -> Iterable[_Order]:
        concerned: dict[_Order, None] = {}
        with self._lock:
            if changes is None:
                return [order for orders in self._orders.values() for order in orders]
            for key, came_or_went in changes:
                for path in (key, split(key)[0]):
                    for order in self._orders.get(path, ()):
                        if came_or_went or order.values:
                            concerned[order] = None
        return concerned

    def _wake(self, order: _Order) -> None:
        if order not in self._orders.get(order.path, ()):
            return
        try:
            order.notify()
        except Exception:  # noqa: BLE001  # It is the caller's own code, and the others are to be woken too.
            _LOG.exception("a watch's notify failed")
