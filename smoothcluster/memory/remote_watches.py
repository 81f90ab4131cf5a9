"""Watches on a store behind a socket: orders at the server, on a connection for watches only.

One thread listens on the connection. The server answers an order once the order stands, so a client that reads
after the answer misses nothing; each further message about the order is a wake-up. After a lost connection, the
client repeats all orders on a new connection. Each order wakes then, because changes may have been missed.
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
from smoothcluster.memory.connections import Link
from smoothcluster.memory.wire import frame

_log = logging.getLogger(__name__)

_PAUSE = 0.05
"""Seconds between two attempts to reach the server."""


@final
class Order(Watch):
    """A watch, with the number shared by client and server."""

    def __init__(self, orders: "Orders", number: int, path: str, notify: Callable[[], None], *, values: bool) -> None:
        self._orders = orders
        self.number = number
        self.words = (number, check_key(path), values)
        self.notify = notify
        self.stands = threading.Event()
        """Set after the first answer, or if no answer will come before a new connection."""

    def close(self) -> None:
        self._orders.remove(self)


@final
class Orders:
    """All watches of a client."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._path, self._timeout = path, timeout
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._orders: dict[int, Order] = {}
        self._link: Link | None = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def add(self, path: str, notify: Callable[[], None], *, values: bool) -> Watch:
        """Add a watch, as in `CoordinationBackend.watch`."""
        order = Order(self, next(self._numbers), path, notify, values=values)
        with self._lock:
            if self._closed.is_set():
                raise UnavailableError(f"this client of memory://{self._path} is closed")
            self._orders[order.number] = order
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="smoothcluster-memory-watches", daemon=True)
                self._thread.start()
            elif self._link is None:
                order.stands.set()
            else:
                self._say("watch", [order.words])
        order.stands.wait(self._timeout)
        order.stands.set()
        return order

    def remove(self, order: Order) -> None:
        """End the wake-ups of *order*."""
        with self._lock:
            if self._orders.pop(order.number, None) is not None:
                self._say("unwatch", order.number)

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            self._orders.clear()
            self._hang_up()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._listen(Link(self._path, SYSTEM_CLOCK.monotonic() + self._timeout))
            except (UnavailableError, OSError, ValueError, TypeError) as error:
                _log.debug("watches of memory://%s: %s", self._path, error)
            self._lost()
            self._closed.wait(_PAUSE)

    def _listen(self, link: Link) -> None:
        with self._lock:
            self._link = link
            link.socket.sendall(frame(["watch", [order.words for order in self._orders.values()]]))
            link.socket.settimeout(None)
        while not self._closed.is_set():
            for heard in link.hear(None):
                for number in heard.words:
                    self._heard(number)

    def _heard(self, number: int) -> None:
        order = self._orders.get(number)
        if order is not None and order.stands.is_set():
            order.notify()
        elif order is not None:
            order.stands.set()

    def _lost(self) -> None:
        with self._lock:
            if self._link is not None:
                self._link.close()
            self._link = None
            for order in self._orders.values():
                order.stands.set()

    def _say(self, *words: object) -> None:
        if self._link is None:
            return
        whole, sent = frame(words), 0
        with suppress(OSError):
            sent = self._link.socket.send(whole, socket.MSG_DONTWAIT)
        if sent < len(whole):
            self._hang_up()  # The server is stuck, or gone. The client repeats all orders on the next connection.

    def _hang_up(self) -> None:
        if self._link is not None:
            with suppress(OSError):
                self._link.socket.shutdown(socket.SHUT_RDWR)
