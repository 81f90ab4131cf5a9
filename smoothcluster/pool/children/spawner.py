"""The lasting thread for spawning a member's child processes: the kernel ends a child when the spawning thread ends."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import final

from smoothcluster.pool.children.process import Child

log = logging.getLogger("smoothcluster")

LONGEST_SPAWN_SECONDS = 60.0
"""Seconds to wait for a child. The start of a program may hang, such as on a dead network disk."""


@final
class _Order:
    """A function to make a child, and the place for the child."""

    def __init__(self, spawn: Callable[[], Child]) -> None:
        self._spawn = spawn
        self._lock = threading.Lock()
        self._arrived: SimpleQueue[Child | None] = SimpleQueue()
        self._given_up = False

    def fill(self) -> None:
        """Make the child, whatever goes wrong."""
        child: Child | None = None
        try:
            child = self._spawn()
        except Exception as error:  # noqa: BLE001 - the caller waits for an answer, and later orders for this thread
            log.warning("no child process can be started: %s: %s", type(error).__name__, error)
        with self._lock:  # The caller either finds the child, or has given up before the test.
            if not self._given_up:
                self._arrived.put(child)
            elif child is not None:
                child.end()

    def wait(self) -> Child | None:
        """Wait for the child; None if none can be spawned now."""
        with suppress(Empty):
            return self._arrived.get(timeout=LONGEST_SPAWN_SECONDS)
        with self._lock:
            self._given_up = True
            with suppress(Empty):
                return self._arrived.get_nowait()
        log.warning("no child process has started within %g seconds", LONGEST_SPAWN_SECONDS)
        return None


@final
class Spawner:
    """Spawns children in a single thread, which starts with the first order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: SimpleQueue[_Order | None] | None = None
        self._closed = False

    def spawned(self, spawn: Callable[[], Child]) -> Child | None:
        """Call *spawn* in the thread and return the child; None if no child can be spawned now."""
        order = _Order(spawn)
        with self._lock:
            if self._closed:
                return None
            if self._orders is None:
                self._orders = SimpleQueue()
                threading.Thread(target=_serve, args=(self._orders,), name="smoothcluster-spawner", daemon=True).start()
            self._orders.put(order)
        return order.wait()

    def close(self) -> None:
        """Let the thread end after all pending orders."""
        with self._lock:
            self._closed = True
            if self._orders is not None:
                self._orders.put(None)


def _serve(orders: "SimpleQueue[_Order | None]") -> None:
    """Spawn children until the spawner closes."""
    while (order := orders.get()) is not None:
        order.fill()
