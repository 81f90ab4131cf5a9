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
from typing import Any, cast, final

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.model import Handler, Task, TaskContext
from smoothcluster.pool.children.handler_ref import load
from smoothcluster.pool.children.messages import BATCH_CHARACTERS, Reader, send
from smoothcluster.pool.fork_guard import count, end_copies
from smoothcluster.pool.handlers import is_async
from smoothcluster.pool.run import Run, RunState, describe, raised, record_result

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

_IDLE_EXIT_DELAY_SECONDS = 0.2
"""Seconds by which an idle child outlives the parent."""

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
    _end_with(parent)
    link = socket.socket(fileno=fd)
    link.setblocking(True)  # The parent's script may have set a default timeout: that makes descriptors non-blocking.
    os.set_inheritable(fd, False)  # A program that a task starts has no use for the connection.
    reader, outlet = Reader(link), _Outlet(link)
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
    _end_with(None)
    inbox = _Inbox(reader)
    threading.Thread(target=inbox.read, name="smoothcluster-inbox", daemon=True).start()
    if first["memory"] is not None:
        _limit(int(first["memory"]))
    outlet.send({"ready": True})
    _serve(outlet, inbox, handler, parent)


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


def _end_with(parent: int | None) -> None:
    """Have the kernel end this process with *parent*; if None, stop this.

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


@final
class _Outlet:
    """The way to the parent.

    A handler may close descriptors that the handler does not own, and open a file which gets the same number. The
    child ends then: an answer would go into this file.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._identity = self._look()

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.fstat(self._link.fileno())
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def send(self, message: dict[str, object]) -> None:
        """Send *message* to the parent."""
        if self._look() != self._identity:
            with suppress(Exception):  # Standard error may be closed, too.
                sys.stderr.write("a handler has closed the connection of this child process\n")
            os._exit(1)
        send(self._link, message)


class _Inbox:
    """Receives messages of the parent, while the main thread is busy with a handler."""

    def __init__(self, reader: Reader) -> None:
        self.tasks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.stopping = threading.Event()
        self._reader = reader

    def read(self) -> None:
        """Sort messages until the parent ends, and end the process a little later."""
        with suppress(Exception):  # Besides EOFError, whatever a handler has done to the socket.
            while True:
                message = self._reader.next()
                if "stop" in message:
                    self.stopping.set()
                else:
                    self.tasks.put(message)
        SYSTEM_CLOCK.sleep(_IDLE_EXIT_DELAY_SECONDS)
        os._exit(0)


def _serve(outlet: _Outlet, inbox: _Inbox, handler: Handler, parent: int) -> None:
    forks = count()
    loop = asyncio.new_event_loop() if is_async(handler) else None
    if loop is not None:
        asyncio.set_event_loop(loop)
    while True:
        message = _next_task(inbox)
        context = TaskContext(**message["context"], stopping=inbox.stopping)
        run = Run(Task.from_json(message["task"]), context)
        _end_with(parent)
        outlet.send({"begun": True, "run": message["run"]})
        exhausted = _call(handler, run, loop)
        end_copies(forks)
        _end_with(None)
        _answer(outlet, run, {"error": run.error, "exhausted": exhausted, "run": message["run"]})


def _next_task(inbox: _Inbox) -> dict[str, Any]:
    """Wait for the next task, whatever a signal handler of the last task raises here."""
    while True:
        try:
            return inbox.tasks.get()
        except BaseException:  # noqa: BLE001
            _log.exception("a signal handler of a task raised after the end of the task")


def _answer(outlet: _Outlet, run: Run, answer: dict[str, object]) -> None:
    """Send the outcome; first the submitted tasks, because a single message might exceed the limit."""
    if run.state is RunState.DONE:
        answer["value"] = run.encoded
        batch, size = list[str](), 0
        for text in run.added_encoded:
            batch.append(text)
            size += len(text)
            if size > BATCH_CHARACTERS:
                outlet.send({"added": batch, "run": answer["run"]})
                batch, size = [], 0
        if batch:
            outlet.send({"added": batch, "run": answer["run"]})
    outlet.send(answer)


def _call(handler: Handler, run: Run, loop: asyncio.AbstractEventLoop | None) -> bool:
    """Run the handler and fill in the outcome; return whether the handler ran out of memory."""
    timer = signal.getitimer(signal.ITIMER_REAL)
    try:
        value = handler(run.task, run.context)
        if loop is not None:
            value = _complete(loop, cast("Awaitable[object]", value))
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a handler is no reason to end the child
        raised(run, error)
        return isinstance(error, MemoryError)
    finally:
        if timer == (0.0, 0.0):  # An alarm that the task leaves behind must not ring in the next task.
            signal.setitimer(signal.ITIMER_REAL, 0.0)
    record_result(run, value)
    return False


def _complete(loop: asyncio.AbstractEventLoop, value: Awaitable[object]) -> object:
    """Run *value* to the end, whatever asyncio tasks that earlier tasks left behind may raise meanwhile."""
    task = loop.create_task(_awaited(value))
    while not task.done():
        try:
            loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt):  # Asyncio lets these exceptions of any task end the loop.
            if not task.done():
                _log.exception("an asyncio task that a handler left behind tried to end the event loop")
        except BaseException:
            if not task.done():  # A signal handler has interrupted the loop.
                task.cancel()
                raise
    return task.result()


async def _awaited(value: Awaitable[object]) -> object:
    return await value
