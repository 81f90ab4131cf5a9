"""Watches on a store behind a socket: registered at the server, on a connection for watches only.

One thread listens on the connection. The server confirms a watch once the watch is registered there, so a client
that reads after the confirmation misses nothing; each further message about the watch is a wake-up. After a lost
connection, the client repeats all watches on a new connection. Each watch wakes then, because changes may have been
missed.
"""

import itertools
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import final

from smoothcluster.backend import Watch, check_key
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import UnavailableError
from smoothcluster.lifetime import ClientLifetime, notify_all
from smoothcluster.memory.connections import Connection
from smoothcluster.memory.wire import frame

_log = logging.getLogger(__name__)

_RECONNECT_PAUSE_SECONDS = 0.05
"""Seconds between two attempts to reach the server."""


@final
class RemoteWatch(Watch):
    """A watch, with the number shared by client and server."""

    def __init__(
        self, owner: "RemoteWatches", number: int, path: str, notify: Callable[[], None], *, values: bool
    ) -> None:
        self._owner = owner
        self.number = number
        self.words = (number, check_key(path), values)
        self.notify = notify
        self.confirmed = threading.Event()
        """Set after the first answer, or if no answer will come before a new connection."""

    def close(self) -> None:
        self._owner.remove(self)


@final
class RemoteWatches:
    """All watches of a client."""

    def __init__(self, path: Path, timeout: float, lifetime: ClientLifetime) -> None:
        self._path, self._timeout, self._lifetime = path, timeout, lifetime
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._watches: dict[int, RemoteWatch] = {}
        self._connection: Connection | None = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @property
    def count(self) -> int:
        """The number of open watches."""
        return len(self._watches)

    def add(self, path: str, notify: Callable[[], None], *, values: bool) -> Watch:
        """Add a watch, as in `CoordinationBackend.watch`."""
        self._lifetime.check_process()
        watch = RemoteWatch(self, next(self._numbers), path, notify, values=values)
        # Under one lock: either `_receive` finds the watch and sends it with all others, or this method sends the watch
        # on the connection that `_receive` has set.
        with self._lock:
            self._lifetime.check()
            self._watches[watch.number] = watch
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="smoothcluster-memory-watches", daemon=True)
                self._thread.start()
            elif self._connection is None:  # No confirmation can come now. The next connection wakes the watch.
                watch.confirmed.set()
            else:
                self._send("watch", [watch.words])
        watch.confirmed.wait(self._timeout)
        watch.confirmed.set()
        return watch

    def remove(self, watch: RemoteWatch) -> None:
        """End the wake-ups of *watch*."""
        if not self._lifetime.in_own_process:
            return  # The connection is the parent's, and the lock may be held for ever.
        with self._lock:
            if self._watches.pop(watch.number, None) is not None:
                self._send("unwatch", watch.number)

    def close(self) -> None:
        """End the thread and all watches of a client with an ended lifetime. Wake each watch for the last time."""
        with self._lock:
            self._closed.set()
            watches, self._watches = self._watches, {}
            self._shut_down()
        for watch in watches.values():
            watch.confirmed.set()  # A thread in `add` may be waiting for the confirmation.
        notify_all(watch.notify for watch in watches.values())
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._receive(Connection(self._path, SYSTEM_CLOCK.monotonic() + self._timeout))
            except (UnavailableError, OSError, ValueError, TypeError) as error:
                _log.debug("watches of memory://%s: %s", self._path, error)
            self._on_connection_lost()
            self._closed.wait(_RECONNECT_PAUSE_SECONDS)

    def _receive(self, connection: Connection) -> None:
        with self._lock:
            self._connection = connection
            connection.socket.sendall(frame(["watch", [watch.words for watch in self._watches.values()]]))
            connection.socket.settimeout(None)
        while not self._closed.is_set():
            for heard in connection.receive(None):
                for number in heard.words:
                    self._on_message(number)

    def _on_message(self, number: int) -> None:
        watch = self._watches.get(number)
        # After a lost connection the watch counts as confirmed. So the confirmation on the next connection wakes the
        # owner: changes may have been missed.
        if watch is not None and watch.confirmed.is_set():
            watch.notify()
        elif watch is not None:
            watch.confirmed.set()

    def _on_connection_lost(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            for watch in self._watches.values():
                watch.confirmed.set()

    def _send(self, *words: object) -> None:
        if self._connection is None:
            return
        whole, sent = frame(words), 0
        with suppress(OSError):
            sent = self._connection.socket.send(whole, socket.MSG_DONTWAIT)
        if sent < len(whole):
            self._shut_down()  # The server is stuck, or gone. The client repeats all watches on the next connection.

    def _shut_down(self) -> None:
        if self._connection is not None:
            with suppress(OSError):
                self._connection.socket.shutdown(socket.SHUT_RDWR)
