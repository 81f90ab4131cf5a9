"""Members in processes of their own, and ports on which a test itself answers: what a prober meets."""

import json
import os
import queue
import random
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import smoothcluster.failure_detector
from smoothcluster.clock import SYSTEM_CLOCK, Clock
from smoothcluster.failure_detector import Peer, Prober, Proof
from smoothcluster.testing.clock import eventually

DEADLINE = 20.0
LOOPBACK = "127.0.0.1"

MEMBER = """
import ctypes, os, resource, sys, time
libc = ctypes.PyDLL(None)
from smoothcluster.failure_detector import ListenAddress, Listener, listener
if sys.argv[3] == "together":
    listener.keep_descriptors_apart = lambda keep: False
listener = Listener(ListenAddress(sys.argv[1]))
listener.announce("g", "m", sys.argv[2])
print(listener.address[1], flush=True)
for line in sys.stdin:
    exec(line)
    print("ok", flush=True)
"""


class Process:
    """A member in a process of its own: it listens, greets, and runs the lines it is given.

    Unless *apart*, its listener shares the process's descriptors, as on a system that cannot keep them apart.
    """

    def __init__(self, incarnation: str = "i1", host: str = LOOPBACK, *, apart: bool = True) -> None:
        environment = os.environ | {"PYTHONPATH": str(Path(smoothcluster.failure_detector.__file__).parents[2])}
        self._popen = subprocess.Popen(
            [sys.executable, "-c", MEMBER, host, incarnation, "apart" if apart else "together"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self.children: list[int] = []
        self.peer = peer_at(int(self.answer()), incarnation, host)

    def _write(self, line: str) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(line.encode() + b"\n")
        self._popen.stdin.flush()

    def answer(self) -> str:
        """The next line it prints."""
        assert self._popen.stdout is not None
        return self._popen.stdout.readline().decode().strip()

    def run(self, line: str) -> None:
        """Let it run a line of Python, and wait till it has."""
        self._write(line)
        assert self.answer() == "ok"

    def fork(self, how: str) -> int:
        """Let it have a child that lives until it is killed; return the child's pid."""
        self.run(f"child = {how}() or libc.pause()")
        self.children.append(int(self.ask("child")))
        return self.children[-1]

    def ask(self, expression: str) -> str:
        """What the expression is there."""
        self._write(f"print({expression}, flush=True)")
        answer = self.answer()
        assert self.answer() == "ok"
        return answer

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; one that stops it has done so on return."""
        self._popen.send_signal(number)
        if number is signal.SIGSTOP:
            os.waitid(os.P_PID, self._popen.pid, os.WSTOPPED | os.WNOWAIT)

    def end(self) -> None:
        """Make sure that it is gone, and its children."""
        for child in self.children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()


class Watcher:
    """A prober, and what it said."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self.said: queue.Queue[tuple[str, Proof, float]] = queue.Queue()
        self.prober = Prober(lambda incarnation, proof, after: self.said.put((incarnation, proof, after)), clock)

    def arm(self, *peers: Peer) -> None:
        """Watch *peers*, and wait until each has greeted."""
        self.prober.watch(peers)
        eventually(lambda: set(self.prober.armed) == {peer.incarnation for peer in peers})

    def next(self) -> tuple[str, Proof]:
        """What it says next."""
        incarnation, proof, after = self.said.get(timeout=DEADLINE)
        assert 0 <= after < DEADLINE
        return incarnation, proof


class Stranger:
    """A port on which the test itself answers. Closes everything when the test ends."""

    def __init__(self, backlog: int = 16) -> None:
        self.port = 0
        self.listen(backlog)
        self.port = int(self.socket.getsockname()[1])
        self.callers: list[socket.socket] = []

    def listen(self, backlog: int = 16) -> None:
        """Listen on the port, again after it was closed."""
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((LOOPBACK, self.port))
        self.socket.listen(backlog)
        self.socket.settimeout(DEADLINE)

    def accept(self, says: bytes = b"") -> socket.socket:
        """Take the next call, and say something."""
        caller, _ = self.socket.accept()
        caller.settimeout(DEADLINE)
        self.callers.append(caller)
        caller.sendall(says)
        return caller

    def close(self) -> None:
        """Hang up, and stop listening first."""
        self.socket.close()
        for caller in self.callers:
            caller.close()


def reset(connection: socket.socket) -> None:
    """End *connection* by RST, as a firewall does that rejects."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def not_apart(keep: int) -> bool:
    """What `keep_descriptors_apart` says on a system that cannot."""
    return False


def peer_at(port: int, incarnation: str = "i1", host: str = LOOPBACK, member: str = "m") -> Peer:
    """An incarnation of m in g, said to listen on *port*."""
    return Peer(incarnation, member, "g", host, port)


def greeting(incarnation: str = "i1", member: str = "m", group: str = "g") -> bytes:
    """What a listener says."""
    return json.dumps({"group": group, "member": member, "incarnation": incarnation}).encode() + b"\n"


def own_place() -> tuple[str, int]:
    """An address of the loopback that nobody else uses, and a port there that the kernel gives to nobody."""
    numbers = [random.randint(1, 254) for _ in range(3)]
    return f"127.{'.'.join(map(str, numbers))}", random.randint(11_000, 19_000)


def call(address: tuple[str, int]) -> socket.socket:
    """Connect as any client might."""
    return socket.create_connection(address, timeout=DEADLINE)


def heard(connection: socket.socket) -> bytes:
    """The line that is said on *connection*; empty where it ends."""
    with connection.makefile("rb") as lines, suppress(ConnectionResetError):
        return lines.readline()
    return b""
