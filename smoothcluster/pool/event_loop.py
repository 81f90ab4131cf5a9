"""A pool with an event loop for async handlers."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import cast, final

from smoothcluster.model import Handler, Task, TaskContext
from smoothcluster.pool.children.protocol import Apart, NoChildren
from smoothcluster.pool.fork_guard import count, end_copies
from smoothcluster.pool.protocol import Pool, always, check_concurrency, emptied, enqueue
from smoothcluster.pool.run import Run, RunState, raised, record_result

_log = logging.getLogger(__name__)


@final
class AsyncHandlerPool(Pool):
    """A thread with an event loop, which runs at most *concurrency* calls of an ``async def`` handler at once.

    The parameters are `HandlerPool`'s. A blocking handler blocks all other handlers.
    """

    def __init__(
        self,
        handler: Handler,
        concurrency: int,
        deliver: Callable[[], None],
        can_start: Callable[[Run], bool] = always,
        apart: Apart | None = None,
    ) -> None:
        self.finished: deque[Run] = deque()
        self._handler = cast("Callable[[Task, TaskContext], Awaitable[object]]", handler)
        self._concurrency = check_concurrency(concurrency)
        self._deliver = deliver
        self._can_start = can_start
        self._apart = apart or NoChildren()
        self._queue: deque[Run] = deque()
        self._forks = count()
        self._active: set[asyncio.Task[None]] = set()
        self._summoned = False
        self._stopping = False
        self._cancelling = False
        self._ended = threading.Event()
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        threading.Thread(target=self._serve, name="smoothcluster-loop", daemon=True).start()

    def put(self, runs: Iterable[Run]) -> None:
        if self._stopping:
            raise RuntimeError("the pool is stopped")
        enqueue(self._queue, runs)
        if not self._summoned:
            self._summoned = True
            self._loop.call_soon_threadsafe(self._start_tasks)

    def take_back(self) -> list[Run]:
        return emptied(self._queue)

    def stop(self, timeout: float) -> int:
        self._stopping = True
        self._call_in_loop(self._start_tasks)
        if self._ended.wait(timeout):
            return 0
        left = len(self._active)
        self._call_in_loop(self._cancel)
        return left

    def _call_in_loop(self, what: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: everything has ended
            self._loop.call_soon_threadsafe(what)

    def _serve(self) -> None:
        with self._runner:
            while not self._ended.is_set():
                try:
                    self._loop.run_forever()
                except BaseException:  # noqa: BLE001 - a task that a handler left behind may exit or interrupt
                    _log.exception("an asyncio task of a handler tried to end the event loop")

    def _start_tasks(self) -> None:
        # Cleared first, so that a `put` from here on schedules another call.
        self._summoned = False
        while len(self._active) < self._concurrency and not self._stopping:
            try:
                run = self._queue.popleft()
            except IndexError:
                break
            task = self._loop.create_task(self._run(run))
            self._active.add(task)
            task.add_done_callback(partial(self._done, run))
        if self._stopping and not self._active:
            self._ended.set()
            self._loop.stop()

    async def _run(self, run: Run) -> None:
        if not self._can_start(run):
            return
        if run.apart:
            await self._run_apart(run)
            return
        try:
            value = await self._handler(run.task, run.context)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is this run's
            if self._cancelling and isinstance(error, asyncio.CancelledError):
                run.state = RunState.INTERRUPTED
            else:
                raised(run, error)
        else:
            record_result(run, value)
        end_copies(self._forks)

    async def _run_apart(self, run: Run) -> None:
        """Wait for the child process in a separate daemon thread, so that the process can still end."""
        over: asyncio.Future[None] = self._loop.create_future()

        def wait() -> None:
            self._apart.run(run, self._can_start)
            self._call_in_loop(lambda: None if over.done() else over.set_result(None))

        threading.Thread(target=wait, name="smoothcluster-apart", daemon=True).start()
        await over

    def _done(self, run: Run, task: asyncio.Task[None]) -> None:
        self.finished.append(run)
        self._active.discard(task)
        self._deliver()
        self._start_tasks()

    def _cancel(self) -> None:
        self._cancelling = True
        for task in self._active:
            task.cancel()
