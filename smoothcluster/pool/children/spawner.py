"""The one thread that spawns a member's child processes, and stays: the kernel ends a child when that thread ends."""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import final

from smoothcluster.pool.children.process import Child

log = logging.getLogger("smoothcluster")

_Order = tuple[Callable[[], Child], SimpleQueue[Child | None]]
"""What makes a child that is wanted, and where it is to go."""


@final
class Spawner:
    """Begins its thread when the first child is wanted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: SimpleQueue[_Order | None] | None = None
        self._closed = False

    def spawned(self, spawn: Callable[[], Child]) -> Child | None:
        """What *spawn* makes there; None if there can be no child now."""
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
        """Let the thread end, after what was ordered."""
        with self._lock:
            self._closed = True
            if self._orders is not None:
                self._orders.put(None)


def _serve(orders: "SimpleQueue[_Order | None]") -> None:
    """Spawn children, as long as there is a use for them."""
    while (order := orders.get()) is not None:
        spawn, arrived = order
        try:
            arrived.put(spawn())
        except OSError as error:
            log.warning("no child process can be started: %s", error)
            arrived.put(None)
