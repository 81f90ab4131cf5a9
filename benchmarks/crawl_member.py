"""A Runner for the benchmark of a crawl: URL GROUP RUNNER. Each task adds one new link and four known links."""

import os
import sys

from smoothcluster import ClusterCrawler, Task, TaskContext, connect

MEMBER_ARGUMENTS = os.environ.setdefault("BENCH", " ".join(sys.argv[1:])).split()
"""A child process that imports this module to run suspects has no arguments, but inherits the environment."""


def follow(task: Task, context: TaskContext) -> None:
    """Add the next link of the chain, and four links that the job knows."""
    chain, _, number = task.id.partition(".")
    place = int(number)
    context.submit(Task(id=f"{chain}.{max(0, place + step)}") for step in (1, 0, -1, -2, -3))


def crawler() -> ClusterCrawler:
    """Return the member."""
    url, group, runner = MEMBER_ARGUMENTS
    return ClusterCrawler(backend=connect(url), runner=int(runner), group=group, handler=follow)


if __name__ == "__main__":
    crawler().run()
