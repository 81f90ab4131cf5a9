"""What a coordinator needs of a pool. The simulator has one without threads."""

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

from smoothcluster.errors import UsageError
from smoothcluster.pool.run import Run


class Pool(Protocol):
    """Runs handlers. Called by one coordinator."""

    finished: deque[Run]
    """Runs that are over, in the order in which they ended. The coordinator takes them out on the left.

    The pool calls *deliver* after it has put a run in, from any thread. To wait for that without
    missing one, let *deliver* set a signal (that `is_set` already needs no setting), and clear the
    signal *before* emptying this.
    """

    @abstractmethod
    def put(self, runs: Iterable[Run]) -> None:
        """Run these, as soon as there is room, in this order. Raise RuntimeError once stopped."""

    @abstractmethod
    def take_back(self) -> list[Run]:
        """Take out what has not been started, in order. Whatever is in here will not start."""

    @abstractmethod
    def stop(self, timeout: float) -> int:
        """Start nothing more, wait up to *timeout* seconds for what runs, return how many still do.

        What was not started stays for `take_back`. What still runs may yet turn up in `finished`.
        Handlers that can be cancelled then are. Repeatable.
        """


def check_concurrency(concurrency: int) -> int:
    """Return *concurrency* if anything can run with it; raise UsageError if not."""
    if concurrency < 1:
        raise UsageError(f"concurrency must be at least 1, not {concurrency}")
    return concurrency


def always(_: Run) -> bool:
    """Any run may start."""
    return True


def emptied(queue: deque[Run]) -> list[Run]:
    """Everything in *queue*, taken out one by one: workers may be taking, too."""
    taken: list[Run] = []
    with suppress(IndexError):
        while True:
            taken.append(queue.popleft())
    return taken
