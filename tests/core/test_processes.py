"""What the tests themselves rest on: processes and servers that leave nothing behind, and ports of their own."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

import pytest
from processes import pause, spawn
from servers import Server, free_port

from smoothcluster.testing import eventually

TESTS = Path(__file__).parents[1]


def run(code: str) -> "subprocess.Popen[bytes]":
    """Another run of tests, which does *code*."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def has_ended(pid: int) -> bool:
    """Whether the process is gone, or waits for somebody to take note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
def test_what_tests_spawn_ends_with_them(paused: bool) -> None:
    """Though they end by SIGKILL, and though the thread that asked for the process has long ended."""
    code = """
import sys, threading
from processes import spawn
spawned = []
thread = threading.Thread(target=lambda: spawned.append(spawn(["sleep", "1000"])))
thread.start()
thread.join()
print(spawned[0].pid, flush=True)
sys.stdin.read()
"""
    with run(code) as tests:
        assert tests.stdout is not None
        pid = int(tests.stdout.readline())
        if paused:
            eventually(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
            pause(pid)
        tests.kill()
    eventually(lambda: has_ended(pid))


def test_whoever_asked_for_a_process_may_end_before_it() -> None:
    """Servers of an ensemble are started by threads that end at once."""
    spawned = list["subprocess.Popen[bytes]"]()
    thread = threading.Thread(target=lambda: spawned.append(spawn(["cat"], stdin=subprocess.PIPE)))
    thread.start()
    thread.join()
    with pytest.raises(subprocess.TimeoutExpired):
        spawned[0].wait(0.1)
    spawned[0].communicate()
    assert spawned[0].returncode == 0


def test_a_paused_process_has_stopped() -> None:
    """With all its threads, when the call returns."""
    process = spawn(["sleep", "1000"])
    pause(process.pid)
    assert Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    process.kill()
    process.wait()


def test_no_port_is_given_twice() -> None:
    """Not to another run of the tests either, though whoever has it does not listen on it yet."""
    mine, other = free_port(), free_port()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    code = f"""
import random
from servers import free_port
drawn = iter([{mine}, {other}, {mine}, {free}])
random.randrange = lambda *bounds: next(drawn)
print(free_port())
"""
    with run(code) as tests:
        assert tests.communicate()[0] == f"{free}\n".encode()


@final
class Shell(Server):
    """A server that does what it is told."""

    scheme = "shell"

    def __init__(self, does: str) -> None:
        super().__init__()
        self._does = does

    def command(self) -> Sequence[str]:
        """A line for the shell."""
        return ["sh", "-c", self._does]

    def answers(self) -> bool:
        """Once it says so."""
        return "ready" in self.log


@pytest.fixture
def server() -> Iterator[Shell]:
    """One that runs until it is killed."""
    with Shell("echo ready; exec sleep 1000") as server:
        yield server


def test_a_server_that_ends_instead_of_answering_says_why() -> None:
    """The error has its last words, and nothing is left of it."""
    server = Shell("echo no such option; exit 1")
    with pytest.raises(RuntimeError, match="shell did not start: it ended\nno such option"):
        server.start()
    assert not server.folder.exists()


def test_a_server_keeps_its_folder_until_it_is_stopped(server: Shell) -> None:
    """It may be killed and started again."""
    pid = server.pid
    server.restart()
    assert server.pid != pid
    eventually(lambda: server.log == "ready\nready\n")
    server.stop()
    assert not server.runs
    assert not server.folder.exists()


def test_a_paused_server_can_be_stopped(server: Shell) -> None:
    """At once: it is let go on for that."""
    server.pause()
    assert server.runs
    server.stop()
    assert not server.runs
