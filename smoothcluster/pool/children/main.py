"""The main program of a child process: runs handlers for a member, so that a deadly task kills only the child.

The child is a fresh interpreter in a separate session, so signals to the member's process group do
not reach the child. The child ignores SIGINT and SIGTERM, ends with the parent, and asks the kernel
to be killed first when the machine runs out of memory. Parent and child share standard output and
error.
"""

import asyncio
import ctypes
import logging
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
from types import FrameType
from typing import Any, NoReturn, cast

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.model import Handler, Task, TaskContext
from smoothcluster.pool.children.handler_ref import load
from smoothcluster.pool.children.messages import Reader, send
from smoothcluster.pool.fork_guard import count, end_copies
from smoothcluster.pool.handlers import is_async
from smoothcluster.pool.run import Run, RunState, raised, record_result

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

_IDLE_EXIT_DELAY_SECONDS = 0.2
"""Seconds by which an idle child outlives the parent."""


class _State:
    importing = False


def importing() -> bool:
    """Whether this process is a child that is importing the handler, and must not join groups meanwhile."""
    return _State.importing


def main(fd: int, parent: int) -> None:
    """Serve the parent at the other end of *fd* until the parent ends."""
    _prepare()
    _end_with(parent)
    link = socket.socket(fileno=fd)
    link.setblocking(True)  # The parent's script may have set a default timeout: that makes descriptors non-blocking.
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
    _serve(_Worker(link, inbox, handler, parent), first["width"])


def _serve(worker: "_Worker", width: int | None) -> None:
    """Run a task at a time; or with a *width*, up to so many tasks at once."""
    if width is not None and worker.is_async:
        worker.serve_in_loop()
    for _ in range((width or 1) - 1):
        threading.Thread(target=worker.serve, name="smoothcluster-worker", daemon=True).start()
    worker.serve()


def _prepare() -> None:
    # Not SIG_IGN: programs that a task starts would inherit that, and ignore SIGTERM, too.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _ignore)
    # Copies of this process, such as the workers of `multiprocessing.Pool`, end by SIGTERM as usual.
    os.register_at_fork(after_in_child=_take_signals_again)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing: the parent tells the child when to stop."""


def _take_signals_again() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_with(parent: int | None) -> None:
    """Have the kernel end this process with *parent*; if None, stop this. The setting belongs to the calling thread.

    The child asks for this while importing or running a task. An idle child instead notices the end of
    the connection and exits a little later: idle children would otherwise all end at the moment at
    which other members take over from the parent and need the processors.
    """
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if parent is not None else 0)
    if parent not in (None, os.getppid()):  # The parent ended before the request.
        os._exit(1)


def _limit(memory: int) -> None:
    """Let the handler's tasks use *memory* bytes beyond the memory in use after the import.

    RLIMIT_DATA, not RLIMIT_AS: allocators and numeric libraries map gigabytes of address space and
    never use most of them, which does no harm.
    """
    used = re.search(r"^VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    most = (int(used[1]) * 1024 if used else 0) + memory
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


class _Inbox:
    """Receives messages of the parent, while the main thread is busy with a handler."""

    def __init__(self, reader: Reader) -> None:
        self.tasks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.stopping = threading.Event()
        self._reader = reader

    def read(self) -> None:
        """Sort messages until the parent ends, and end the process a little later."""
        with suppress(EOFError):
            while True:
                message = self._reader.next()
                if "stop" in message:
                    self.stopping.set()
                else:
                    self.tasks.put(message)
        SYSTEM_CLOCK.sleep(_IDLE_EXIT_DELAY_SECONDS)
        os._exit(0)


class _Worker:
    """Runs the parent's tasks: one after another in each thread that serves, or all at once in an event loop."""

    def __init__(self, link: socket.socket, inbox: _Inbox, handler: Handler, parent: int) -> None:
        self._link, self._inbox, self._handler, self._parent = link, inbox, handler, parent
        self.is_async = is_async(handler)
        self._forks = count()
        self._sending = threading.Lock()
        self._active: set[asyncio.Task[None]] = set()

    def serve(self) -> NoReturn:
        """Run a task at a time."""
        loop = asyncio.Runner() if self.is_async else None
        while True:
            message = self._inbox.tasks.get()
            run = self._begin(message)
            try:
                value = self._handler(run.task, run.context)
                if loop is not None:
                    value = loop.run(_awaited(cast("Awaitable[object]", value)))
            except BaseException as error:  # noqa: BLE001 - sys.exit() in a handler is no reason to end the child
                self._end(message, run, error)
            else:
                record_result(run, value)
                self._end(message, run)

    def serve_in_loop(self) -> NoReturn:
        """Run tasks of an ``async def`` handler at once."""
        loop = asyncio.Runner().get_loop()
        threading.Thread(target=self._feed, args=(loop,), name="smoothcluster-feeder", daemon=True).start()
        while True:
            try:
                loop.run_forever()
            except BaseException:  # noqa: BLE001 - a task that a handler left behind may exit or interrupt
                _log.exception("an asyncio task of a handler tried to end the event loop")

    def _feed(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            loop.call_soon_threadsafe(self._start, loop, self._inbox.tasks.get())

    def _start(self, loop: asyncio.AbstractEventLoop, message: dict[str, Any]) -> None:
        task = loop.create_task(self._run(message))
        self._active.add(task)
        task.add_done_callback(self._active.discard)

    async def _run(self, message: dict[str, Any]) -> None:
        run = self._begin(message)
        try:
            value = await cast("Awaitable[object]", self._handler(run.task, run.context))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is this run's
            self._end(message, run, error)
        else:
            record_result(run, value)
            self._end(message, run)

    def _begin(self, message: dict[str, Any]) -> Run:
        """Tell the parent that the task begins, and return the run."""
        context = TaskContext(**message["context"], stopping=self._inbox.stopping)
        run = Run(Task.from_json(message["task"]), context)
        _end_with(self._parent)
        self._answer(message, {"begun": True})
        return run

    def _end(self, message: dict[str, Any], run: Run, error: BaseException | None = None) -> None:
        """Tell the parent the outcome of the task."""
        if error is not None:
            raised(run, error)
        end_copies(self._forks)
        if len(self._active) <= 1:  # Tasks of an event loop share the thread: the last of them.
            _end_with(None)
        answer: dict[str, object] = {"error": run.error, "exhausted": isinstance(error, MemoryError)}
        if run.state is RunState.DONE:
            answer |= {"value": run.encoded, "added": run.added_encoded}
        self._answer(message, answer)

    def _answer(self, message: dict[str, Any], answer: dict[str, object]) -> None:
        if "number" in message:
            answer["number"] = message["number"]
        with self._sending:
            send(self._link, answer)


async def _awaited(value: Awaitable[object]) -> object:
    return await value
