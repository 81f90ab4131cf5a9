"""Several members on one machine: a process each, started again when it dies.

A child is in a session of its own, so that Ctrl-C reaches it once, through us: a second signal would
end it without letting its handlers finish.
"""

import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType
from typing import final

from smoothcluster.cli.common import Exit
from smoothcluster.cli.logs import log
from smoothcluster.clock import SYSTEM_CLOCK

CHILD_POLL_SECONDS = 0.1
"""Seconds between two looks at the children."""

FIRST_RESTART_PAUSE_SECONDS, LONGEST_RESTART_PAUSE_SECONDS = 0.5, 30.0
"""Seconds before one that died is started again: doubled each time, unless it has lived for long."""

BACKOFF_RESET_SECONDS = 60.0
"""Seconds after which a death is not for the same reason as the one before."""


@final
class Child:
    """One member's process, and those that follow it."""

    def __init__(self, command: Sequence[str], again: Sequence[str]) -> None:
        self._command, self._again = command, again
        self._pause = FIRST_RESTART_PAUSE_SECONDS
        self._due: float | None = None
        self._start()

    def _start(self) -> None:
        self._due, self._since = None, SYSTEM_CLOCK.monotonic()
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True)
        self._command = self._again

    def ask_to_leave(self) -> None:
        """Ask it to leave; once more ends it at once."""
        if self._process.poll() is None:
            self._process.terminate()

    def keep_running(self, *, leaving: bool) -> bool:
        """Start it again if it is time to; whether there is, or will be, a process."""
        if self._process.poll() is None:
            return True
        if leaving or self.status in (Exit.DONE, Exit.USAGE):
            return False
        now = SYSTEM_CLOCK.monotonic()
        if self._due is None:
            if now - self._since > BACKOFF_RESET_SECONDS:
                self._pause = FIRST_RESTART_PAUSE_SECONDS
            log.warning("process %d has ended (%d); another in %.1f s", self._process.pid, self.status, self._pause)
            self._due, self._pause = now + self._pause, min(2 * self._pause, LONGEST_RESTART_PAUSE_SECONDS)
        elif now >= self._due:
            self._start()
        return True

    @property
    def status(self) -> int:
        """How the latest process has ended; minus the signal, if it died of one."""
        return self._process.returncode or 0


@final
class Supervisor:
    """*members* processes that run *command*, and then *again*, until they are told to leave."""

    def __init__(self, command: Sequence[str], again: Sequence[str], members: int) -> None:
        self._signals_received = 0
        self._passed_on = 0
        before = [(number, signal.signal(number, self._on_signal)) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            self._children = [Child(command, again) for _ in range(members)]
            self._watch_children()
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # as `signal` calls it
        self._signals_received += 1

    def _watch_children(self) -> None:
        while True:
            alive = [child.keep_running(leaving=self._signals_received > 0) for child in self._children]
            if not any(alive):
                return
            if self._signals_received > self._passed_on:
                self._passed_on = self._signals_received
                for child in self._children:
                    child.ask_to_leave()
            SYSTEM_CLOCK.sleep(CHILD_POLL_SECONDS)

    @property
    def status(self) -> int:
        """What to end with: the first complaint that no new process would have cured."""
        return next((child.status for child in self._children if child.status == Exit.USAGE), Exit.DONE)


def supervise(arguments: Sequence[str], again: str, members: int) -> int:
    """Run ``smoothcluster`` with *arguments* in so many processes; return the status to end with.

    Those that are started again are given *again*, too.
    """
    command = [sys.executable, "-m", "smoothcluster", *arguments]
    return Supervisor(command, [*command, again], members).status
