"""A member for ``avalanche.py``: URL GROUP PACING CAPACITY, the last two as JSON.

It has memory for so many shards: one that has served more within some seconds is out of it, and ends.
"""

import json
import os
import sys
import time

from smoothcluster import ClusterCrawler, Pacing, Task, TaskContext, connect

MEMORY, FORGOTTEN = 8, 8.0
"""Shards, and the seconds after which one that is not served any more needs none."""

served: dict[int, float] = {}


def handler(_: Task, context: TaskContext) -> None:
    """Wait on I/O, with something of the shard in memory."""
    now = time.monotonic()
    served[context.shard] = now
    if sum(at > now - FORGOTTEN for at in list(served.values())) > MEMORY:
        os._exit(1)
    time.sleep(0.02)


def main() -> None:
    """Be a member until out of memory."""
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
