"""What the benchmarks share: members as processes, a log that all of them append to, and figures."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent


def until(condition: Callable[[], bool], within: float = 60.0, what: str = "the group") -> None:
    """Wait for a condition; these are benchmarks, so looking every few milliseconds is fine."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {within} s for {what}")
        time.sleep(0.05)


class Log:
    """A file that members append a line to for each task that starts; read as it grows.

    A line is: monotonic seconds (one clock for all processes of a machine), member, shard, task.
    """

    def __init__(self, path: Path) -> None:
        path.touch()
        self.path = path
        self._file = path.open()
        self._part = ""

    def new(self) -> list[tuple[float, str, int, str]]:
        """The lines since the last call."""
        text = self._part + self._file.read()
        whole, _, self._part = text.rpartition("\n")
        rows = (line.split() for line in whole.splitlines())
        return [(float(at), member, int(shard), task) for at, member, shard, task in rows]


class Members:
    """Processes that run *program* of ``benchmarks/``."""

    def __init__(self, url: str, group: str, *options: str, program: str = "bench_member.py") -> None:
        self._command = [sys.executable, str(ROOT / "benchmarks" / program), url, group, *options]
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self) -> int:
        """One more; return its pid."""
        process = subprocess.Popen(self._command, env=os.environ | {"PYTHONUNBUFFERED": "1"})
        self.processes[process.pid] = process
        return process.pid

    def kill(self, pid: int) -> None:
        """SIGKILL."""
        self.processes.pop(pid).kill()

    def close(self) -> None:
        """Kill all that are left."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()


def figures(values: Iterable[float], digits: int = 2) -> str:
    """Median, 99th percentile and largest."""
    ranked = sorted(values)
    if not ranked:
        return "-"
    p99 = ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))]
    return f"median {median(ranked):.{digits}f}  p99 {p99:.{digits}f}  max {ranked[-1]:.{digits}f}"


def machine() -> str:
    """What this was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    return f"{os.cpu_count()} x {model}, Python {sys.version.split()[0]}"
