"""A connection to the sqlite file, for use by a single thread at a time. Every wait has a deadline."""

import os
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TypeVar, final

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import BackendClosedError, OutcomeUnknownError, UnavailableError
from smoothcluster_sqlite.errors import is_busy, translate_error
from smoothcluster_sqlite.file import Inode, StoreFile

Answer = TypeVar("Answer")

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.0002, 0.01
"""Seconds between two attempts on a locked file: first and longest. sqlite's own pauses grow to a tenth of a second."""


@final
class FileConnection:
    """A connection to the file, opened on first use, and again when another file appears at the path.

    With *durable*, acknowledged writes survive a crash of the machine. Without *durable*, they survive
    only crashes of processes, and no write waits for the disk.
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
        """Return the result of *act*, whose statements all read the same snapshot."""

        def attempt(connection: sqlite3.Connection) -> Answer:
            try:
                connection.execute("BEGIN")
                return act(connection)
            finally:
                _roll_back(connection)

        return self.peek(attempt, deadline)

    def peek(self, act: Callable[[sqlite3.Connection], Answer], deadline: float) -> Answer:
        """Return the result of *act*, whose statements read a snapshot each, at less cost than `read`."""
        with self._locked(deadline) as connection:
            return _retry_while_locked(lambda: act(connection), deadline)

    def write(
        self,
        act: Callable[[sqlite3.Connection], Answer],
        deadline: float,
        prepare: Callable[[sqlite3.Connection], object] | None = None,
        lasts: Callable[[Answer], object] = bool,
    ) -> Answer:
        """Run *act*, a single writing statement. *prepare* runs first and must write nothing to the file.

        On a durable connection, the write is on the disk when this method returns, if *lasts* is true of the answer.
        """
        with self._locked(deadline) as connection:
            try:
                if prepare:
                    prepare(connection)
                answer = _retry_while_locked(lambda: act(connection), deadline)
                # Before the acknowledgement. Other processes may see the commit earlier, while the disk is writing.
                if self._durable and lasts(answer):
                    # sqlite itself would keep the file locked until the disk has answered.
                    os.fdatasync(self._log)
            except sqlite3.Error as error:
                raise translate_error(error, self._file.path, writing=True) from error
            except OSError as error:
                raise OutcomeUnknownError(f"{self._file.url}: {error.strerror}") from error
            return answer

    @contextmanager
    def _locked(self, deadline: float) -> Generator[sqlite3.Connection]:
        self._file.check_not_inherited()
        if not self._lock.acquire(timeout=max(0.0, deadline - SYSTEM_CLOCK.monotonic())):
            raise UnavailableError(
                f"{self._file.url}: another thread of this process has held the connection for too long"
            )
        try:
            yield self._ensure_open(deadline)
        except sqlite3.Error as error:
            raise translate_error(error, self._file.path) from error
        finally:
            self._lock.release()

    def _ensure_open(self, deadline: float) -> sqlite3.Connection:
        if self._closed:
            raise BackendClosedError(f"this client of {self._file.url} is closed")
        if self._connection is None or self._inode != self._file.inode():
            self._drop()
            self._connection, self._inode = _retry_while_locked(self._file.open, deadline)
            if self._durable:
                self._log = self._open_log()
        return self._connection

    def _open_log(self) -> int:
        """Open the write-ahead log, which stays the same file while any process has a connection."""
        try:
            return os.open(f"{self._file.path}-wal", os.O_RDONLY)
        except OSError as error:
            self._drop()  # Without the log no write can be made durable.
            raise UnavailableError(f"{self._file.url}: the write-ahead log is gone: {error.strerror}") from error

    def _drop(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._file.close(connection)
            if self._log >= 0:
                os.close(self._log)
                self._log = -1

    def close(self, deadline: float) -> None:
        """Close the connection when no thread uses it any more; leave it open at the deadline. Repeatable."""
        self._closed = True
        if self._lock.acquire(timeout=max(0.0, deadline - SYSTEM_CLOCK.monotonic())):
            try:
                self._drop()
            finally:
                self._lock.release()


def _retry_while_locked(act: Callable[[], Answer], deadline: float) -> Answer:
    """Call *act* again and again while the file is locked, until the deadline."""
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return act()
        except sqlite3.Error as error:
            left = deadline - SYSTEM_CLOCK.monotonic()
            if not is_busy(error) or left <= 0:
                raise
            SYSTEM_CLOCK.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)


def _roll_back(connection: sqlite3.Connection) -> None:
    # Often no transaction is open: it was committed, or sqlite itself rolled it back after an error.
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
