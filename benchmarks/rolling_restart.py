"""Measure how long shards have no owner during a rolling restart of five members under load.

    python benchmarks/rolling_restart.py --backend zookeeper://127.0.0.1:2181 [--rounds 4] [--json]

All members are Runners. Each in turn gets SIGTERM, leaves, and is started again; the next restart follows once
the members share the shards evenly again. A thread reads the group as often as possible. A shard counts as
unowned from the first reading without an owner to the first reading with an owner. Readings are milliseconds
apart: times are off by as much.
"""

import argparse
import json
import secrets
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench import Log, Members, figures, machine, until

from smoothcluster import Cluster, Task, connect
from smoothcluster.group.store import GroupStore
from smoothcluster.records.keys import Keys

MEMBER_COUNT, MEMBER_CONCURRENCY, TASK_SECONDS, SHARD_COUNT = 5, 8, 0.02, 32


class Watcher(threading.Thread):
    """Thread that reads the group repeatedly and records how long each shard had no owner."""

    def __init__(self, url: str, group: str) -> None:
        super().__init__(daemon=True)
        self.store = GroupStore(connect(url).for_group(group), Keys(group), lambda key, what: None)
        self.over = threading.Event()
        self.gaps: list[float] = []
        self.readings: list[float] = []

    def unowned(self) -> set[int]:
        """Return the shards whose owner is absent."""
        view = self.store.read_view({})
        assert view is not None
        return {n for n, read in enumerate(view.shards) if read is None or read.record.owner not in view.members}

    def run(self) -> None:
        """Read until the event `over` is set."""
        since: dict[int, float] = {}
        last = time.monotonic()
        while not self.over.is_set():
            unowned, now = self.unowned(), time.monotonic()
            self.readings.append((now - last) * 1000)
            for shard in since.keys() - unowned:
                self.gaps.append((now - since.pop(shard)) * 1000)
            for shard in unowned - since.keys():
                since[shard] = now
            last = now


def settled(cluster: Cluster) -> bool:
    """Return whether five members work and share the shards evenly."""
    members: list[dict[str, Any]] = [] if cluster.absent() else cluster.status()["members"]
    shards = [member["shards"] for member in members if member["running"]]
    return len(shards) == MEMBER_COUNT and sum(shards) == SHARD_COUNT and max(shards) - min(shards) <= 1


def restart_all(cluster: Cluster, members: Members) -> None:
    """Restart each member once, in sequence."""
    for pid in list(members.processes):
        process = members.processes.pop(pid)
        process.send_signal(signal.SIGTERM)
        process.wait()
        members.start()
        until(lambda: settled(cluster))


def measure(url: str, rounds: int, log: Log) -> tuple[Watcher, int]:
    """Restart all members *rounds* times; return the watcher and the number of tasks done meanwhile."""
    cluster = Cluster(connect(url), f"rolling-{secrets.token_hex(4)}")
    watcher = Watcher(url, cluster.group)
    settings = (str(MEMBER_COUNT), "all", str(MEMBER_CONCURRENCY), str(TASK_SECONDS))
    members = Members(url, cluster.group, str(log.path), *settings)
    try:
        for _ in range(MEMBER_COUNT):
            members.start()
        until(lambda: settled(cluster))
        job = cluster.submit([Task(id=str(number)) for number in range(200_000)])
        watcher.start()
        for _ in range(rounds):
            restart_all(cluster, members)
        watcher.over.set()
        watcher.join()
        return watcher, job.progress().done
    finally:
        members.close()


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", required=True, help="URL of the store")
    parser.add_argument("--rounds", type=int, default=4, help="how often each member is restarted")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        log = Log(Path(directory) / "starts")
        watcher, done = measure(options.backend, options.rounds, log)
        starts = [row[3] for row in log.new()]
    twice, restarts = len(starts) - len(set(starts)), options.rounds * MEMBER_COUNT
    if options.json:
        print(json.dumps({"restarts": restarts, "gaps_ms": watcher.gaps, "started_twice": twice, "done": done}))
        return
    print(f"{machine()}\n{restarts} restarts of {MEMBER_COUNT} members, milliseconds; {options.backend}")
    print(f"    without an owner  {figures(watcher.gaps)}  ({len(watcher.gaps)} times)")
    print(f"  between two looks  {figures(watcher.readings)}")
    print(f"tasks done meanwhile: {done}, started twice: {twice}")


main()
