"""A store in memory as one that can be taken away: it is in a process of its own."""

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self, final

from processes import pause, spawn

from smoothcluster.memory.connections import check_path

_SERVER = """
import sys
from smoothcluster.memory.server import MemoryServer
server = MemoryServer(sys.argv[1])
for line in sys.stdin:
    server.start() if line == "start\\n" else server.stop()
    print("done", flush=True)
"""


@final
class MemoryStore:
    """A process that serves a store at a socket in a folder of its own.

    What is killed is its network: the socket is gone, with every connection to it, at whatever moment that is, and
    nobody is told. The process lives on, since what it holds would go with it, and this is a store whose
    acknowledged commits come back. What is paused is the process.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="smoothcluster-"))
        self.path = check_path(self._folder / "cluster.sock")
        self._process = self._spawn()

    def _spawn(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", _SERVER, str(self.path)]
        return spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)

    @property
    def url(self) -> str:
        """What `connect` takes."""
        return f"memory://{self.path}"

    def start(self) -> Self:
        """It is back, with all it held."""
        self._tell("start")
        return self

    def kill(self) -> None:
        """It cannot be reached any more."""
        self._tell("stop")

    def pause(self) -> None:
        """SIGSTOP."""
        pause(self._process.pid)

    def resume(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def empty(self) -> None:
        """SIGKILL, and another process serves in its place: all is lost."""
        self._end()
        self._process = self._spawn()
        self.start()

    def save(self) -> None:
        """There is nothing to make a backup of."""
        raise NotImplementedError

    def set_back(self) -> None:
        """There is no backup."""
        raise NotImplementedError

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def stop(self) -> None:
        """SIGKILL: all is lost."""
        self._end()
        shutil.rmtree(self._folder)

    def _tell(self, what: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n".encode())
        self._process.stdin.flush()
        assert self._process.stdout.readline() == b"done\n", "it has ended"
