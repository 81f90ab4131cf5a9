"""The benchmarks on a store that no other process can reach: what can be measured is, and the rest is refused."""

import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(program: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run one of them."""
    command = [sys.executable, str(BENCHMARKS / program), "--backend", "memory://bench", *options]
    # They import each other, from the folder that they are in.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_runner_can_be_a_thread() -> None:
    """Throughput is measured within one process where the store is in one."""
    done = run("throughput.py", "--tasks", "500")
    assert done.returncode == 0, done.stderr
    assert "500 no-op tasks through one Runner; memory://bench" in done.stdout


def test_what_kills_processes_says_that_it_cannot() -> None:
    """At once, with the reason, and without a trace."""
    done = run("takeover.py", "--kills", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("memory://bench: other processes do not see what is written there")
