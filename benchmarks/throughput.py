"""Measure the tasks per second of a single Runner with no-op handlers.

    python benchmarks/throughput.py --backend zookeeper://127.0.0.1:2181 [--tasks 200000]

The Runner has eight workers. *submit* is the client's rate of writing the tasks, *run* the Runner's rate
from the first recorded outcomes to the last outcome in the store. *store*, in the same run, is the store's
own rate for a client with repeated updates of a single key.
"""

import argparse
import secrets
import tempfile
import time
from pathlib import Path

from bench import Members, machine, until

from smoothcluster import Cluster, Task, connect
from smoothcluster.backend import Committed, Create, Update


def raw_rate(url: str) -> float:
    """Return the commits per second of a single client, each of a small key."""
    backend, key = connect(url), f"raw-{secrets.token_hex(4)}/key"
    result = backend.commit([], [Create(key, b"x" * 100)])
    started, count = time.monotonic(), 0
    while time.monotonic() < started + 2.0:
        assert isinstance(result, Committed)
        result = backend.commit([], [Update(key, b"x" * 100, result.versions[key])])
        count += 1
    backend.close()
    return count / (time.monotonic() - started)


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", required=True, help="URL of the store")
    parser.add_argument("--tasks", type=int, default=200_000)
    options = parser.parse_args()
    group = f"throughput-{secrets.token_hex(4)}"
    cluster = Cluster(connect(options.backend), group)
    began = time.monotonic()
    job = cluster.submit(Task(id=str(number)) for number in range(options.tasks))
    submitted = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "starts"
        log.touch()
        runners = Members(options.backend, group, str(log), "1", "0", "8", "0")
        try:
            runners.start()
            until(lambda: cluster.status()["tasks"]["done"] > 0, what="the first outcome")
            running = time.monotonic()
            before = cluster.status()["tasks"]["done"]
            until(lambda: job.progress().finished, within=600, what="the job")
            ended = time.monotonic()
        finally:
            runners.close()
    run = (options.tasks - before) / (ended - running)
    print(f"{machine()}\n{options.tasks} no-op tasks through one Runner; {options.backend}")
    print(f"submit {options.tasks / (submitted - began):9,.0f} tasks/s")
    print(f"run    {run:9,.0f} tasks/s")
    print(f"store  {raw_rate(options.backend):9,.0f} commits/s of one client")


main()
