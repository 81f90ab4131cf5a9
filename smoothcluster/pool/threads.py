"""A pool of threads for sync handlers."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import final

from smoothcluster.model import Handler
from smoothcluster.pool.children.protocol import Apart, NoChildren
from smoothcluster.pool.fork_guard import count, end_copies
from smoothcluster.pool.protocol import Pool, always, check_concurrency, emptied, enqueue
from smoothcluster.pool.run import Run, raised, record_result


@final
class _Worker:
    """The wake-up gate of a thread.

    A sleeping worker is listed as idle; code that takes a worker off that list must wake the worker.
    """

    __slots__ = ("_gate", "dismissed")

    def __init__(self) -> None:
        self.dismissed = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def sleep(self) -> None:
        self._gate.acquire()

    def wake(self) -> None:
        self._gate.release()


@final
class HandlerPool(Pool):
    """*concurrency* threads for a sync handler.

    The worker's thread calls *can_start* just before the handler. If *can_start* returns False, the
    pool hands the run back as not started. Both *can_start* and *deliver* must be quick and never
    raise. A run in a child process keeps the worker until the child has finished, so there are never
    more handlers at once than workers.

    A woken worker wakes the next worker, and nobody else wakes a worker meanwhile. So slow handlers
    soon get all the threads, while quick handlers do not make eight threads compete for the
    interpreter. No wake-up is lost, because each side first publishes its state (the worker lists
    itself as idle, `put` fills the queue) and then reads the state of the other side.
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
        self._handler = handler
        self._concurrency = check_concurrency(concurrency)
        self._deliver = deliver
        self._can_start = can_start
        self._apart = apart or NoChildren()
        self._queue: deque[Run] = deque()
        self._forks = count()
        workers = [_Worker() for _ in range(concurrency)]
        self._idle = dict.fromkeys(workers, True)
        self._waking = False
        self._stopping = False
        self._left: deque[_Worker] = deque()
        self._all_left = threading.Event()
        for number, worker in enumerate(workers):
            threading.Thread(
                target=self._work, args=(worker,), name=f"smoothcluster-worker-{number}", daemon=True
            ).start()

    def put(self, runs: Iterable[Run]) -> None:
        if self._stopping:
            raise RuntimeError("the pool is stopped")
        enqueue(self._queue, runs)
        if self._queue and not self._waking:
            self._wake_one()

    def take_back(self) -> list[Run]:
        return emptied(self._queue)

    def stop(self, timeout: float) -> int:
        self._stopping = True
        while worker := self._take_idle():
            worker.dismissed = True
            worker.wake()
            self._leave(worker)
        self._all_left.wait(timeout)
        return self._concurrency - len(self._left)

    def _work(self, worker: _Worker) -> None:
        while True:
            worker.sleep()
            if worker.dismissed:
                return
            self._waking = False
            awake = True
            while awake:
                self._run_what_waits()
                if self._stopping:
                    self._leave(worker)
                    return
                self._idle[worker] = True
                awake = bool(self._queue or self._stopping) and self._idle.pop(worker, False)

    def _run_what_waits(self) -> None:
        queue, idle, finished = self._queue, self._idle, self.finished
        handler, can_start, deliver, forks = self._handler, self._can_start, self._deliver, self._forks
        while not self._stopping:
            try:
                run = queue.popleft()
            except IndexError:
                return
            if queue and idle and not self._waking:
                self._wake_one()
            if can_start(run):
                if run.apart:
                    self._apart.run(run, can_start)
                else:
                    _call(handler, run)
                    end_copies(forks)
            finished.append(run)
            deliver()

    def _wake_one(self) -> None:
        if worker := self._take_idle():
            # Set before the worker wakes, because the woken worker clears the flag.
            self._waking = True
            worker.wake()

    def _take_idle(self) -> _Worker | None:
        try:
            return self._idle.popitem()[0]
        except KeyError:
            return None

    def _leave(self, worker: _Worker) -> None:
        self._left.append(worker)
        if len(self._left) == self._concurrency:
            self._all_left.set()


def _call(handler: Handler, run: Run) -> None:
    try:
        value = handler(run.task, run.context)
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a handler is no reason to lose the worker
        raised(run, error)
    else:
        record_result(run, value)
