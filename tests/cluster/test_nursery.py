"""The members that tests have forked are processes like any other, and end with the tests."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cluster.group import NewGroup, child_environment

from smoothcluster.testing import eventually

TESTS_THAT_ARE_KILLED = """
import os, sys
from pathlib import Path
from cluster.group import Group

with Group("sqlite:///group.db", Path.cwd()) as group:
    print(group.start_one().pid, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_they_end_with_the_tests(tmp_path: Path) -> None:
    """Even if these are killed."""
    command = [sys.executable, "-c", TESTS_THAT_ARE_KILLED]
    done = subprocess.run(command, cwd=tmp_path, env=child_environment(), capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    eventually(lambda: not Path(f"/proc/{int(done.stdout)}").exists())


@pytest.mark.slow
def test_how_they_end_is_told(new_group: NewGroup, tmp_path: Path) -> None:
    """By a signal, of their own accord, or with an error and its trace."""
    group = new_group(f"sqlite:///{tmp_path}/group.db", runner=2, backup=0)
    killed, leaver = group.start(2)
    killed.kill()
    leaver.signal(signal.SIGTERM)
    broken = group.spawn(concurrency=0)
    assert [member.status() for member in (killed, leaver, broken)] == [-signal.SIGKILL, 0, 1]
    assert "UsageError: concurrency" in broken.errors
    assert not any(member.alive for member in (killed, leaver, broken))


@pytest.mark.slow
def test_threads_may_ask_at_the_same_time(new_group: NewGroup, tmp_path: Path) -> None:
    """All of them hear how a member has ended, though the kernel tells that once."""
    group = new_group(f"sqlite:///{tmp_path}/group.db", runner=1, backup=0)
    for _ in range(5):
        (member,) = group.start(1)
        with ThreadPoolExecutor(8) as threads:
            ends = [threads.submit(member.status) for _ in range(8)]
            member.kill()
            assert [end.result() for end in ends] == [-signal.SIGKILL] * 8
