"""Where members are born: a process that has imported what they need, and forks one whenever it is asked.

Python takes a fifth of a second of a processor to start and to import all that; a group of five takes it five
times, and there are hundreds of groups. What is forked has no thread, no connection and no lock that is held: it
is where any process is that has just done its imports. Members' own children are spawned, as ever.

The nursery ends with the tests, and its members with it: python -m cluster.nursery
"""

import atexit
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, final

from cluster import member_process
from processes import spawn

from smoothcluster.registry import schemes
from smoothcluster.testing import eventually

_PR_SET_PDEATHSIG = 1


@final
class Born:
    """A process that the nursery has forked, to be used as a `subprocess.Popen`."""

    def __init__(self, options: dict[str, Any], folder: Path, out: Path, err: Path) -> None:
        self.returncode: int | None = None
        self._polling = threading.Lock()
        self.pid: int = _ask({"options": options, "folder": str(folder), "out": str(out), "err": str(err)})

    def poll(self) -> int | None:
        """How it has ended: the exit status, or minus the signal it died of."""
        # Two threads of a test may ask at the same time, and the nursery can tell an end only once.
        with self._polling:
            if self.returncode is None:
                self.returncode = _ask({"pid": self.pid})
            return self.returncode

    def wait(self, within: float = 60.0) -> int:
        """Wait for its end, and return that."""
        eventually(lambda: self.poll() is not None, within)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


_asking = threading.Lock()


def _ask(question: dict[str, Any]) -> Any:
    with _asking:
        nursery = _nursery()
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        nursery.stdin.write(json.dumps(question).encode() + b"\n")
        nursery.stdin.flush()
        return json.loads(nursery.stdout.readline())


@cache
def _nursery() -> "subprocess.Popen[bytes]":
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    nursery = spawn(
        [sys.executable, "-m", "cluster.nursery"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)},
        start_new_session=True,
    )
    atexit.register(nursery.communicate)
    return nursery


# What follows happens in the nursery


def main() -> None:
    """Answer questions until there are no more."""
    libc = ctypes.CDLL(None)
    for scheme in schemes():
        with suppress(ImportError):  # A driver that is not installed. To import one starts no thread and opens nothing.
            import_module(f"smoothcluster_{scheme}")
    for line in sys.stdin.buffer:
        question = json.loads(line)
        answer = _ended(question["pid"]) if "pid" in question else _fork(libc, **question)
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


def _ended(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _fork(libc: ctypes.CDLL, options: dict[str, Any], folder: str, out: str, err: str) -> int:
    """The pid of a new member, once it leads a session of its own."""
    nursery, (ready, told) = os.getpid(), os.pipe()
    pid = os.fork()
    if pid:
        os.close(told)
        os.read(ready, 1)
        os.close(ready)
        return pid
    os.setsid()
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != nursery:
        os._exit(1)
    os.chdir(folder)
    for path, descriptor in ((os.devnull, 0), (out, 1), (err, 2)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.close(ready)
    os.close(told)
    member_process.main(options)
    sys.exit()


if __name__ == "__main__":
    main()
