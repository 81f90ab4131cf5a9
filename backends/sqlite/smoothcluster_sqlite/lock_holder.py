"""Who keeps everybody from writing, for the error that says so: the kernel knows who holds which lock.

From its list, never by asking about the file itself: for that it would have to be opened, and closing it
again would drop this process's own locks (see `file`).
"""

import os
from pathlib import Path

_WRITING = 120
"""The byte of the file ``-shm`` that a writer has locked: WAL_WRITE_LOCK, fixed by sqlite's format of that file."""

_DOES = {
    "T": "is stopped in the middle of writing: let it go on (kill -CONT {pid}) or end it",
    "t": "is held by a debugger in the middle of writing: let it go on or end it",
    "D": "waits for the disk in the middle of writing",
}


def writer(path: str, locks: Path = Path("/proc/locks")) -> str:
    """The process that has the store at *path* locked for writing, and what to do; in general words if not known."""
    try:
        number = os.stat(f"{path}-shm").st_ino  # noqa: PTH116  # as elsewhere: nothing but its number
        held = [line.split() for line in locks.read_text().splitlines()]
        for pid in [fields[4] for fields in held if _is_writing(fields, number)]:
            if said := _said(pid):
                return said
    except (OSError, ValueError, IndexError):
        pass  # Not told, or in other words than we know: that must not hide the error itself.
    return "another process is paused in the middle of writing, or the disk stands still"


def _is_writing(fields: list[str], number: int) -> bool:
    """Whether a line of the kernel's list, ``1: POSIX ADVISORY WRITE 4711 fe:00:2156826 120 120``, is the lock."""
    if fields[1] != "POSIX" or fields[3] != "WRITE" or int(fields[5].rpartition(":")[2]) != number:
        return False
    return int(fields[6]) <= _WRITING and (fields[7] == "EOF" or int(fields[7]) >= _WRITING)


def _said(pid: str) -> str | None:
    """What process *pid* does; None if it is gone by now."""
    # All its threads: the one that writes need not be the first.
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    states = [stat.rpartition(")")[2].split()[0] for stat in stats]
    does = [_DOES[state] for state in _DOES if state in states] or ["is still writing"]
    return f"process {pid} {does[0].format(pid=pid)}" if states else None
