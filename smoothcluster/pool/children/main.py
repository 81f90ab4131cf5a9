"""A child process: runs handlers for a member, so that what dies of a task is not the member.

It is a fresh interpreter in a session of its own, so signals to the member's process group pass it
by; it ignores SIGINT and SIGTERM, ends with its parent, and asks to be the first to go when the
machine runs out of memory. Its standard output and error are the parent's.
"""

import asyncio
import ctypes
import os
import queue
import re
import resource
import signal
import socket
import sys
import threading
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.model import Handler, Task, TaskContext
from smoothcluster.pool.children.handler_ref import load
from smoothcluster.pool.children.messages import Reader, send
from smoothcluster.pool.fork_guard import count, end_copies
from smoothcluster.pool.handlers import is_async
from smoothcluster.pool.run import Run, RunState, raised, settle

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

_LINGER = 0.2
"""Seconds that a child which idles outlives its parent."""


class _State:
    importing = False


def importing() -> bool:
    """Whether this is a child that imports its handler: no time to join groups."""
    return _State.importing


def main(fd: int, parent: int) -> None:
    """Serve the parent at the other end of *fd* until that ends."""
    _prepare()
    _end_with(parent)
    link = socket.socket(fileno=fd)
    reader = Reader(link)
    try:
        first = reader.next()
    except EOFError:
        return
    _State.importing = True
    try:
        handler = load(first["origin"])
    except BaseException as error:  # noqa: BLE001 - whatever it is, the handler cannot be had
        send(link, {"unable": f"{type(error).__name__}: {error}"})
        return
    _State.importing = False
    _end_with(None)
    inbox = _Inbox(reader)
    threading.Thread(target=inbox.read, name="smoothcluster-inbox", daemon=True).start()
    if first["memory"] is not None:
        _limit(int(first["memory"]))
    send(link, {"ready": True})
    _serve(link, inbox, handler, parent)


def _prepare() -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with(parent: int | None) -> None:
    """Have the kernel end this process with its parent, or not if that is None.

    That is asked for while it imports or runs a task. Children that idle would end at the very moment
    at which others take over from their parent, and need the processors: they see their connection end.
    """
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if parent is not None else 0)
    if parent not in (None, os.getppid()):  # It ended before we asked.
        os._exit(1)


def _limit(memory: int) -> None:
    """Let the handler's tasks have *memory* bytes beside what it took to get ready for them.

    RLIMIT_DATA, not RLIMIT_AS: what is mapped and never used, as allocators and numeric libraries
    do by the gigabyte, does no harm.
    """
    used = re.search(r"^VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    most = (int(used[1]) * 1024 if used else 0) + memory
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


class _Inbox:
    """What the parent says, while the main thread is busy with a handler."""

    def __init__(self, reader: Reader) -> None:
        self.tasks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.stopping = threading.Event()
        self._reader = reader

    def read(self) -> None:
        """Sort messages until the parent ends, and end a little later."""
        with suppress(EOFError):
            while True:
                message = self._reader.next()
                if "stop" in message:
                    self.stopping.set()
                else:
                    self.tasks.put(message)
        SYSTEM_CLOCK.sleep(_LINGER)
        os._exit(0)


def _serve(link: socket.socket, inbox: _Inbox, handler: Handler, parent: int) -> None:
    forks = count()
    loop = asyncio.Runner() if is_async(handler) else None
    while True:
        message = inbox.tasks.get()
        context = TaskContext(**message["context"], stopping=inbox.stopping)
        run = Run(Task.from_json(message["task"]), context)
        _end_with(parent)
        send(link, {"begun": True})
        exhausted = _call(handler, run, loop)
        end_copies(forks)
        _end_with(None)
        answer: dict[str, object] = {"error": run.error, "exhausted": exhausted}
        if run.state is RunState.DONE:
            answer |= {"value": run.encoded, "added": run.added_encoded}
        send(link, answer)


def _call(handler: Handler, run: Run, loop: asyncio.Runner | None) -> bool:
    """Run the handler and fill in what came of it; whether it ran out of memory."""
    try:
        value = handler(run.task, run.context)
        if loop is not None:
            value = loop.run(_awaited(cast("Awaitable[object]", value)))
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a handler is no reason to end the child
        raised(run, error)
        return isinstance(error, MemoryError)
    settle(run, value)
    return False


async def _awaited(value: Awaitable[object]) -> object:
    return await value
