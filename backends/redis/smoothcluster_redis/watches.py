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
from smoothcluster.errors import BackendError
from smoothcluster.lifetime import notify_all
from smoothcluster_redis.connection import CLOCK_STEP_CAP_SECONDS, StoreConnection
from smoothcluster_redis.servers import Servers

_REDIS_LOG = logging.getLogger("smoothcluster_redis")

_RECONNECT_PAUSE_SECONDS = 0.1
"""Seconds between two attempts to reach the store."""

_READ_BLOCK_SECONDS = 0.4 * CLOCK_STEP_CAP_SECONDS
"""Seconds to wait for entries. The server checks the clock ten times a second, so a wait may last half a cap."""


@final
class _PathWatch(Watch):
    """A watch of the key and the directory at *path*."""

    def __init__(self, owner: "Watches", path: str, notify: Callable[[], None], *, values: bool) -> None:
        self._owner = owner
        self.path = path
        self.notify = notify
        self.values = values
        self.open = True

    def close(self) -> None:
        self.open = False
        self._owner.remove(self)


@final
class Watches:
    """All watches of a part of the store."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._changed = threading.Condition()
        self._watches: dict[str, dict[_PathWatch, None]] = {}
        self.count = 0
        """The number of open watches."""
        self._closed = servers.state.closed
        self._thread: threading.Thread | None = None
        self._followed: StoreConnection | None = None
        """The connection on which the thread reads the stream. `close` interrupts the connection."""
        self._store: bytes = b""
        self._seen = 0
        """The number of the last entry read from the stream."""

    def add(self, path: str, notify: Callable[[], None], *, values: bool) -> Watch:
        """Watch *path* from now on, or, if the store is unavailable, from the store's return on."""
        watch = _PathWatch(self, check_key(path), notify, values=values)
        lifetime = self._servers.state.lifetime
        lifetime.check()
        with self._changed:
            lifetime.check()  # `close` may have taken the watches since, to wake them.
            # No round trip is needed: the thread reads the stream from its position on, which no commit after this line
            # precedes. So the thread meets every later change with the watch registered.
            self._watches.setdefault(path, {})[watch] = None
            self.count += 1
            if self._thread is None or not self._thread.is_alive():
                # A new thread has no position in the stream: an unknown store makes `_check_store` take one.
                self._store = b""
                self._thread = threading.Thread(target=self._run, name="smoothcluster-redis watches", daemon=True)
                self._thread.start()
            self._changed.notify()
        return watch

    def remove(self, watch: _PathWatch) -> None:
        """End *watch*."""
        if not self._servers.state.lifetime.in_own_process:
            return  # In a forked child the lock may be held for ever.
        with self._changed:
            watches = self._watches.get(watch.path, {})
            self.count -= watch in watches
            watches.pop(watch, None)
            if not watches:
                self._watches.pop(watch.path, None)

    def close(self) -> None:
        """End the thread and all watches of a client with an ended lifetime. Wake each watch for the last time."""
        with self._changed:
            watches, self._watches = self._all_watches(), {}
            self._changed.notify()
            if self._followed is not None:  # The thread may be waiting for an entry, or for a server that is silent.
                self._followed.interrupt()
        notify_all(watch.notify for watch in watches)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                connection = self._servers.connect(SYSTEM_CLOCK.monotonic() + self._servers.timeout)
            except BackendError as error:
                _REDIS_LOG.debug("watches: %s", error)
                self._closed.wait(_RECONNECT_PAUSE_SECONDS)
                continue
            try:
                self._follow_stream(connection)
            except RedisError as error:
                _REDIS_LOG.debug("watches: %s", self._servers.drop_failed(connection, error))
            finally:
                connection.close()

    def _follow_stream(self, connection: StoreConnection) -> None:
        """Read the stream until the backend is closed or the connection fails."""
        with self._changed:
            self._followed = connection  # After a `close` before this line, `_wait_for_watches` is False.
        try:
            self._read_stream(connection)
        finally:
            with self._changed:  # Before the caller closes the connection: its descriptor may then be another file's.
                self._followed = None

    def _read_stream(self, connection: StoreConnection) -> None:
        looked = SYSTEM_CLOCK.monotonic()
        self._check_store(connection)
        while self._wait_for_watches():
            deadline = SYSTEM_CLOCK.monotonic() + CLOCK_STEP_CAP_SECONDS + self._servers.timeout
            self._process(connection.request(deadline, *self._read_command()))
            if SYSTEM_CLOCK.monotonic() - looked >= _READ_BLOCK_SECONDS:
                looked = SYSTEM_CLOCK.monotonic()
                connection.identify(deadline, self._servers.prefix, "tick")
                self._check_store(connection)

    def _check_store(self, connection: StoreConnection) -> None:
        """Note the store's number if the store is another than before, and wake all watchers then."""
        if connection.store != self._store:
            self._store = connection.store
            # The position first, then the wake-up: an owner who reads after the wake-up sees every commit up to this
            # number, and the stream shows the later ones. In the other order, commits in between would stay unnoticed.
            self._seen = connection.number
            with self._changed:
                everyone = self._all_watches()
            self._wake(everyone)

    def _wait_for_watches(self) -> bool:
        """Wait until there is a watch. Return False if the backend is closed."""
        with self._changed:
            while not self._watches and not self._closed.is_set():
                self._changed.wait()
            return not self._closed.is_set()

    def _read_command(self) -> list[Any]:
        stream, after = f"{self._servers.prefix}stream", f"{self._seen}-0"
        return ["XREAD", "COUNT", 1000, "BLOCK", round(_READ_BLOCK_SECONDS * 1000), "STREAMS", stream, after]

    def _process(self, answer: Any) -> None:
        woken: dict[_PathWatch, None] = {}
        for _, entries in answer or ():
            for name, fields in entries:
                number = int(name.partition(b"-")[0])
                # Without gaps, every number appears. After a gap, entries were trimmed before this thread read them.
                changes = _changes(fields) if number == self._seen + 1 else None
                self._seen = number
                with self._changed:
                    woken |= dict.fromkeys(self._all_watches() if changes is None else self._affected(changes))
        self._wake(woken)

    def _all_watches(self) -> list[_PathWatch]:
        return [watch for watches in self._watches.values() for watch in watches]

    def _affected(self, changes: Iterable[str]) -> Iterable[_PathWatch]:
        found: list[_PathWatch] = []
        for change in changes:
            key, came_or_went = change[1:], change[0] == "+"
            for path in (key, key.rpartition("/")[0]):
                found += [watch for watch in self._watches.get(path, ()) if came_or_went or watch.values]
        return found

    @staticmethod
    def _wake(watches: Iterable[_PathWatch]) -> None:
        for watch in watches:
            if watch.open:
                watch.notify()


def _changes(fields: list[bytes]) -> list[str] | None:
    """Return the changes in an entry; None if the entry was not written by smoothcluster."""
    try:
        _, changed = fields
        return changed.decode().split(" ")
    except ValueError:
        return None
