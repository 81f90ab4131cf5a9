"""The work of a child process: receive tasks from the parent, run the handler, and send the outcomes."""

import asyncio
import ctypes
import logging
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, NoReturn, cast, final

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.model import Handler, Task, TaskContext
from smoothcluster.pool.children.messages import BATCH_CHARACTERS, Reader, send
from smoothcluster.pool.fork_guard import count, end_copies
from smoothcluster.pool.handlers import is_async
from smoothcluster.pool.run import Run, RunState, raised, record_result

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

_IDLE_EXIT_DELAY_SECONDS = 0.2
"""Seconds by which an idle child outlives the parent."""


def end_with(parent: int | None) -> None:
    """Have the kernel end this process with *parent*; if None, stop this. The setting belongs to the calling thread.

    The child asks for this while importing or running a task. An idle child instead notices the end of
    the connection and exits a little later: idle children would otherwise all end at the moment at
    which other members take over from the parent and need the processors.
    """
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if parent is not None else 0)
    if parent not in (None, os.getppid()):  # The parent ended before the request.
        os._exit(1)


@final
class Outlet:
    """The way to the parent.

    A handler may close descriptors that the handler does not own, and open a file which gets the same number. The
    child ends then: an answer would go into this file.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link, self._lock = link, threading.Lock()
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
        with self._lock:
            send(self._link, message)


class Inbox:
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


@final
class Worker:
    """Runs the parent's tasks: one after another in each thread that serves, or all at once in an event loop."""

    def __init__(self, outlet: Outlet, inbox: Inbox, handler: Handler, parent: int) -> None:
        self._outlet, self._inbox, self._handler, self._parent = outlet, inbox, handler, parent
        self._forks = count()
        self._active: set[asyncio.Task[None]] = set()

    def serve(self) -> NoReturn:
        """Run a task at a time, in the main thread."""
        loop = asyncio.new_event_loop() if is_async(self._handler) else None
        if loop is not None:
            asyncio.set_event_loop(loop)
        while True:
            message = self._next_task()
            timer = signal.getitimer(signal.ITIMER_REAL)
            run = self._begin(message)
            self._end(message, run, self._call(run, loop))
            if timer == (0.0, 0.0):  # An alarm that the task leaves behind must not ring in the next task.
                signal.setitimer(signal.ITIMER_REAL, 0.0)

    def serve_many(self, width: int) -> NoReturn:
        """Run up to *width* tasks at once."""
        if is_async(self._handler):
            self._serve_in_loop()
        for _ in range(width - 1):
            threading.Thread(target=self._serve_in_thread, name="smoothcluster-worker", daemon=True).start()
        self._serve_in_thread()

    def _serve_in_thread(self) -> NoReturn:
        while True:
            message = self._next_task()
            run = self._begin(message)
            self._end(message, run, self._call(run, None))

    def _serve_in_loop(self) -> NoReturn:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        threading.Thread(target=self._feed, args=(loop,), name="smoothcluster-feeder", daemon=True).start()
        while True:
            try:
                loop.run_forever()
            except BaseException:  # noqa: BLE001 - a task that a handler left behind may exit or interrupt
                _log.exception("an asyncio task of a handler tried to end the event loop")

    def _feed(self, loop: asyncio.AbstractEventLoop) -> NoReturn:
        while True:
            loop.call_soon_threadsafe(self._start, loop, self._next_task())

    def _start(self, loop: asyncio.AbstractEventLoop, message: dict[str, Any]) -> None:
        task = loop.create_task(self._run(message))
        self._active.add(task)
        task.add_done_callback(self._active.discard)

    async def _run(self, message: dict[str, Any]) -> None:
        run = self._begin(message)
        failure: BaseException | None = None
        try:
            value = await cast("Awaitable[object]", self._handler(run.task, run.context))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is this run's
            failure = error
            raised(run, error)
        else:
            record_result(run, value)
        self._end(message, run, failure)

    def _next_task(self) -> dict[str, Any]:
        """Wait for the next task, whatever a signal handler of the last task raises here."""
        while True:
            try:
                return self._inbox.tasks.get()
            except BaseException:  # noqa: BLE001
                _log.exception("a signal handler of a task raised after the end of the task")

    def _call(self, run: Run, loop: asyncio.AbstractEventLoop | None) -> BaseException | None:
        """Run the handler and fill in the outcome; return the exception that the handler raised."""
        try:
            value = self._handler(run.task, run.context)
            if loop is not None:
                value = _complete(loop, cast("Awaitable[object]", value))
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a handler is no reason to end the child
            raised(run, error)
            return error
        record_result(run, value)
        return None

    def _begin(self, message: dict[str, Any]) -> Run:
        """Tell the parent that the task begins, and return the run."""
        context = TaskContext(**message["context"], stopping=self._inbox.stopping)
        run = Run(Task.from_json(message["task"]), context)
        end_with(self._parent)
        self._outlet.send({"begun": True, "run": message["run"]})
        return run

    def _end(self, message: dict[str, Any], run: Run, error: BaseException | None) -> None:
        """Send the outcome; first the submitted tasks, because a single message might exceed the limit."""
        end_copies(self._forks)
        if len(self._active) <= 1:  # Tasks of an event loop share the thread: the last of them.
            end_with(None)
        answer: dict[str, object] = {"error": run.error, "exhausted": isinstance(error, MemoryError)}
        if run.state is RunState.DONE:
            answer["value"] = run.encoded
            batch, size = list[str](), 0
            for text in run.added_encoded:
                batch.append(text)
                size += len(text)
                if size > BATCH_CHARACTERS:
                    self._outlet.send({"added": batch, "run": message["run"]})
                    batch, size = [], 0
            if batch:
                self._outlet.send({"added": batch, "run": message["run"]})
        self._outlet.send(answer | {"run": message["run"]})


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
