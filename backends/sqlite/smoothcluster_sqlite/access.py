"""Whether other users of the machine could change the store: who owns the files, and who may write or replace a file.

Every member trusts the store, so a user who can write or replace the file controls the group.
"""

import os
import shlex
import stat
from pathlib import Path

_FILE_SUFFIXES = ("", "-wal", "-shm", "-journal")
"""The files of a store. sqlite reads all of them, without a look at the owners."""


def find_exposure(path: Path) -> str | None:
    """Return how other users could change the store at *path*, and the correction; None if they cannot.

    Missing files expose nothing. A symbolic link exposes the folder of the link and the folder of the file.
    """
    real = path.resolve()
    for folder in dict.fromkeys((path.parent, real.parent)):
        mode = _stat(folder).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return (
                f"could be replaced by every user, because all may write the folder {folder}: use a folder of your own,"
                f" or run: chmod o-w {_quoted(folder)}"
            )
    for each in [real.with_name(real.name + suffix) for suffix in _FILE_SUFFIXES]:
        found, user = _stat(each), os.geteuid()
        if found.st_nlink and found.st_uid != user:
            return (
                f"could be changed by another user: {each} belongs to user {found.st_uid}, and this process runs as"
                f" user {user}. Use a file of your own, or give the file to this user: chown {user} {_quoted(each)}"
            )
        if found.st_mode & stat.S_IWOTH:
            return f"could be changed by every user, because all may write {each}: run: chmod o-w {_quoted(each)}"
    return None


_MISSING_FILE = os.stat_result([0] * 10)


def _stat(path: Path) -> os.stat_result:
    try:
        return os.stat(path)  # noqa: PTH116  # as in `file`
    except OSError:
        return _MISSING_FILE


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
