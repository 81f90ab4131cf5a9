"""Watches, woken by the entries in the Redis stream of a part of the store.

A thread with a separate connection waits for new entries of the stream. Now and then the thread runs the
script to let time pass, because the lease clock advances only with commands. Each commit
adds an entry with the commit's number, so the thread notices trimmed entries. After trimmed entries, and after a
failover to another server, all watchers are woken.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, final

from redis.exceptions import RedisError

from smoothcluster.backend import Watch, check_key
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import BackendError, UnavailableError
from smoothcluster_redis.connection import CAP, Link
from smoothcluster_redis.servers import Servers

_LOG = logging.getLogger("smoothcluster_redis")

_PAUSE = 0.1
"""Seconds between two attempts to reach the store."""

_BLOCK = 0.4 * CAP
"""Seconds to wait for entries. The server checks the clock ten times a second, so a wait may last half a cap."""


@final
class _Order(Watch):
    def __init__(self, watches: "Watches", path: str, notify: Callable[[], None], *, values: bool) -> None:
        self._watches = watches
        self.path = path
        self.notify = notify
        self.values = values
        self.open = True

    def close(self) -> None:
        self.open = False
        self._watches.remove(self)


@final
class Watches:
    """All watches of a part of the store."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._changed = threading.Condition()
        self._orders: dict[str, dict[_Order, None]] = {}
        self._closed = servers.access.closed
        self._thread: threading.Thread | None = None
        self._store: bytes = b""
        self._seen = 0
        """The number of the last entry read from the stream."""

    def add(self, path: str, notify: Callable[[], None], *, values: bool) -> Watch:
        """Watch *path* from now on, or, if the store is unavailable, from the store's return on."""
        order = _Order(self, check_key(path), notify, values=values)
        with self._changed:
            if self._closed.is_set():
                raise UnavailableError("closed")
            self._orders.setdefault(path, {})[order] = None
            if self._thread is None or not self._thread.is_alive():
                self._store = b""
                self._thread = threading.Thread(target=self._run, name="smoothcluster-redis watches", daemon=True)
                self._thread.start()
            self._changed.notify()
        return order

    def remove(self, order: _Order) -> None:
        """End the watch *order*."""
        with self._changed:
            orders = self._orders.get(order.path, {})
            orders.pop(order, None)
            if not orders:
                self._orders.pop(order.path, None)

    def close(self) -> None:
        """End all watches and the thread."""
        with self._changed:
            self._closed.set()
            self._orders.clear()
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                link = self._servers.connect(SYSTEM_CLOCK.monotonic() + self._servers.timeout)
            except BackendError as error:
                _LOG.debug("watches: %s", error)
                self._closed.wait(_PAUSE)
                continue
            try:
                self._follow(link)
            except RedisError as error:
                _LOG.debug("watches: %s", self._servers.failed(link, error))
            finally:
                link.close()

    def _follow(self, link: Link) -> None:
        """Read the stream until the backend is closed or the connection fails."""
        looked = SYSTEM_CLOCK.monotonic()
        self._arrive(link)
        while self._wanted():
            deadline = SYSTEM_CLOCK.monotonic() + CAP + self._servers.timeout
            self._read(link.ask(deadline, *self._next()))
            if SYSTEM_CLOCK.monotonic() - looked >= _BLOCK:
                looked = SYSTEM_CLOCK.monotonic()
                link.identify(deadline, self._servers.prefix, "tick")
                self._arrive(link)

    def _arrive(self, link: Link) -> None:
        """Note the store's number if the store is another than before, and wake all watchers then."""
        if link.store != self._store:
            self._store = link.store
            self._seen = link.number
            with self._changed:
                everybody = self._all()
            self._wake(everybody)

    def _wanted(self) -> bool:
        """Wait until there is a watch. Return False if the backend is closed."""
        with self._changed:
            while not self._orders and not self._closed.is_set():
                self._changed.wait()
            return not self._closed.is_set()

    def _next(self) -> list[Any]:
        stream, after = f"{self._servers.prefix}stream", f"{self._seen}-0"
        return ["XREAD", "COUNT", 1000, "BLOCK", round(_BLOCK * 1000), "STREAMS", stream, after]

    def _read(self, answer: Any) -> None:
        woken: dict[_Order, None] = {}
        for _, entries in answer or ():
            for name, fields in entries:
                number = int(name.partition(b"-")[0])
                changes = _changes(fields) if number == self._seen + 1 else None
                self._seen = number
                with self._changed:
                    woken |= dict.fromkeys(self._all() if changes is None else self._concerned(changes))
        self._wake(woken)

    def _all(self) -> list[_Order]:
        return [order for orders in self._orders.values() for order in orders]

    def _concerned(self, changes: Iterable[str]) -> Iterable[_Order]:
        found: list[_Order] = []
        for change in changes:
            key, came_or_went = change[1:], change[0] == "+"
            for path in (key, key.rpartition("/")[0]):
                found += [order for order in self._orders.get(path, ()) if came_or_went or order.values]
        return found

    @staticmethod
    def _wake(orders: Iterable[_Order]) -> None:
        for order in orders:
            if order.open:
                order.notify()


def _changes(fields: list[bytes]) -> list[str] | None:
    """Return the changes in an entry; None if the entry was not written by smoothcluster."""
    try:
        _, changed = fields
        return changed.decode().split(" ")
    except ValueError:
        return None
