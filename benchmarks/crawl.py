"""Measure a crawl: tasks per second where each task adds one new link and four known links.

    python benchmarks/crawl.py --backend redis://127.0.0.1:6379 [--waiting 1000,10000,100000] [--seconds 10]

Three Runners with no-op handlers follow chains of links. *waiting* is the number of chains, and so the number of tasks
that wait at any moment. After the first links, every waiting task was added by a handler. The cost of a task should not
grow with the number of waiting tasks, so the last column divides the rate by the rate of the first row.
"""

import argparse
import secrets
import time

from bench import Members, machine, until

from smoothcluster import Cluster, Task, connect

RUNNER_COUNT = 3


def crawl_rate(url: str, waiting: int, seconds: float) -> float:
    """Return the tasks per second of three Runners on so many chains, once each chain has left its first link."""
    group = f"crawl-{secrets.token_hex(4)}"
    backend = connect(url)
    cluster = Cluster(backend, group)
    job = cluster.submit((Task(id=f"{chain}.0") for chain in range(waiting)), max_tasks=10**9)
    runners = Members(url, group, str(RUNNER_COUNT), program="crawl_member.py")
    try:
        for _ in range(RUNNER_COUNT):
            runners.start()
        until(lambda: job.progress().done > waiting, within=600, what="the first links")
        began, before = time.monotonic(), job.progress().done
        time.sleep(seconds)
        done = job.progress().done - before
        return done / (time.monotonic() - began)
    finally:
        runners.close()
        backend.close()


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", required=True, help="URL of the store")
    parser.add_argument("--waiting", default="1000,10000,100000", help="numbers of waiting tasks, separated by commas")
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of each measurement")
    options = parser.parse_args()
    print(f"{machine()}\n{RUNNER_COUNT} Runners, one new link and four known links for each task; {options.backend}")
    first: float | None = None
    for waiting in map(int, options.waiting.split(",")):
        rate = crawl_rate(options.backend, waiting, options.seconds)
        first = first or rate
        print(f"{waiting:9,} waiting  {rate:9,.0f} tasks/s  {rate / first:5.2f}", flush=True)


main()
