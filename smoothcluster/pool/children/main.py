"""The main program of a child process: runs handlers for a member, so that a deadly task kills only the child.

The child is a fresh interpreter in a separate session, so signals to the member's process group do
not reach the child. The child ignores SIGINT and SIGTERM, ends with the parent, and asks the kernel
to be killed first when the machine runs out of memory. Parent and child share standard output and
error.
"""

import os
import re
import resource
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType

from smoothcluster.pool.children.handler_ref import load
from smoothcluster.pool.children.messages import Reader
from smoothcluster.pool.children.worker import Inbox, Outlet, Worker, end_with
from smoothcluster.pool.run import describe

_IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that end other processes of the member's machine or service; the parent decides when a child ends."""

_IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}
"""Signals that every Python process ignores."""


class _Held(threading.local):
    """The signal mask of a thread before a fork."""

    mask: set[signal.Signals | int]


_held = _Held()


class _State:
    importing = False


def importing() -> bool:
    """Whether this process is a child that is importing the handler, and must not join groups meanwhile."""
    return _State.importing


def main(fd: int, parent: int) -> None:
    """Serve the parent at the other end of *fd* until the parent ends."""
    _prepare()
    end_with(parent)
    link = socket.socket(fileno=fd)
    link.setblocking(True)  # The parent's script may have set a default timeout: that makes descriptors non-blocking.
    os.set_inheritable(fd, False)  # A program that a task starts has no use for the connection.
    reader, outlet = Reader(link), Outlet(link)
    try:
        first = reader.next()
    except EOFError:
        return
    sys.argv[:] = first["argv"]
    _State.importing = True
    try:
        handler = load(first["origin"])
    except BaseException as error:  # noqa: BLE001 - whatever it is, the handler cannot be had
        outlet.send({"unable": describe(error)})
        return
    _State.importing = False
    end_with(None)
    inbox = Inbox(reader)
    threading.Thread(target=inbox.read, name="smoothcluster-inbox", daemon=True).start()
    if first["memory"] is not None:
        _limit(int(first["memory"]))
    outlet.send({"ready": True})
    worker = Worker(outlet, inbox, handler, parent)
    if first["width"] is None:
        worker.serve()
    worker.serve_many(first["width"])


def _prepare() -> None:
    _reset_signals()
    # Not SIG_IGN: programs that a task starts would inherit that, and ignore SIGTERM, too.
    for each in _IGNORED_SIGNALS:
        signal.signal(each, _ignore)
    # Copies of this process, such as the workers of `multiprocessing.Pool`, end by SIGTERM as usual. The signals are
    # held during the fork: a signal between the fork and the change of the handler would be lost, and whoever sent
    # the signal would wait for the end of the copy for ever.
    os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_take_signals_again)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _reset_signals() -> None:
    """Undo what this process inherits from the parent's script: ignored and blocked signals."""
    for each in signal.valid_signals() - _IGNORED_BY_PYTHON:
        if signal.getsignal(each) is signal.SIG_IGN:
            signal.signal(each, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing: the parent tells the child when to stop."""


def _hold_signals() -> None:
    _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED_SIGNALS)


def _release_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


def _take_signals_again() -> None:
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is _ignore:  # The handler's own choice stays.
            signal.signal(number, usual)
    _release_signals()


def _limit(memory: int) -> None:
    """Let the handler's tasks use *memory* bytes beyond the memory in use after the import.

    RLIMIT_DATA, not RLIMIT_AS: allocators and numeric libraries map gigabytes of address space and
    never use most of them, which does no harm.
    """
    used = re.search(r"^VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    most = (int(used[1]) * 1024 if used else 0) + memory
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
