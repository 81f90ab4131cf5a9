"""Measure takeover time: from SIGKILL of a busy Runner to the first start of a task of the victim elsewhere.

    python benchmarks/takeover.py --backend zookeeper://127.0.0.1:2181 [--kills 200] [--seconds 2] [--concurrency 32]

Three Runners and two Backup Runners run handlers with 50 ms of waiting on I/O, eight at once each, unless
told otherwise. The script kills a busy Runner at a random moment; the clock runs until a task of the
victim's shards starts in another process. The parts come from the successor's own event. *claimed* lasts
from the proof of death to the acknowledged claim, *resumed* from there to the handing of the tasks to
workers. *detected* is the rest: the kernel closing sockets, the proof, and waking up.

*resumed in flight* counts tasks, not kills: for each task whose handler ran in the victim at the moment of
the kill, the time from the kill to the second start of the task, by the handlers' own log.
"""

import argparse
import random
import secrets
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import Log, Members, figures, machine, until

from smoothcluster import Cluster, Task, connect

RUNNER_COUNT, BACKUP_COUNT = 3, 2


class Bench:
    """A group whose Runners are killed in turn."""

    def __init__(self, url: str, directory: Path, concurrency: int, seconds: float) -> None:
        self.seconds = seconds
        self.in_flight: list[float] = []
        """Milliseconds from a kill to the second start, for each task that ran at the kill."""
        self.wanted = 12_000 if seconds < 1 else 40 * concurrency
        self.group = f"takeover-{secrets.token_hex(4)}"
        self.log = Log(directory / "starts")
        self.members = Members(
            url,
            self.group,
            str(self.log.path),
            *map(str, (RUNNER_COUNT, BACKUP_COUNT, concurrency, seconds)),
        )
        self.cluster = Cluster(connect(url), self.group)
        self.submitted = 0
        self.rows: list[tuple[float, str, int, str]] = []

    def settled(self) -> bool:
        """Return whether three Runners share all shards and two Backup Runners wait."""
        members: list[dict[str, Any]] = [] if self.cluster.absent() else self.cluster.status()["members"]
        shards = [member["shards"] for member in members if member["role"] == "runner"]
        return (
            len(members) == RUNNER_COUNT + BACKUP_COUNT
            and len(shards) == RUNNER_COUNT
            and all(member["running"] for member in members)
            and all(member["checked"] for member in members if member["role"] != "runner")
            and sum(shards) == 32
            and max(shards) - min(shards) <= 1
        )

    def feed(self) -> None:
        """Keep all members busy: some shards finish faster than others."""
        if self.cluster.status()["tasks"]["pending"] < self.wanted:
            start, self.submitted = self.submitted, self.submitted + self.wanted // 2
            self.cluster.submit([Task(id=str(number)) for number in range(start, self.submitted)])

    def busy_runner(self) -> dict[str, Any]:
        """Return a Runner in which a task runs, by the log. Other Runners have nothing to resume."""
        busy: list[dict[str, Any]] = []

        def found() -> bool:
            runners = [member for member in self.cluster.status()["members"] if member["role"] == "runner"]
            self.rows += self.log.new()
            running = {member for at, member, _, _ in self.rows if time.monotonic() - at < max(self.seconds, 0.2)}
            busy.extend(member for member in runners if member["name"] in running)
            return bool(busy)

        until(found, what="a busy Runner")
        return random.choice(busy)

    def kill_one(self) -> dict[str, float]:
        """Kill a Runner with running tasks; return milliseconds by part."""
        known = {str(event) for event in self.cluster.events()}
        victim = self.busy_runner()
        killed = time.monotonic()
        self.members.kill(victim["pid"])
        time.sleep(0.5)  # Reading at once would take processor time from the successors.
        event = self.handover(victim["name"], known)
        rows: list[tuple[float, str, int, str]] = []

        def resumed() -> bool:
            rows.extend(self.log.new())
            return any(self.elsewhere(row, victim["name"], killed, event["shards"]) for row in rows)

        until(resumed, what="a task of the dead member's shards to start")
        self.follow_in_flight(victim["name"], killed, rows)
        first = min(row[0] for row in rows if self.elsewhere(row, victim["name"], killed, event["shards"]))
        self.members.start()
        total = (first - killed) * 1000
        resumed_ms = event["resumed_ms"]
        return {
            "total": total,
            "detected": total - resumed_ms,
            "claimed": event["claimed_ms"],
            "resumed": resumed_ms - event["claimed_ms"],
            "by proof": float(event["evidence"] == "process_gone"),
        }

    def follow_in_flight(self, name: str, killed: float, rows: list[tuple[float, str, int, str]]) -> None:
        """Wait until each task that ran in *name* at the kill has started elsewhere, and note how long each took."""
        self.rows += rows
        running = {row[3] for row in self.rows if row[1] == name and killed - self.seconds < row[0] <= killed}
        again: dict[str, float] = {}

        def all_resumed() -> bool:
            self.rows += self.log.new()
            for at, member, _, task in self.rows:
                if task in running and at > killed and member != name:
                    again.setdefault(task, at)
            return len(again) == len(running)

        until(all_resumed, within=60.0 + 20 * self.seconds, what="the tasks in flight to start again")
        self.in_flight += [(at - killed) * 1000 for at in again.values()]

    def handover(self, name: str, known: set[str]) -> Any:
        """Return the event in which the member with this name lost its shards."""
        found: list[Any] = []

        def happened() -> bool:
            found.extend(e for e in self.cluster.events() if self.mine(e, name) and str(e) not in known)
            return bool(found)

        until(happened, what="the handover event")
        return found[0]

    @staticmethod
    def elsewhere(row: tuple[float, str, int, str], name: str, killed: float, shards: list[int]) -> bool:
        """Return whether a line of the log shows a later start of a task of these shards by another member."""
        return row[0] > killed and row[1] != name and row[2] in shards

    @staticmethod
    def mine(event: Any, name: str) -> bool:
        """Return whether the event reports the start of tasks of *name* elsewhere."""
        return event["kind"] == "handover" and event["from"] == name and event["resumed_ms"] is not None


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", required=True, help="URL of the store")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=0.05, help="how long each task takes")
    parser.add_argument("--concurrency", type=int, default=8, help="tasks at once in each member")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(options.backend, Path(directory), options.concurrency, options.seconds)
        rows: list[dict[str, float]] = []
        try:
            for _ in range(RUNNER_COUNT + BACKUP_COUNT):
                bench.members.start()
            until(bench.settled)
            while len(rows) < options.kills:
                bench.feed()
                until(bench.settled)
                time.sleep(random.uniform(0.5, 1.0) + options.seconds)
                rows.append(bench.kill_one())
                print(f"\r{len(rows)}/{options.kills}  last {rows[-1]['total']:.1f} ms ", end="", flush=True)
        finally:
            bench.members.close()
    print(f"\n{machine()}\n{len(rows)} SIGKILLs of a busy Runner, milliseconds; {options.backend}")
    print(f"tasks of {options.seconds:g} s, {options.concurrency} at once in each member")
    for part in ("total", "detected", "claimed", "resumed"):
        print(f"{part:>9}  {figures(row[part] for row in rows)}")
    print(f"resumed in flight  {figures(bench.in_flight)}  ({len(bench.in_flight)} tasks)")
    print(f"known by the process's death, not by its lease: {sum(row['by proof'] for row in rows):.0f} of {len(rows)}")


main()
