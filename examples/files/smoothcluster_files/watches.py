"""Watches, woken by a thread that polls the store."""

import threading
from collections.abc import Callable
from typing import final

from smoothcluster.backend import Watch, check_key
from smoothcluster.errors import BackendError
from smoothcluster.lifetime import notify_all
from smoothcluster_files.folder import Folder
from smoothcluster_files.state import State

_POLL_SECONDS = 0.01
"""Seconds between two polls."""


@final
class _Order(Watch):
    def __init__(self, watches: "Watches", path: str, notify: Callable[[], None], *, values: bool) -> None:
        self._watches = watches
        self.path, self.notify, self.values = path, notify, values
        self.seen: object = None

    def close(self) -> None:
        self._watches.remove(self)

    def update(self, state: State) -> bool:
        """Whether the watched path has changed since the last look."""
        before, self.seen = self.seen, state.print_of(self.path, values=self.values)
        return self.seen != before


@final
class Watches:
    """All watches of a backend."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._orders: dict[_Order, None] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def count(self) -> int:
        """The number of open watches."""
        return len(self._orders)

    def add(self, path: str, notify: Callable[[], None], *, values: bool) -> Watch:
        """Watch *path* from now on, or, if the store is unavailable, from the store's return on."""
        order = _Order(self, check_key(path), notify, values=values)
        try:
            order.update(self._folder.read())
        except BackendError:
            self._folder.lifetime.check()  # If the store is only unavailable, its return wakes the owner.
        with self._lock:
            self._folder.lifetime.check()  # `close` may have taken the orders since, to wake them.
            self._orders[order] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="smoothcluster-files watches", daemon=True)
                self._thread.start()
        return order

    def remove(self, order: _Order) -> None:
        """End the watch *order*."""
        if not self._folder.lifetime.in_own_process:
            return  # In a forked child the lock may be held for ever.
        with self._lock:
            self._orders.pop(order, None)

    def close(self) -> None:
        """End the thread and all watches of a client with an ended lifetime. Wake each watch for the last time."""
        self._closed.set()
        with self._lock:
            orders, self._orders = self._orders, {}
        notify_all(order.notify for order in orders)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(_POLL_SECONDS):
            try:
                state = self._folder.read()
            except BackendError:
                continue  # The next successful look sees the changes made meanwhile.
            with self._lock:
                woken = [order for order in self._orders if order.update(state)]
            for order in woken:
                order.notify()
