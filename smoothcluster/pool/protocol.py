"""The interface of a pool for the coordinator. The simulator has a pool without threads."""

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

from smoothcluster.errors import UsageError
from smoothcluster.pool.run import Run


class Pool(Protocol):
    """Runs handlers for a single coordinator."""

    finished: deque[Run]
    """Runs that are over, in the order in which they ended. The coordinator takes runs out on the left.

    The pool calls *deliver*, from any thread, after adding a run here. To wait without
    missing a run, let *deliver* set a signal (unless `is_set` is already true), and clear the signal
    *before* emptying this queue.
    """

    @abstractmethod
    def put(self, runs: Iterable[Run]) -> None:
        """Start these runs in this order, as soon as there is room. Raise RuntimeError once stopped.

        Urgent runs start before all runs that wait already.
        """

    @abstractmethod
    def take_back(self) -> list[Run]:
        """Take out the waiting runs, in order. The returned runs will not start."""

    @abstractmethod
    def stop(self, timeout: float) -> int:
        """Start no more runs, wait up to *timeout* seconds for running handlers, return how many still run.

        Waiting runs stay for `take_back`. Running handlers may still arrive in `finished`.
        After the timeout the pool cancels the handlers that can be cancelled. Repeatable.
        """


def check_concurrency(concurrency: int) -> int:
    """Return *concurrency*, or raise UsageError if less than 1."""
    if concurrency < 1:
        raise UsageError(f"concurrency must be at least 1, not {concurrency}")
    return concurrency


def always(_: Run) -> bool:
    """Allow any run to start."""
    return True


def enqueue(queue: deque[Run], runs: Iterable[Run]) -> None:
    """Put *runs* into *queue*: the urgent runs first of all, the others last."""
    runs = list(runs)
    queue.extendleft(reversed([run for run in runs if run.urgent]))
    queue.extend([run for run in runs if not run.urgent])


def emptied(queue: deque[Run]) -> list[Run]:
    """Take all runs out of *queue*, singly, because workers may take runs at the same time."""
    taken: list[Run] = []
    with suppress(IndexError):
        while True:
            taken.append(queue.popleft())
    return taken
