"""Wake-up sockets: a process that commits a change wakes all waiting processes at once.

Each backend has a socket, and writes the socket's name into the file, into the table ``bells``. After each commit the
backend sends an empty message to all the sockets. The message means only "read the file": a message from a
stranger does no harm, and a lost message costs little time, because every backend polls, too.
"""

import os
import secrets
import select
import socket
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from typing import final

_NETWORK_NAMESPACE = str(os.stat("/proc/self/ns/net").st_ino)  # noqa: PTH116  # a link without a target, but with an inode number
"""The network namespace, in which names of sockets are valid: containers that share a file may have several."""


def wakeup_sockets(connection: sqlite3.Connection) -> list[str]:
    """Return the names of all wake-up sockets in the network namespace of this process."""
    return [name for (name,) in connection.execute("SELECT name FROM bells WHERE network = ?", (_NETWORK_NAMESPACE,))]


@final
class WakeupSocket:
    """The socket of a backend, which receives wake-ups and sends wake-ups to the other sockets."""

    def __init__(self) -> None:
        self.name = f"smoothcluster-{secrets.token_hex(8)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(f"\0{self.name}")  # Not in the file system: the kernel removes the name with the process.

    def publish(self, connection: sqlite3.Connection) -> None:
        """Write the socket's name into the file, for the other processes."""
        connection.execute("INSERT OR IGNORE INTO bells VALUES (?, ?)", (self.name, _NETWORK_NAMESPACE))

    def wait(self, seconds: float) -> bool:
        """Wait for a wake-up, for at most *seconds*. Return whether a wake-up arrived."""
        woken = bool(select.select([self._socket], [], [], seconds)[0])
        # Emptied before the caller reads the file: a message that arrives during the read leads to another read.
        with suppress(BlockingIOError):
            while woken:
                self._socket.recv(1)
        return woken

    def wake(self, names: Iterable[str]) -> list[str]:
        """Wake the sockets *names*. Return the names whose owners are gone."""
        gone: list[str] = []
        for name in names:
            try:
                self._socket.sendto(b"", f"\0{name}")
            except ConnectionRefusedError:
                gone.append(name)
            except OSError:
                pass  # The socket's queue is full of unread messages: the owner polls anyway.
        return gone

    def wake_self(self) -> None:
        """Wake the thread that waits on this socket."""
        with suppress(OSError):
            self._socket.sendto(b"", f"\0{self.name}")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def unpublish_sockets(connection: sqlite3.Connection, names: Iterable[str]) -> None:
    """Remove the sockets *names* from the file."""
    connection.executemany("DELETE FROM bells WHERE name = ?", [(name,) for name in names])
