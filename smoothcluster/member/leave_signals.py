"""SIGTERM and SIGINT as requests to leave the group.

One reason to end a process often arrives as several signals within milliseconds: `timeout` and service managers signal
the whole process group, and a supervisor passes the signal on. So signals within a second count once; a later signal
ends the process.
"""

import _thread
import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self, final

from smoothcluster.clock import SYSTEM_CLOCK

SAME_REQUEST_SECONDS = 1.0
"""Seconds from the first signal, within which further signals count as the same request."""

_LEAVE_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@final
class LeaveSignals:
    """Handles the signals within a ``with`` block: the first calls *leave* with its name, in a thread of its own."""

    def __init__(self, leave: Callable[[str], None]) -> None:
        self._leave = leave
        self._first: float | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._on_signal) for number in _LEAVE_SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            if handler is not None:  # None stands for a handler that was not installed by Python.
                signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        now = SYSTEM_CLOCK.monotonic()
        if self._first is None:
            self._first = now
            # In a thread, started without taking a lock: the main thread, interrupted here, may hold any lock.
            _thread.start_new_thread(self._leave, (signal.Signals(number).name,))
        elif now >= self._first + SAME_REQUEST_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
