"""A member for the benchmarks: URL GROUP LOG RUNNER BACKUP CONCURRENCY SECONDS; BACKUP is "all" for Runners only.

The handler appends a line to LOG, then waits on I/O for SECONDS; with 0 the handler does nothing.
"""

import os
import sys
import time
from functools import cache

from smoothcluster import ClusterCrawler, Task, TaskContext, connect

ARGUMENTS = os.environ.setdefault("BENCH", " ".join(sys.argv[1:])).split()
URL, GROUP, PATH, RUNNER, BACKUP, CONCURRENCY, SECONDS = ARGUMENTS
"""A child process that imports this module to run suspects has no arguments, but inherits the environment."""

WAIT = float(SECONDS)


@cache
def log() -> int:
    """Open the log once."""
    return os.open(PATH, os.O_WRONLY | os.O_APPEND)


def wait_on_io(task: Task, context: TaskContext) -> None:
    """Append a line to the log, and wait."""
    os.write(log(), f"{time.monotonic():.6f} {context.member} {context.shard} {task.id}\n".encode())
    time.sleep(WAIT)


def nothing(_: Task, __: TaskContext) -> None:
    """Do nothing, without a line in the log."""


def crawler() -> ClusterCrawler:
    """Return the member."""
    return ClusterCrawler(
        backend=connect(URL),
        runner=int(RUNNER),
        backup=None if BACKUP == "all" else int(BACKUP),
        group=GROUP,
        handler=wait_on_io if WAIT else nothing,
        concurrency=int(CONCURRENCY),
    )


if __name__ == "__main__":
    crawler().run()
