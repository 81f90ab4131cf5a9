"""What stands between members, and shuts as firewalls and proxies do: by a reset or in order, and then by refusals.

`Doors` stand in for both, everywhere. A member that is given a door announces the door's port in place of its own: see
`cluster.member_process`. `reject` has the kernel do so, where there is iptables and nobody else on the network.
"""

import os
import selectors
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import final


@final
class Doors:
    """Ports that each lead to the port of one member, until they are shut."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._listening: dict[int, socket.socket] = {}
        self._lines: dict[socket.socket, tuple[int, socket.socket]] = {}
        """For each caller: the door, and the connection to the member."""
        self._greeted: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def new(self) -> Path:
        """Open one more door; return the file into which its member is to write its own port."""
        with self._lock:
            self._listen(0)
            port = list(self._listening)[-1]
        return self._folder / f"door-{port}"

    def held(self, door: Path) -> int:
        """How many callers hold a connection through *door* and have been greeted."""
        with self._lock:
            return sum(self._lines[caller][0] == _port(door) for caller in self._greeted)

    def reject(self, *doors: Path) -> None:
        """From now on refuse whoever comes to *doors*, and reset all connections, as a firewall does with REJECT."""
        self._shut(doors, struct.pack("ii", 1, 0))

    def end(self, *doors: Path) -> None:
        """From now on refuse whoever comes to *doors*, and close all connections in order, as a proxy that ends."""
        self._shut(doors, struct.pack("ii", 0, 0))

    def admit(self, *doors: Path) -> None:
        """Let everybody through again."""
        with self._lock:
            for door in doors:
                self._listen(_port(door))

    def close(self) -> None:
        """End all of it."""
        self._closing = True
        self._thread.join()
        for each in (*self._listening.values(), *self._lines, *(line[1] for line in self._lines.values())):
            each.close()
        self._selector.close()

    def _listen(self, port: int) -> None:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()
        port = int(listening.getsockname()[1])
        self._listening[port] = listening
        self._selector.register(listening, selectors.EVENT_READ, port)

    def _shut(self, doors: tuple[Path, ...], linger: bytes) -> None:
        with self._lock:
            for port in map(_port, doors):
                self._refuse(port)
                for caller in [caller for caller, line in self._lines.items() if line[0] == port]:
                    self._hang_up(caller, linger)

    def _refuse(self, port: int) -> None:
        listening = self._listening.pop(port, None)
        if listening is not None:
            self._selector.unregister(listening)
            listening.close()

    def _run(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select(0.1):
                with self._lock:
                    if key.data in self._listening and key.fileobj is self._listening[key.data]:
                        self._accept(key.data)
                    elif key.data in self._lines:
                        self._pass_on(key.data)

    def _accept(self, port: int) -> None:
        caller, _ = self._listening[port].accept()
        try:
            member = socket.create_connection(
                ("127.0.0.1", int((self._folder / f"door-{port}").read_text())), timeout=20.0
            )
        except OSError:  # The member's process has ended: its port refuses, and so does the door.
            self._refuse(port)
            caller.close()
            return
        member.setblocking(False)
        self._lines[caller] = (port, member)
        self._selector.register(caller, selectors.EVENT_READ, caller)
        self._selector.register(member, selectors.EVENT_READ, caller)

    def _pass_on(self, caller: socket.socket) -> None:
        """Pass on what the member says, until either hangs up; callers say nothing."""
        heard = b""
        with suppress(OSError):
            heard = self._lines[caller][1].recv(4096)
            caller.sendall(heard)
        if heard:
            self._greeted.add(caller)
        else:
            self._hang_up(caller, struct.pack("ii", 0, 0))

    def _hang_up(self, caller: socket.socket, linger: bytes) -> None:
        _, member = self._lines.pop(caller)
        self._greeted.discard(caller)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        for each in (caller, member):
            self._selector.unregister(each)
            each.close()


def _port(door: Path) -> int:
    return int(door.name.removeprefix("door-"))


def has_own_iptables() -> bool:
    """Whether this process may change the firewall of its network, with nobody but itself on that network."""
    alone = [name for _, name in socket.if_nameindex()] == ["lo"]
    return alone and os.geteuid() == 0 and shutil.which("iptables") is not None


@contextmanager
def reject(ports: Iterable[int], answer: str) -> Generator[None]:
    """Have the kernel reject all packets to *ports* with *answer*."""
    numbers = ",".join(map(str, ports))
    rule = ["INPUT", "-p", "tcp", "-m", "multiport", "--dports", numbers, "-j", "REJECT", "--reject-with", answer]
    subprocess.run(["iptables", "-I", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run(["iptables", "-D", *rule], check=True)


def connections(port: int) -> int:
    """How many established connections to *port* this machine has."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(int(line[2].partition(":")[2], 16) == port and line[3] == "01" for line in lines)
