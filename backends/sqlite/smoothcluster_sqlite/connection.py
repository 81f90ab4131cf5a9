"""One connection to the file, for one thread at a time; every wait has an end."""

import os
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TypeVar, final

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import OutcomeUnknownError, UnavailableError
from smoothcluster_sqlite.errors import is_busy, translate
from smoothcluster_sqlite.file import Inode, StoreFile

Answer = TypeVar("Answer")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.0002, 0.01
"""Seconds between two tries at a file that somebody else has. sqlite's own pauses grow to a tenth of a second."""


@final
class Link:
    """Opened when it is first used, and again when another file has taken its path.

    With *durable*, what was acknowledged survives the machine's crash; without, only that of all
    processes, but nothing waits for the disk.
    """

    def __init__(self, file: StoreFile, *, durable: bool = False) -> None:
        self._file = file
        self._durable = durable
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode: Inode | None = None
        self._log = -1
        self._closed = False

    def read(self, act: Callable[[sqlite3.Connection], Answer], deadline: float) -> Answer:
        """What *act* finds, all as of one moment."""

        def attempt(connection: sqlite3.Connection) -> Answer:
            try:
                connection.execute("BEGIN")
                return act(connection)
            finally:
                _roll_back(connection)

        return self.peek(attempt, deadline)

    def peek(self, act: Callable[[sqlite3.Connection], Answer], deadline: float) -> Answer:
        """What *act* finds, each statement as of its own moment: that costs less."""
        with self._held(deadline) as connection:
            return _patiently(lambda: act(connection), deadline)

    def write(
        self,
        act: Callable[[sqlite3.Connection], Answer],
        deadline: float,
        prepare: Callable[[sqlite3.Connection], object] | None = None,
        lasts: Callable[[Answer], object] = bool,
    ) -> Answer:
        """Do *act*, which is one statement that writes; *prepare* comes before it and writes nothing to the file.

        If durable, and what it did *lasts*, that is on the disk when this returns.
        """
        with self._held(deadline) as connection:
            try:
                if prepare:
                    prepare(connection)
                answer = _patiently(lambda: act(connection), deadline)
                if self._durable and lasts(answer):
                    # Not by sqlite, which would keep the file locked until the disk has answered.
                    os.fdatasync(self._log)
            except sqlite3.Error as error:
                raise translate(error, self._file.path, writing=True) from error
            except OSError as error:
                raise OutcomeUnknownError(f"{self._file.url}: {error.strerror}") from error
            return answer

    @contextmanager
    def _held(self, deadline: float) -> Generator[sqlite3.Connection]:
        self._file.check_not_inherited()
        if not self._lock.acquire(timeout=max(0.0, deadline - SYSTEM_CLOCK.monotonic())):
            raise UnavailableError(f"{self._file.url}: another thread has been waiting for it too long")
        try:
            yield self._opened(deadline)
        except sqlite3.Error as error:
            raise translate(error, self._file.path) from error
        finally:
            self._lock.release()

    def _opened(self, deadline: float) -> sqlite3.Connection:
        if self._closed:
            raise UnavailableError(f"this client of {self._file.url} is closed")
        if self._connection is None or self._inode != self._file.inode():
            self._drop()
            self._connection, self._inode = _patiently(self._file.open, deadline)
            if self._durable:
                self._log = self._opened_log()
        return self._connection

    def _opened_log(self) -> int:
        """The log, which stays the same file for as long as anybody has a connection."""
        try:
            return os.open(f"{self._file.path}-wal", os.O_RDONLY)
        except OSError as error:
            self._drop()  # Without it nothing could be made durable.
            raise UnavailableError(f"{self._file.url}: its log is gone: {error.strerror}") from error

    def _drop(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._file.close(connection)
            if self._log >= 0:
                os.close(self._log)
                self._log = -1

    def close(self, deadline: float) -> None:
        """End it, once whoever uses it is done; it is left to itself if that takes too long. Repeatable."""
        self._closed = True
        if self._lock.acquire(timeout=max(0.0, deadline - SYSTEM_CLOCK.monotonic())):
            try:
                self._drop()
            finally:
                self._lock.release()


def _patiently(act: Callable[[], Answer], deadline: float) -> Answer:
    """Call *act*, again and again while somebody else has the file, until it is too late."""
    pause = _FIRST_PAUSE
    while True:
        try:
            return act()
        except sqlite3.Error as error:
            left = deadline - SYSTEM_CLOCK.monotonic()
            if not is_busy(error) or left <= 0:
                raise
            SYSTEM_CLOCK.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)


def _roll_back(connection: sqlite3.Connection) -> None:
    # Often nothing is left to undo: committed, or undone by sqlite itself after an error.
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
