"""Threads for sync handlers."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import final

from smoothcluster.model import Handler
from smoothcluster.pool.children.protocol import Apart, NoChildren
from smoothcluster.pool.fork_guard import count, end_copies
from smoothcluster.pool.protocol import Pool, always, check_concurrency, emptied
from smoothcluster.pool.run import Run, raised, settle


@final
class _Worker:
    """A thread's bed: who sleeps in it is listed as idle, and whoever takes it off that list must wake it."""

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

    *can_start* is asked in the worker's thread just before the handler is called; where it says
    no, the run is handed back as not started. It and *deliver* must be quick and never raise.
    A run that is to be run apart keeps its worker as long as a child has it, so there are never
    more handlers at once than workers.

    One woken worker wakes the next, and no other is woken meanwhile: so handlers that wait get
    all the threads at once, while those that return at once need not set eight threads
    quarrelling over one interpreter. No wake-up is lost, because each side first says what it
    did (a worker that it sleeps, `put` that there is work) and then looks at what the other did.
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
        self._queue.extend(runs)
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
                    self._apart.run(run)
                else:
                    _call(handler, run)
                    end_copies(forks)
            finished.append(run)
            deliver()

    def _wake_one(self) -> None:
        if worker := self._take_idle():
            # Set before it wakes: it is the one that says that it has.
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
        settle(run, value)
