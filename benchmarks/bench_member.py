"""A member for the benchmarks: URL GROUP LOG RUNNER BACKUP CONCURRENCY SECONDS; BACKUP is "all" for Runners only.

The handler appends a line to LOG, then waits on I/O for SECONDS; with 0 the handler does nothing.
"""

import os
import sys
import time
from functools import cache

from smoothcluster import ClusterCrawler, Task, TaskContext, connect

MEMBER_ARGUMENTS = os.environ.setdefault("BENCH", " ".join(sys.argv[1:])).split()
STORE_URL, GROUP_NAME, LOG_PATH, RUNNER_COUNT, BACKUP_COUNT, MEMBER_CONCURRENCY, WAIT_ARGUMENT = MEMBER_ARGUMENTS
"""A child process that imports this module to run suspects has no arguments, but inherits the environment."""

WAIT_SECONDS = float(WAIT_ARGUMENT)


@cache
def log() -> int:
    """Open the log once."""
    return os.open(LOG_PATH, os.O_WRONLY | os.O_APPEND)


def wait_on_io(task: Task, context: TaskContext) -> None:
    """Append a line to the log, and wait."""
    os.write(log(), f"{time.monotonic():.6f} {context.member} {context.shard} {task.id}\n".encode())
    time.sleep(WAIT_SECONDS)


def nothing(_: Task, __: TaskContext) -> None:
    """Do nothing, without a line in the log."""


def crawler() -> ClusterCrawler:
    """Return the member."""
    return ClusterCrawler(
        backend=connect(STORE_URL),
        runner=int(RUNNER_COUNT),
        backup=None if BACKUP_COUNT == "all" else int(BACKUP_COUNT),
        group=GROUP_NAME,
        handler=wait_on_io if WAIT_SECONDS else nothing,
        concurrency=int(MEMBER_CONCURRENCY),
    )


if __name__ == "__main__":
    crawler().run()
