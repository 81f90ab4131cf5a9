"""A member for ``avalanche.py``: URL GROUP PACING CAPACITY, the last two as JSON.

The member has memory for a fixed number of shards and exits after serving more within some seconds.
"""

import json
import os
import sys
import time

from smoothcluster import ClusterCrawler, Pacing, Task, TaskContext, connect

MOST_SHARDS_IN_MEMORY, MEMORY_FREED_AFTER_SECONDS = 8, 8.0
"""Largest number of shards in memory, and the seconds after the last task of a shard until its memory is free."""

served: dict[int, float] = {}


def handler(_: Task, context: TaskContext) -> None:
    """Wait on I/O and count the shard as in memory."""
    now = time.monotonic()
    served[context.shard] = now
    if sum(at > now - MEMORY_FREED_AFTER_SECONDS for at in list(served.values())) > MOST_SHARDS_IN_MEMORY:
        os._exit(1)
    time.sleep(0.02)


def main() -> None:
    """Run the member until out of memory."""
    url, group, pacing, capacity = sys.argv[1:]
    ClusterCrawler(
        backend=connect(url),
        runner=8,
        group=group,
        handler=handler,
        concurrency=4,
        pacing=Pacing(**json.loads(pacing)),
        capacity=json.loads(capacity),
    ).run()


if __name__ == "__main__":
    main()
