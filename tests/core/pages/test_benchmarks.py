"""The benchmarks run: here on memory, as on any store that processes share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

from smoothcluster.memory.server import MemoryServer

BENCHMARKS = ROOT / "benchmarks"


@pytest.mark.parametrize(
    ("program", "options", "said"),
    [
        ("throughput.py", ("--tasks", "500"), "500 no-op tasks through one Runner; memory:///"),
        ("locks.py", ("--times", "5"), "medians of 5"),
        ("commits.py", ("--times", "5"), "medians of 5"),
    ],
)
def test_what_can_be_measured_in_moments(tmp_path: Path, program: str, options: tuple[str, ...], said: str) -> None:
    """Members are processes, and the raw driver is another; figures come out."""
    # They import each other, from the folder that they are in.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    with MemoryServer(tmp_path / "store") as server:
        done = subprocess.run(
            [sys.executable, str(BENCHMARKS / program), "--backend", server.url, *options],
            env=environment, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


@pytest.mark.parametrize(
    ("program", "options", "said"),
    [
        ("space.py", ("--most", "10000"), "bytes for each id, and microseconds"),
        ("members.py", ("--sizes", "2,3"), "the cost for one member; all; a store in memory"),
    ],
)
def test_what_needs_no_store(program: str, options: tuple[str, ...], said: str) -> None:
    """Small sizes will do."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / program), *options],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
