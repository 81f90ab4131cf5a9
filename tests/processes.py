"""Processes of the tests' own: they end with the tests, however those end, and stop when they are told to."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from smoothcluster.testing import eventually

File = int | IO[bytes] | None

_SPAWNER = ThreadPoolExecutor(1, "spawner")
"""Spawns them all: the kernel takes the end of the *thread* that spawned a process for its parent's death."""


def spawn(
    command: Sequence[str],
    *,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    start_new_session: bool = False,
) -> subprocess.Popen[bytes]:
    """`subprocess.Popen`, but the kernel kills the process when this one ends, even by SIGKILL."""
    # Each becomes the next, with the same pid; the shell makes sure that it was not too late to ask the kernel.
    with_us = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", '[ $PPID = "$0" ] && exec "$@"', str(os.getpid())]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*with_us, *command],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=env,
            start_new_session=start_new_session,
        )

    return _SPAWNER.submit(start).result()


def pause(pid: int) -> None:
    """SIGSTOP; return when every thread has stopped: the signal reaches one that waits for the disk late."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: set(states(pid)) <= {"T"})


def states(pid: int) -> list[str]:
    """The state of each thread of the process, as the kernel's letter for it."""
    return [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
