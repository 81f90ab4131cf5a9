"""Show the effect of five deaths on eight members: shards of each over time, with and without protection.

    python benchmarks/avalanche.py [--backend URL] [--picture docs/explanation/avalanche.svg] [--json]

All members are Runners and share 32 shards, four each. A member has memory for eight shards and exits when serving
more (``avalanche_member.py``). The script kills five members two seconds after the start of the work, and starts
a new member three seconds after each death. Three settings are played: immediate adoption without a breaker;
the default pacing and breaker; and a capacity of eight instead of the breaker. The script counts members that
died without being killed, and tasks per second, before and in the end. The picture needs matplotlib.
"""

import argparse
import json
import secrets
import tempfile
import time
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path

from bench import CHECKOUT_ROOT, Members, machine, until

from smoothcluster import Cluster, Task, connect

MEMBER_COUNT, KILLED_COUNT, RESTART_AFTER_SECONDS, RUN_SECONDS = 8, 5, 3.0, 20.0
TASK_COUNT = 120_000

SETTINGS_BY_NAME: dict[str, tuple[dict[str, float], int | None]] = {
    "all at once, no breaker": ({"shards": 1000, "pause": 0.0, "share": 1.0}, None),
    "pacing and breaker": ({}, None),
    "capacity of 8, no breaker": ({"share": 1.0}, 8),
}


@dataclass
class Played:
    """Results of a setting."""

    died: int = 0
    """Members that died without being killed."""
    before: float = 0.0
    """Tasks per second before the kills."""
    after: float = 0.0
    """Tasks per second in the last five seconds."""
    times: list[float] = field(default_factory=list[float])
    shards: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    """Shards of each process at these times."""
    unassigned: list[int] = field(default_factory=list[int])


class Stage:
    """A group under observation, with members to kill."""

    def __init__(self, url: str, pacing: dict[str, float], capacity: int | None) -> None:
        group = f"avalanche-{secrets.token_hex(4)}"
        words = (json.dumps(pacing), json.dumps(capacity))
        self.members = Members(url, group, *words, program="avalanche_member.py")
        self.cluster = Cluster(connect(url), group)
        self.played = Played()
        self.due: list[float] = []

    def play(self) -> Played:
        """Start the members, kill five, and watch."""
        for _ in range(MEMBER_COUNT):
            self.members.start()
        until(
            lambda: (
                not self.cluster.absent()
                and sorted(self.shards_by_process().values()) == [32 // MEMBER_COUNT] * MEMBER_COUNT
            )
        )
        self.cluster.submit([Task(id=str(number)) for number in range(TASK_COUNT)])
        time.sleep(1.0)
        first, began = self.done(), time.monotonic()
        killed = False
        late: tuple[int, float] | None = None
        while (now := time.monotonic() - began) < RUN_SECONDS:
            if now >= 2.0 and not killed:
                killed = True
                self.played.before = (self.done() - first) / now
                for pid in list(self.members.processes)[:KILLED_COUNT]:
                    self.members.kill(pid)
                    self.due.append(time.monotonic() + RESTART_AFTER_SECONDS)
            if now >= RUN_SECONDS - 5.0 and late is None:
                late = (self.done(), time.monotonic())
            self.replace_dead()
            self.note(now)
            time.sleep(0.05)
        assert late is not None
        self.played.after = (self.done() - late[0]) / (time.monotonic() - late[1])
        return self.played

    def done(self) -> int:
        """Return the number of tasks done so far."""
        return int(self.cluster.status()["tasks"]["done"])

    def shards_by_process(self) -> dict[int, int]:
        """Return the shards of each running process."""
        members = self.cluster.status()["members"]
        return {each["pid"]: each["shards"] for each in members if each["running"]}

    def replace_dead(self) -> None:
        """Count dead members, and start new members when due."""
        for pid, process in list(self.members.processes.items()):
            if process.poll() is not None:
                del self.members.processes[pid]
                self.played.died += 1
                self.due.append(time.monotonic() + RESTART_AFTER_SECONDS)
        for at in [at for at in self.due if at <= time.monotonic()]:
            self.due.remove(at)
            self.members.start()

    def note(self, now: float) -> None:
        """Record the current shards of each process."""
        status = self.cluster.status()
        living = {each["pid"]: each["shards"] for each in status["members"] if each["pid"] in self.members.processes}
        played = self.played
        for pid in {str(pid) for pid in living} | played.shards.keys():
            column = played.shards.setdefault(pid, [0] * len(played.times))
            column.append(living.get(int(pid), 0))
        played.times.append(now)
        played.unassigned.append(32 - sum(living.values()))


def draw(all_played: dict[str, Played], path: Path) -> None:
    """Draw the shards of each process over time, one panel per setting."""
    pyplot = import_module("matplotlib.pyplot")  # needed for the picture alone: pip install matplotlib
    figure, panels = pyplot.subplots(len(all_played), 1, sharex=True, sharey=True, figsize=(9, 7.5))
    for panel, (name, played) in zip(panels, all_played.items(), strict=True):
        for column in played.shards.values():
            panel.plot(played.times, [count or None for count in column], linewidth=1.2)
        panel.fill_between(played.times, played.unassigned, color="0.88", step="mid", label="owned by nobody alive")
        panel.axhline(8, color="crimson", linewidth=0.8, linestyle="--", label="memory for 8")
        panel.axvline(2, color="0.5", linewidth=0.8, linestyle=":")
        panel.set_title(f"{name}: {played.died} members followed the 5 that were killed", loc="left", fontsize=10)
        panel.set_ylabel("shards")
    panels[0].legend(loc="upper right", fontsize=8)
    panels[-1].set_xlabel("seconds; five of eight members are killed at 2, and what dies is started again after 3")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Play all settings, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", help="URL of the store; an sqlite file of its own if left out")
    parser.add_argument("--picture", type=Path, help="where to draw it")
    parser.add_argument("--json", action="store_true", help="print what was counted as JSON")
    options = parser.parse_args()
    results: dict[str, Played] = {}
    with tempfile.TemporaryDirectory() as directory:
        for name, (pacing, capacity) in SETTINGS_BY_NAME.items():
            stage = Stage(options.backend or f"sqlite:///{directory}/group.db", pacing, capacity)
            try:
                results[name] = stage.play()
            finally:
                stage.members.close()
    if options.picture is not None:
        draw(results, options.picture if options.picture.is_absolute() else CHECKOUT_ROOT / options.picture)
    if options.json:
        print(json.dumps({name: asdict(played) for name, played in results.items()}))
        return
    print(f"{machine()}\n{MEMBER_COUNT} members, {KILLED_COUNT} killed; {options.backend or 'sqlite'}")
    for name, played in results.items():
        print(f"{name:>26}: {played.died} more died; {played.before:.0f} tasks/s before, {played.after:.0f} in the end")


main()
