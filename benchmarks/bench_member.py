"""A member for the benchmarks: URL GROUP LOG RUNNER BACKUP CONCURRENCY SECONDS; BACKUP is "all" where all are Runners.

Its handler appends a line to LOG, then waits on I/O for SECONDS; if that is 0 it does nothing.
"""

import os
import sys
import time
from functools import cache

from smoothcluster import ClusterCrawler, Task, TaskContext, connect

ARGUMENTS = os.environ.setdefault("BENCH", " ".join(sys.argv[1:])).split()
URL, GROUP, PATH, RUNNER, BACKUP, CONCURRENCY, SECONDS = ARGUMENTS
"""Who imports this, to run suspects in a child process, has no such arguments, but the environment."""

WAIT = float(SECONDS)


@cache
def log() -> int:
    """The log, opened once."""
    return os.open(PATH, os.O_WRONLY | os.O_APPEND)


def wait_on_io(task: Task, context: TaskContext) -> None:
    """Log, and wait."""
    os.write(log(), f"{time.monotonic():.6f} {context.member} {context.shard} {task.id}\n".encode())
    time.sleep(WAIT)


def nothing(_: Task, __: TaskContext) -> None:
    """Not even a line in the log."""


def crawler() -> ClusterCrawler:
    """The member."""
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
