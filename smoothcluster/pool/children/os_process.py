"""The operating system's process of a child: start the process, learn the exit status, and end the process.

The settings of the parent's process must not matter here. The parent may ignore SIGCHLD, or wait for all of its
children: then the exit status is lost, and stays unknown. The parent may have closed standard output: then a new
socket would get this descriptor, and everything that a handler prints would go to the socket.
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import cast, final

from smoothcluster.clock import SYSTEM_CLOCK

LONGEST_END_SECONDS = 5.0
"""Seconds to wait for the end of a killed process, which the kernel may delay, such as on a dead network disk."""

_LONGEST_LOOK_PAUSE_SECONDS = 0.05
"""Seconds between two looks at a process that is about to end. The first pauses are shorter."""


def start_process(script: str, arguments: list[str], inherited: int) -> "OsProcess":
    """Start a fresh interpreter like this one, with *script* and the descriptor *inherited*. Raise OSError."""
    # The flags of this interpreter, such as -O or -W error, so that a handler does the same here and there.
    flags = cast("Callable[[], list[str]]", vars(subprocess)["_args_from_interpreter_flags"])()
    closed = [each for each in (1, 2) if not _is_open(each)]
    popen = subprocess.Popen(
        [sys.executable, *flags, "-c", script, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if 1 in closed else None,
        stderr=subprocess.DEVNULL if 2 in closed else None,
        pass_fds=[inherited],
        start_new_session=True,
    )
    return OsProcess(popen)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets, neither of them in the place of a closed standard stream."""
    ours, theirs = socket.socketpair()
    return _beyond_standard_streams(ours), _beyond_standard_streams(theirs)


def _beyond_standard_streams(link: socket.socket) -> socket.socket:
    if link.fileno() > 2:
        return link
    with link:
        return socket.socket(fileno=fcntl.fcntl(link, fcntl.F_DUPFD_CLOEXEC, 3))


@final
class OsProcess:
    """A started process. Any thread may call the methods. No method waits without a bound."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self.pid = popen.pid
        self.status: int | None = None
        """The exit status, or minus the signal; None while the process runs, or if some other code took the status."""
        self._over = False
        self._lock = threading.Lock()
        """Held while the process is waited for or killed: after the wait, the number may be another process's."""

    def alive(self) -> bool:
        """Whether the process still runs."""
        with self._lock:
            return not self._look()

    def kill(self) -> None:
        """Send SIGKILL if the process still runs."""
        with self._lock:
            if not self._look():
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> bool:
        """Wait for the end, at most so many *seconds*; return whether the process has ended."""
        deadline, pause = SYSTEM_CLOCK.monotonic() + seconds, 0.0005
        while self.alive():
            if SYSTEM_CLOCK.monotonic() >= deadline:
                return False
            SYSTEM_CLOCK.sleep(pause)
            pause = min(2 * pause, _LONGEST_LOOK_PAUSE_SECONDS)
        return True

    def end(self) -> None:
        """Kill the process if need be, and leave no zombie if the kernel ends the process in time."""
        self.kill()
        self.wait(LONGEST_END_SECONDS)

    def _look(self) -> bool:
        if self._over:
            return True
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            self._over, self._popen.returncode = True, 0
        else:
            if pid == self.pid:
                self._over, self.status = True, os.waitstatus_to_exitcode(status)
                self._popen.returncode = self.status  # So that nothing waits for this number again.
        return self._over
