"""The sqlite file: creates, checks and opens the file, and detects when another file has replaced it.

The danger: when a process closes any handle of a file, the kernel drops all locks of the process on the
file. So while a connection lives, only sqlite may open the file.
"""

import os
import secrets
import sqlite3
from contextlib import suppress
from pathlib import Path
from shutil import disk_usage
from typing import final
from urllib.parse import quote

from smoothcluster.backend import StoreUsage
from smoothcluster.errors import AccessDeniedError, BackendError, UnavailableError, UsageError
from smoothcluster.lifetime import SPAWN_ADVICE, keep_alive
from smoothcluster.timeline import Mark, Timeline
from smoothcluster_sqlite.access import find_exposure
from smoothcluster_sqlite.address import URL_PREFIX, check_shared_here, default_path, make_folder
from smoothcluster_sqlite.transaction import TRANSACTION_SCRIPT

Inode = tuple[int, int]

LARGEST_VALUE = 1_000_000

_APPLICATION_ID, _FORMAT_VERSION = 0x736D6363, 1
"""The application id and version, which sqlite keeps in the file's header: the tool `file` shows the id."""

# `leases.granted` holds the granted seconds and, after spaces, the time and the boot of the last renewal, as a text.
_CREATE_TABLES = """
CREATE TABLE clock (number INTEGER NOT NULL, time REAL NOT NULL, seen REAL NOT NULL, boot TEXT NOT NULL,
                    store TEXT NOT NULL);
CREATE TABLE leases (id TEXT PRIMARY KEY, granted REAL NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (directory TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL,
                      created INTEGER NOT NULL, lease TEXT, UNIQUE (directory, name));
CREATE INDEX leased ON entries (lease) WHERE lease IS NOT NULL;
CREATE TABLE bells (name TEXT PRIMARY KEY, network TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE changes (number INTEGER, key TEXT, came_or_went INTEGER NOT NULL, PRIMARY KEY (number, key)) WITHOUT ROWID;
"""

_open: dict[sqlite3.Connection, Inode] = {}
_inherited: dict[sqlite3.Connection, Inode] = {}
"""Connections inherited from the parent by a fork. They stay alive: a close would drop locks, or wait for some."""


def _note_inherited() -> None:
    for connection in _open:
        keep_alive(connection)
    _inherited.update(_open)
    _open.clear()


os.register_at_fork(after_in_child=_note_inherited)


@final
class StoreFile:
    """The store at *path*, or at the default path of this user if *path* is None."""

    def __init__(self, path: Path | None) -> None:
        self._is_default = path is None
        # Absolute: the process may change to another folder.
        try:
            self.path = str((path or default_path()).absolute())
        except FileNotFoundError:
            raise UsageError(
                f"{path} is relative to a deleted folder; go to another folder, or give the whole path"
            ) from None
        self.url = f"{URL_PREFIX}/{self.path}"
        self._known = False
        """Whether the store has been open before: then the store is not created again."""
        self._inode = 0
        self.timeline = Timeline()
        """The numbers of the known commits. An older copy of the file has a lower number, another file another id."""

    def inode(self) -> Inode:
        """Return the device and inode of the file at the path now. Raise UnavailableError if there is none."""
        try:
            found = os.stat(self.path)  # noqa: PTH116  # before each transaction: several times faster than Path.stat
        except OSError as error:
            raise UnavailableError(f"{self.url} is gone: {error.strerror}; the file was moved or deleted") from error
        return found.st_dev, found.st_ino

    def usage(self) -> StoreUsage | None:
        """Return how full the disk is, for the file and sqlite's files beside the file."""
        used = 0
        for path in (self.path, f"{self.path}-wal"):
            with suppress(FileNotFoundError):  # sqlite deletes the second file now and then.
                used += Path(path).stat().st_size
        try:
            return StoreUsage(used, used + disk_usage(Path(self.path).parent).free, "the disk of the sqlite file")
        except OSError:
            return None

    def check_not_inherited(self) -> None:
        """Raise UsageError in a fork of a process that had the file open: sqlite's locks do not survive a fork."""
        if _inherited:
            with suppress(UnavailableError):
                if self.inode() in _inherited.values():
                    raise UsageError(
                        f"{self.url} was open when this process was forked, and cannot be used here: {SPAWN_ADVICE}"
                    )

    def open(self) -> tuple[sqlite3.Connection, Inode]:
        """Open a connection; return the inode, too. Raise sqlite3.Error, or UsageError if the file is no store."""
        if sqlite3.sqlite_version_info < (3, 35):
            raise UsageError(f"sqlite 3.35 or newer is needed; this Python has {sqlite3.sqlite_version}")
        if not self._known:
            self._create()
        since = self.timeline.mark()
        # The inode first: if another file appears in between, the noted inode is no longer the inode at the path, and
        # the next use opens the file again. In the other order the old file would pass for the new one.
        inode = self.inode()
        self._check_access()
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(self.path))}?mode=rw",  # A path of any bytes, UTF-8 or not.
            uri=True, timeout=0, isolation_level=None, check_same_thread=False,
        )  # fmt: skip
        _open[connection] = inode
        try:
            self._prepare(connection)
            self._inode = inode[1]
            number, store = connection.execute("SELECT number, store FROM clock").fetchone()
            self.note_number(number, store, since)
        except sqlite3.DatabaseError as error:
            self.close(connection)
            if not self._known and error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise UsageError(f"{self.url} is not an sqlite database") from error
            raise
        except BaseException:
            self.close(connection)
            raise
        return connection, inode

    def close(self, connection: sqlite3.Connection) -> None:
        """Close a connection returned by `open`."""
        if _open.pop(connection, None) is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _create(self) -> None:
        """Create an empty file if there is none. Raise UsageError if the path is a folder or cannot be shared."""
        path = Path(self.path)
        if self._is_default:
            make_folder(path.parent)
        self._check_access()
        if path.is_dir():
            raise UsageError(f"{self.url} is a folder: name a file in the folder")
        check_shared_here(path.resolve())
        try:
            # Only a new file can be closed again: no connection has the file open yet.
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            with suppress(OSError):  # Some file systems have no modes.
                os.fchmod(descriptor, 0o600)  # The umask of the process may forbid the owner to read and write.
            os.close(descriptor)
        except FileExistsError:
            return
        except FileNotFoundError as error:
            raise UnavailableError(
                f"{self.url}: no such folder; check the path, and that the disk is mounted"
            ) from error
        except OSError as error:
            denied = isinstance(error, PermissionError)
            reason = f"{self.url} cannot be created: {error.strerror}"
            raise (AccessDeniedError if denied else UnavailableError)(reason) from error

    def _check_access(self) -> None:
        """Raise an error if other users of the machine could change the store."""
        exposure = find_exposure(Path(self.path))
        if exposure:
            raise self._unusable(exposure)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        objects = _single_value(connection, "SELECT count(*) FROM sqlite_master")
        application = _single_value(connection, "PRAGMA application_id")
        if application != _APPLICATION_ID and (application or objects):
            raise self._unusable("is a database of another program")
        if _single_value(connection, "PRAGMA journal_mode=WAL") != "wal":
            raise self._unusable("cannot be shared between processes there: sqlite cannot use a write-ahead log")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA journal_size_limit=67108864")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2 * LARGEST_VALUE)
        if not application:
            _make_tables(connection)
        version = _single_value(connection, "PRAGMA user_version")
        if version != _FORMAT_VERSION:
            raise self._unusable(f"is of version {version}, but this smoothcluster needs version {_FORMAT_VERSION}")
        connection.executescript(TRANSACTION_SCRIPT)
        self._check_access()  # Again: another user may have put a log beside the file before sqlite opened the log.

    def note_number(self, number: int, store: str, since: Mark) -> None:
        """Take in the *number* of the last commit, and the id of the *store*, read after *since*."""
        self._known = True
        # With the inode: a copy of the file may have gone on from an earlier commit, and have a higher number by now.
        self.timeline.advance(number, since, f"store {store} in inode {self._inode}")

    def _unusable(self, what: str) -> UsageError | BackendError:
        """Return a UsageError on first use (a wrong path), and later an UnavailableError (the file may come back)."""
        return (UnavailableError if self._known else UsageError)(f"{self.url} {what}")


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _single_value(connection, "PRAGMA application_id"):  # No other process was faster.
            for statement in _CREATE_TABLES.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO clock VALUES (0, 0.0, 0.0, '', ?)", (secrets.token_hex(16),))
            connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={_FORMAT_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _single_value(connection: sqlite3.Connection, statement: str) -> object:
    """Return the only value of the result of *statement*."""
    return connection.execute(statement).fetchone()[0]
