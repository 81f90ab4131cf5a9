"""Shared parts of the benchmarks: starting members, a common log of started tasks, and figures."""

import argparse
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

CHECKOUT_ROOT = Path(__file__).resolve().parent.parent


def until(condition: Callable[[], bool], within: float = 60.0, what: str = "the group") -> None:
    """Wait for a condition. Polling every few milliseconds is fine in a benchmark."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {within} s for {what}")
        time.sleep(0.05)


class Log:
    """A file to which members append a line per started task; read while growing.

    A line is: monotonic seconds (one clock for all processes of a machine), member, shard, task.
    """

    def __init__(self, path: Path) -> None:
        path.touch()
        self.path = path
        self._file = path.open()
        self._part = ""

    def new(self) -> list[tuple[float, str, int, str]]:
        """Return the lines since the last call."""
        text = self._part + self._file.read()
        whole, _, self._part = text.rpartition("\n")
        rows = (line.split() for line in whole.splitlines())
        return [(float(at), member, int(shard), task) for at, member, shard, task in rows]


class Members:
    """Processes running *program* of ``benchmarks/``."""

    def __init__(self, url: str, group: str, *options: str, program: str = "bench_member.py") -> None:
        self._command = [sys.executable, str(CHECKOUT_ROOT / "benchmarks" / program), url, group, *options]
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self) -> int:
        """Start another process and return the pid."""
        process = subprocess.Popen(self._command, env=os.environ | {"PYTHONUNBUFFERED": "1"})
        self.processes[process.pid] = process
        return process.pid

    def kill(self, pid: int) -> None:
        """Kill the process with SIGKILL."""
        self.processes.pop(pid).kill()

    def close(self) -> None:
        """Kill all remaining processes."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()


def figures(values: Iterable[float], digits: int = 2) -> str:
    """Format median, 99th percentile and maximum."""
    ranked = sorted(values)
    if not ranked:
        return "-"
    p99 = ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))]
    return f"median {median(ranked):.{digits}f}  p99 {p99:.{digits}f}  max {ranked[-1]:.{digits}f}"


def machine() -> str:
    """Describe the machine and the Python version."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    return f"{os.cpu_count()} x {model}, Python {sys.version.split()[0]}"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two ways to do the same work: through this library, and through the store's driver alone."""

    name: str
    ours: Callable[[], object]
    raw: Callable[[], object]


def options(text: str | None, name: str, times: int) -> tuple[str, str, int, bool]:
    """Parse the command line; return the store's URL, a unique name, the repetitions, and whether to print JSON."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", required=True, help="URL of the store")
    parser.add_argument("--times", type=int, default=times)
    parser.add_argument("--json", action="store_true", help="one JSON object for each line of the table")
    given = parser.parse_args()
    return given.backend, f"{name}-{secrets.token_hex(4)}", given.times, given.json


def compare(url: str, pairs: Iterable[Pair], times: int, *, as_json: bool) -> None:
    """Measure both ways of each pair alternately, so that a slow machine affects both alike; print medians."""
    rows: list[dict[str, object]] = []
    for pair in pairs:
        ours: list[float] = []
        raw: list[float] = []
        for _ in range(times):
            for act, taken in ((pair.ours, ours), (pair.raw, raw)):
                began = time.perf_counter()
                act()
                taken.append(1000 * (time.perf_counter() - began))
        row: dict[str, object] = {
            "what": pair.name,
            "times": times,
            "ours_ms": round(median(ours), 4),
            "raw_ms": round(median(raw), 4),
        }
        rows.append(row | {"ratio": round(median(raw) / median(ours), 3)})
    if as_json:
        for row in rows:
            print(json.dumps({"machine": machine(), "backend": url} | row))
        return
    print(f"{machine()}\n{url}, medians of {times}")
    print(f"{'':10}{'ours':>12}{'driver':>12}{'driver/ours':>14}")
    for row in rows:
        print(f"{row['what']:10}{row['ours_ms']:>9} ms{row['raw_ms']:>9} ms{row['ratio']:>14}")
