"""Bells: a process that has changed something wakes those that wait, at once.

Each backend has a socket whose name it writes into the file. Whoever commits sends an empty message to
each. What comes in has no meaning but "look": anybody may ring, and a message that is lost costs
a little time, for everybody looks now and then without being woken.
"""

import os
import secrets
import select
import socket
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from typing import final

_NETWORK = str(os.stat("/proc/self/ns/net").st_ino)  # noqa: PTH116  # a link to nowhere that has a number
"""Names mean something within one network namespace: containers may share a file and have several."""


def bells(connection: sqlite3.Connection) -> list[str]:
    """The names of all that can be heard from here."""
    return [name for (name,) in connection.execute("SELECT name FROM bells WHERE network = ?", (_NETWORK,))]


@final
class Bell:
    """One backend's own, and its means to ring the others'."""

    def __init__(self) -> None:
        self.name = f"smoothcluster-{secrets.token_hex(8)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(f"\0{self.name}")  # No file: the kernel forgets it with the process.

    def hang(self, connection: sqlite3.Connection) -> None:
        """Let others know its name."""
        connection.execute("INSERT OR IGNORE INTO bells VALUES (?, ?)", (self.name, _NETWORK))

    def wait(self, seconds: float) -> bool:
        """Until it rings, or so long; whether it rang."""
        rung = bool(select.select([self._socket], [], [], seconds)[0])
        with suppress(BlockingIOError):
            while rung:
                self._socket.recv(1)
        return rung

    def ring(self, names: Iterable[str]) -> list[str]:
        """Ring these; return those whose owners are gone."""
        gone: list[str] = []
        for name in names:
            try:
                self._socket.sendto(b"", f"\0{name}")
            except ConnectionRefusedError:
                gone.append(name)
            except OSError:
                pass  # It has not been listened to for long: it will look by itself.
        return gone

    def wake(self) -> None:
        """Ring it oneself."""
        with suppress(OSError):
            self._socket.sendto(b"", f"\0{self.name}")

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()


def take_down(connection: sqlite3.Connection, names: Iterable[str]) -> None:
    """Forget bells."""
    connection.executemany("DELETE FROM bells WHERE name = ?", [(name,) for name in names])
