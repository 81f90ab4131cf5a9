"""The line between a member's process and the supervisor that started it (``run --members``): a socket pair.

The member announces a departure, so the supervisor can tell a departure from a death with the same exit status: a task
may call ``os._exit(0)``. The end of the supervisor closes the line, and the member leaves as at SIGTERM, so no member
outlives a killed supervisor.
"""

import os
import signal
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress

import click

from smoothcluster.errors import UsageError

SUPERVISOR_VARIABLE = "SMOOTHCLUSTER_SUPERVISOR_FD"
"""The environment variable with the number of the file descriptor of the member's end of the line."""

DEPARTURE_WORD, WRONG_CALL_WORD = b"left", b"usage"
"""The announcements of an end: the member has left its group; the call is wrong, so a restart would not help."""


@contextmanager
def supervised() -> Generator[None]:
    """Leave when the supervisor ends, and announce a departure, or a call that a restart cannot mend."""
    line = _line()
    if line is None:
        yield
        return
    with line:
        threading.Thread(target=_leave_after, args=(line,), name="smoothcluster-supervised", daemon=True).start()
        try:
            yield
        except (UsageError, click.UsageError):
            _announce(line, WRONG_CALL_WORD)
            raise
        _announce(line, DEPARTURE_WORD)


def _announce(line: socket.socket, end: bytes) -> None:
    with suppress(OSError):  # The supervisor has ended.
        line.sendall(end)


def _line() -> socket.socket | None:
    # Taken out of the environment: the handler's own child processes must not inherit the line.
    number = os.environ.pop(SUPERVISOR_VARIABLE, None)
    if number is None:
        return None
    os.set_inheritable(int(number), False)
    line = socket.socket(fileno=int(number))
    line.settimeout(None)  # Whatever default the handler's module sets.
    return line


def _leave_after(line: socket.socket) -> None:
    try:
        ended = line.recv(1) == b""
    except OSError:  # This process ends the line.
        return
    if ended:
        os.kill(os.getpid(), signal.SIGTERM)
