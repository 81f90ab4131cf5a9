"""Translate sqlite's errors into the errors of `smoothcluster.errors`: the only table for this.

An I/O error during a write leaves the outcome unknown: the write may still count after a crash.
"""

import sqlite3

from smoothcluster.errors import AccessDeniedError, BackendError, OutcomeUnknownError, UnavailableError
from smoothcluster_sqlite.address import URL_PREFIX
from smoothcluster_sqlite.lock_holder import describe_lock_holder

_ERROR_MESSAGES = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: stop all members, and restore or delete the file",
    sqlite3.SQLITE_NOTADB: "the file is damaged, or is not an sqlite database: "
    "stop all members, and restore or delete the file",
    sqlite3.SQLITE_CANTOPEN: "the file, or a file that sqlite keeps beside the file, cannot be opened: "
    "check that this user may read and write the file and the folder",
    sqlite3.SQLITE_READONLY: "this user may not write to the file, or not to the folder of the file",
    sqlite3.SQLITE_PERM: "this user may not write to the file, or not to the folder of the file",
}

_ACCESS_DENIED_CODES = {sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH}


def is_busy(error: sqlite3.Error) -> bool:
    """Whether *error* means a lock held by another process, so another attempt may succeed."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


def translate_error(error: sqlite3.Error, path: str, *, writing: bool = False) -> BackendError:
    """Translate *error*, raised by the file at *path*, into an error for the caller of the backend."""
    code = _code(error)
    said = (
        f"the store is locked: {describe_lock_holder(path)}"
        if code == sqlite3.SQLITE_BUSY
        else _ERROR_MESSAGES.get(code, error)
    )
    message = f"{URL_PREFIX}/{path}: {said}"
    if code in _ACCESS_DENIED_CODES:
        return AccessDeniedError(message)
    if writing and code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL):
        return OutcomeUnknownError(message)
    return UnavailableError(message)


def _code(error: sqlite3.Error) -> int:
    # Errors of Python's own layer, as on a closed connection, have no code. The lowest byte is the kind.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
