"""The listener: a port that greets every caller, so that other members notice the death of this process."""

import errno
import json
import os
import selectors
import socket
import struct
import threading
import weakref
from contextlib import suppress
from queue import SimpleQueue
from typing import final

from smoothcluster.failure_detector.listen_address import ListenAddress
from smoothcluster.failure_detector.sockets import Wakeup, closed_first, keep_descriptors_apart, listen

_MOST_HELD = 64
"""Connections a listener holds.

A few members watch a listener. Beyond this number the listener resets the oldest connection, and the caller may dial
again.
"""

_ACCEPT_PAUSE_SECONDS = 0.1
"""Seconds for which a listener without free file descriptors leaves callers in the kernel's queue."""


@final
class Listener:
    """Greets every caller and holds the connection until this process ends.

    Without *where*, the listener uses the address by which this machine reaches other machines, or
    loopback if no other machine is reachable. Raise UsageError if *where* is no address of this machine,
    or if no port of *where* is free.

    The listener never waits for a client and reads nothing: a client that sends data is dropped. While the
    announced incarnation lives, the listener closes no greeted connection in order, but resets the connection.

    Construct the listener early. In a killed process the oldest threads tend to end first. Where the
    sockets can be kept apart, they close with the listener's thread. Otherwise they may close late,
    because the last thread to end frees the memory before.
    """

    def __init__(self, where: ListenAddress | None = None) -> None:
        self._where = where and where.resolved()
        self._greeting = b""
        self._held: dict[socket.socket, bytes] = {}  # each connection with the greeting sent to it
        self._wakeup = Wakeup()
        self._closing = False
        self._resting = False
        self._opened: SimpleQueue[tuple[str, int] | Exception] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="smoothcluster-listener", daemon=True)
        self._thread.start()
        opened = self._opened.get()
        if isinstance(opened, Exception):
            self._wakeup.close()
            raise opened
        self._address = opened
        _listeners.add(self)

    @property
    def address(self) -> tuple[str, int]:
        """Numeric host and port for other members to dial."""
        return self._address

    def announce(self, group: str, member: str, incarnation: str) -> None:
        """Greet with these names from now on, and drop held connections, so that watching members learn of the change.

        Watching members dial again. Where another incarnation was announced before, the new greeting
        proves at once that the earlier incarnation is over. Before the first announcement the listener
        greets nobody.
        """
        self._greeting = json.dumps({"group": group, "member": member, "incarnation": incarnation}).encode() + b"\n"
        self._wakeup.wake()

    def close(self) -> None:
        """Stop listening. Watching members take this for a death: give the lease back first. Repeatable."""
        self._closing = True
        self._wakeup.wake()
        self._thread.join()
        self._wakeup.close()

    def close_in_child(self) -> None:
        """Close this process's copies of the sockets after a fork; the parent's sockets stay open.

        Only descriptors are closed: the child shares the selector with the parent.
        """
        for each in () if self._apart else (self._socket, *self._held):
            each.close()
        self._wakeup.close()

    def _run(self) -> None:
        self._apart = keep_descriptors_apart(self._wakeup.socket.fileno())
        try:
            listening, published = listen(self._where)
            self._socket = closed_first(listening) if self._apart else listening
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._wakeup.socket, selectors.EVENT_READ)
            self._selector.register(self._socket, selectors.EVENT_READ)
        except Exception as error:  # noqa: BLE001  # the constructor raises it
            self._opened.put(error)
            return
        self._opened.put((published, int(self._socket.getsockname()[1])))
        self._serve()

    def _serve(self) -> None:
        while not self._closing:
            ready = self._selector.select(_ACCEPT_PAUSE_SECONDS if self._resting else None)
            if self._resting:
                self._resting = False
                self._selector.register(self._socket, selectors.EVENT_READ)
            for key, _ in ready:
                self._on_ready(key.fileobj)
        self._drop(list(self._held))
        self._selector.close()
        self._socket.close()

    def _on_ready(self, ready: object) -> None:
        if ready is self._socket:
            self._accept()
        elif ready is self._wakeup.socket:
            self._wakeup.clear()
            self._drop([caller for caller, told in self._held.items() if told != self._greeting])
        else:
            # Members never send data: the caller hung up, or is no member. Or an earlier event just dropped it.
            self._drop([caller for caller in self._held if caller is ready])

    def _accept(self) -> None:
        try:
            caller, _ = self._socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                # The caller stays in the kernel's queue, so the selector would report the socket at once, for ever.
                self._selector.unregister(self._socket)
                self._resting = True
            return
        caller.setblocking(False)
        greeting = self._greeting
        try:
            complete = caller.send(greeting) == len(greeting)
        except OSError:
            complete = False
        if not complete:
            caller.close()
            return
        self._held[caller] = greeting
        self._selector.register(caller, selectors.EVENT_READ)
        self._evict(list(self._held)[:-_MOST_HELD])

    def _evict(self, callers: list[socket.socket]) -> None:
        """Reset connections of a living incarnation: to a prober, an orderly close is half of the proof of a death."""
        for caller in callers:
            with suppress(OSError):  # The caller may be gone.
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._drop(callers)

    def _drop(self, callers: list[socket.socket]) -> None:
        for caller in callers:
            del self._held[caller]
            self._selector.unregister(caller)
            caller.close()


_listeners: "weakref.WeakSet[Listener]" = weakref.WeakSet()


def _close_in_child() -> None:
    # A handler may fork (multiprocessing does, on Linux, before Python 3.14). A child with the
    # port open would hide the death of the parent until the child ends, too.
    for listener in list(_listeners):
        listener.close_in_child()


os.register_at_fork(after_in_child=_close_in_child)
