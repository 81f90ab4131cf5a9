"""Name the process that holds the write lock of the store, for the message of the error.

The kernel's list of locks tells the process. A query of the lock would need a handle of the file, and to
close a handle would drop this process's own locks (see `file`).
"""

import os
from pathlib import Path

_WRITE_LOCK_BYTE = 120
"""The byte of the file ``-shm`` locked by a writer: WAL_WRITE_LOCK, fixed by sqlite's format of the file."""

_STATE_DESCRIPTIONS = {
    "T": "is stopped in the middle of writing: let it go on (kill -CONT {pid}) or end it",
    "t": "is held by a debugger in the middle of writing: let it go on or end it",
    "D": "waits for the disk in the middle of writing",
}


def describe_lock_holder(path: str, locks: Path = Path("/proc/locks")) -> str:
    """Describe the process that holds the write lock of the store at *path*; in general words if unknown."""
    try:
        number = os.stat(f"{path}-shm").st_ino  # noqa: PTH116  # as in `file`: only the inode number
        held = [line.split() for line in locks.read_text().splitlines()]
        for pid in [fields[4] for fields in held if _is_write_lock(fields, number)]:
            if said := _describe_process(pid):
                return said
    except (OSError, ValueError, IndexError):
        pass  # No list, or in an unknown format: this failure must not hide the error itself.
    return "another process is paused in the middle of writing, or the disk does not respond"


def _is_write_lock(fields: list[str], number: int) -> bool:
    """Whether a line of the list, such as ``1: POSIX ADVISORY WRITE 4711 fe:00:2156826 120 120``, is the write lock."""
    if fields[1] != "POSIX" or fields[3] != "WRITE" or int(fields[5].rpartition(":")[2]) != number:
        return False
    return int(fields[6]) <= _WRITE_LOCK_BYTE and (fields[7] == "EOF" or int(fields[7]) >= _WRITE_LOCK_BYTE)


def _describe_process(pid: str) -> str | None:
    """Describe the state of process *pid*; None if the process is gone."""
    # Of all threads: the writing thread need not be the first.
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    states = [stat.rpartition(")")[2].split()[0] for stat in stats]
    does = [_STATE_DESCRIPTIONS[state] for state in _STATE_DESCRIPTIONS if state in states] or ["is still writing"]
    return f"process {pid} {does[0].format(pid=pid)}" if states else None
