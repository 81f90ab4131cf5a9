"""The lasting thread for spawning a member's child processes: the kernel ends a child when the spawning thread ends."""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import final

from smoothcluster.pool.children.process import Child

log = logging.getLogger("smoothcluster")

_Order = tuple[Callable[[], Child], SimpleQueue[Child | None]]
"""A function to make a child, and the queue to receive the child."""


@final
class Spawner:
    """Spawns children in a single thread, which starts with the first order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: SimpleQueue[_Order | None] | None = None
        self._closed = False

    def spawned(self, spawn: Callable[[], Child]) -> Child | None:
        """Call *spawn* in the thread and return the child; None if no child can be spawned now."""
        arrived: SimpleQueue[Child | None] = SimpleQueue()
        with self._lock:
            if self._closed:
                return None
            if self._orders is None:
                self._orders = SimpleQueue()
                threading.Thread(target=_serve, args=(self._orders,), name="smoothcluster-spawner", daemon=True).start()
            self._orders.put((spawn, arrived))
        return arrived.get()

    def close(self) -> None:
        """Let the thread end after all pending orders."""
        with self._lock:
            self._closed = True
            if self._orders is not None:
                self._orders.put(None)


def _serve(orders: "SimpleQueue[_Order | None]") -> None:
    """Spawn children until the spawner closes."""
    while (order := orders.get()) is not None:
        spawn, arrived = order
        try:
            arrived.put(spawn())
        except OSError as error:
            log.warning("no child process can be started: %s", error)
            arrived.put(None)
