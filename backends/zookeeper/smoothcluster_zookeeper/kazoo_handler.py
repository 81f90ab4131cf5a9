"""Threads, sockets and waiting for kazoo: one daemon thread per session, and a close that ends the thread.

kazoo takes threads, sockets and waiting from a *handler*. kazoo's own handler starts three threads per client,
makes an epoll object for every wait, ignores data already decrypted by TLS, and cannot stop during
an attempt to connect. Callbacks run in the session's thread: they must not block.
"""

import select
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, final

from kazoo.handlers.threading import AsyncResult, KazooTimeoutError

_READABLE_EVENTS = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLNVAL
_WRITABLE_EVENTS = select.POLLOUT | select.POLLHUP | select.POLLERR | select.POLLNVAL


@final
class Handler:
    """Implementation of kazoo's IHandler, with the additional methods `drop` and `abandon`."""

    name = "smoothcluster"
    timeout_exception = KazooTimeoutError
    running = False  # No completion thread exists: results call back at once.

    event_object = staticmethod(threading.Event)
    lock_object = staticmethod(threading.Lock)
    rlock_object = staticmethod(threading.RLock)
    create_socket_pair = staticmethod(socket.socketpair)

    def __init__(self, name: str, connect_timeout: float, tls: ssl.SSLContext | None) -> None:
        self._name = name
        self._connect_timeout = connect_timeout
        self._tls = tls
        self._socket: socket.socket | None = None
        self._abandoned = threading.Event()
        self.sleep_func = self._abandoned.wait
        self.thread: threading.Thread | None = None
        self.async_result = partial(AsyncResult, self)

    def start(self) -> None:
        """Nothing to start: callbacks need no threads."""

    def stop(self) -> None:
        """Nothing to stop."""

    def spawn(self, func: Callable[[], object]) -> threading.Thread:
        """Run kazoo's connection loop."""
        self.thread = threading.Thread(target=func, name=self._name, daemon=True)
        self.thread.start()
        return self.thread

    def dispatch_callback(self, callback: Any) -> None:
        """Call back for a fired watch."""
        callback.func(*callback.args)

    def create_connection(self, address: tuple[str, int], hostname: str, **_: object) -> socket.socket:
        """Connect within the library's own time limit: kazoo allows the whole session time for each address."""
        connection = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        # Noted before the check, while `abandon` sets the flag before breaking the noted socket: one of the two threads
        # sees the other.
        self._socket = connection
        try:
            if self._abandoned.is_set():
                raise ConnectionAbortedError("closed")
            connection.settimeout(self._connect_timeout)
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connection = self._socket = self._tls.wrap_socket(connection, server_hostname=hostname)
        except BaseException:
            connection.close()
            raise
        return connection

    def select(
        self,
        readers: Sequence[socket.socket],
        writers: Sequence[socket.socket],
        _: Sequence[socket.socket],
        timeout: float | None = None,
    ) -> tuple[list[socket.socket], list[socket.socket], list[socket.socket]]:
        """Wait as `select.select` does, for any number of descriptors, and include data held back by TLS."""
        if self._abandoned.is_set():
            raise ConnectionAbortedError("closed")
        held = [reader for reader in readers if isinstance(reader, ssl.SSLSocket) and reader.pending()]
        poll = select.poll()
        for wanted, event in ((readers, select.POLLIN), (writers, select.POLLOUT)):
            for each in wanted:
                if each.fileno() < 0:
                    raise ConnectionAbortedError("closed")
                poll.register(each, event)
        ready = dict(poll.poll(0 if held else None if timeout is None else timeout * 1000))
        return (
            [each for each in readers if each in held or ready.get(each.fileno(), 0) & _READABLE_EVENTS],
            [each for each in writers if ready.get(each.fileno(), 0) & _WRITABLE_EVENTS],
            [],
        )

    def drop(self) -> None:
        """Break the connection, so that kazoo connects again, perhaps to another server."""
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # The connection is broken already.

    def abandon(self) -> None:
        """Break the connection at any point of the thread's work, and prevent new connections."""
        self._abandoned.set()
        self.drop()
