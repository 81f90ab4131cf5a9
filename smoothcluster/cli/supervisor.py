"""Run several members on this machine, a process each, and restart dead processes (``run --members``).

Each child process has a session of its own, so Ctrl-C on the terminal reaches the supervisor alone, and the
supervisor sends each child a single signal. After two signals a child would end before its handlers finish.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType
from typing import final

from smoothcluster.cli.common import Exit
from smoothcluster.cli.logs import log
from smoothcluster.cli.supervised import SUPERVISOR_VARIABLE, WRONG_CALL_WORD
from smoothcluster.clock import SYSTEM_CLOCK

CHILD_POLL_SECONDS = 0.1
"""Seconds between two checks of the children."""

FIRST_RESTART_PAUSE_SECONDS, LONGEST_RESTART_PAUSE_SECONDS = 0.5, 30.0
"""Seconds before a restart, doubled for each death in a row (backoff)."""

BACKOFF_RESET_SECONDS = 60.0
"""Lifetime in seconds after which the next pause is the first pause again."""


@final
class Child:
    """The process of a member, and its restarts."""

    def __init__(self, command: Sequence[str], again: Sequence[str]) -> None:
        self._command, self._again = command, again
        self._pause = FIRST_RESTART_PAUSE_SECONDS
        self._due: float | None = None
        self.announced = b""
        """The announcement with which the member ended for good; empty before."""
        self._start()

    def _start(self) -> None:
        self._due, self._since = None, SYSTEM_CLOCK.monotonic()
        self._line, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=os.environ | {SUPERVISOR_VARIABLE: str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
            )
        self._command = self._again

    def ask_to_leave(self) -> None:
        """Ask the process to leave by SIGTERM. A second SIGTERM ends the process at once."""
        if self._process.poll() is None:
            self._process.terminate()

    def keep_running(self, *, leaving: bool) -> bool:
        """Restart a dead process when the pause is over. Return False if the child has ended for good."""
        if self._process.poll() is None:
            return True
        if self._due is None and not self.announced:
            self.announced = self._last_words()
        if leaving or self.announced:
            return False
        now = SYSTEM_CLOCK.monotonic()
        if self._due is None:
            if now - self._since > BACKOFF_RESET_SECONDS:
                self._pause = FIRST_RESTART_PAUSE_SECONDS
            log.warning(
                "process %d ended with status %d; a new process starts in %.1f s",
                self._process.pid,
                self.status,
                self._pause,
            )
            self._due, self._pause = now + self._pause, min(2 * self._pause, LONGEST_RESTART_PAUSE_SECONDS)
        elif now >= self._due:
            self._start()
        return True

    def _last_words(self) -> bytes:
        """Return the announcement of the ended process. A process that a task ended announced nothing."""
        with self._line:
            try:
                self._line.setblocking(False)
                return self._line.recv(16)
            except OSError:  # No announcement; or an earlier look has closed the line, while others leave.
                return b""

    @property
    def status(self) -> int:
        """The exit status of the latest process, or minus the number of the killing signal."""
        return self._process.returncode or 0


@final
class Supervisor:
    """Keeps *members* processes alive until SIGINT or SIGTERM: each runs *command*, and *again* after a restart."""

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
        """The exit status: USAGE if a member announced a wrong call, or DONE."""
        wrong = any(child.announced == WRONG_CALL_WORD for child in self._children)
        return Exit.USAGE if wrong else Exit.DONE


def supervise(arguments: Sequence[str], again: str, members: int) -> int:
    """Run ``smoothcluster`` with *arguments* in *members* processes; return the exit status.

    Restarted processes also get the argument *again*.
    """
    command = [sys.executable, "-m", "smoothcluster", *arguments]
    return Supervisor(command, [*command, again], members).status
