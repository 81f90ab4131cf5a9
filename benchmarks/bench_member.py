"""A member for the benchmarks: URL GROUP LOG RUNNER BACKUP CONCURRENCY SECONDS; BACKUP is "all" where all are Runners.

Its handler appends a line to LOG, then waits on I/O for SECONDS; if that is 0 it does nothing.
"""

import os
import sys
import time

from smoothcluster import ClusterCrawler, Task, TaskContext, connect


def main() -> None:
    """Be a member until told to stop."""
    url, group, path, runner, backup, concurrency, seconds = sys.argv[1:]
    log = os.open(path, os.O_WRONLY | os.O_APPEND)
    wait = float(seconds)

    def wait_on_io(task: Task, context: TaskContext) -> None:
        os.write(log, f"{time.monotonic():.6f} {context.member} {context.shard} {task.id}\n".encode())
        time.sleep(wait)

    def nothing(_: Task, __: TaskContext) -> None:
        return None

    ClusterCrawler(
        backend=connect(url),
        runner=int(runner),
        backup=None if backup == "all" else int(backup),
        group=group,
        handler=wait_on_io if wait else nothing,
        concurrency=int(concurrency),
    ).run()


main()
