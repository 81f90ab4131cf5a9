"""A thread of the member for calls that may take long: moves of results to the sink."""

import logging
import queue
import threading
from collections.abc import Callable
from typing import final

log = logging.getLogger("smoothcluster")

CLOSE_SECONDS = 5.0
"""Seconds for the present call to end when the member ends. A sink may answer later, or never."""


@final
class BackgroundThread:
    """Runs calls one after another, in a thread that begins with the first call."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, call: Callable[[], object]) -> None:
        """Have *call* run. Returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="smoothcluster-results", daemon=True)
            self._thread.start()
        self._calls.put(call)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def close(self) -> None:
        """End the thread after the present call; do not wait for long. Repeatable."""
        if self._thread is not None:
            while not self._calls.empty():
                self._calls.get()
            self._calls.put(None)
            self._thread.join(CLOSE_SECONDS)
            self._thread = None
