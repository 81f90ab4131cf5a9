"""The parent's side of a child process: spawn the child, send tasks, notice a death, end the child."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any, final

from smoothcluster.clock import Clock
from smoothcluster.model import Task
from smoothcluster.pool.children.handler_ref import Origin
from smoothcluster.pool.children.messages import Reader, send
from smoothcluster.pool.run import Run, RunState
from smoothcluster.records.blame import CHILD_KILLED

_START_SCRIPT = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from smoothcluster.pool.children.main import main
main(int(sys.argv[2]), int(sys.argv[3]))
"""

STOP_CHECK_SECONDS = 0.2
"""Seconds between two checks, while waiting for a child, whether the child must be told to stop."""

DEATH_SECONDS = 1.0
"""Seconds that a process may live on after the end of its connection. A dying process may write a core dump."""

LONGEST_START_SECONDS = 60.0
"""Seconds that a child may take to import its handler."""

_OUTSIDE_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class UnableError(Exception):
    """The child cannot import the handler."""


@final
class Child:
    """A process for a single task at a time. Use a child in one thread at a time, and spawn in a lasting thread.

    A child with a *width* runs up to so many tasks at once, and belongs to a `Host`.
    """

    def __init__(self, origin: Origin, memory: int | None, clock: Clock, *, width: int | None = None) -> None:
        self._clock = clock
        self.link, theirs = socket.socketpair()
        with theirs:
            told = [json.dumps(sys.path), str(theirs.fileno()), str(os.getpid())]
            command = [sys.executable, "-c", _START_SCRIPT, *told]
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
                )
            except OSError:
                self.link.close()
                raise
        self.pid = self._process.pid
        self.spent = False
        """Whether the child must not be used again: told to stop, out of memory, out of time, or dead."""
        self.killed = False
        """Whether a signal from outside ended the child early, which does not show that children fail to get ready."""
        self.reader = Reader(self.link)
        self._limited = memory is not None
        self.link.settimeout(LONGEST_START_SECONDS)
        with suppress(OSError):  # The child has died: `greet` will report the death.
            send(self.link, {"origin": origin.to_json(), "memory": memory, "width": width})

    def greet(self) -> bool:
        """Wait until the child is ready; False if the child died. Raise UnableError if the import fails."""
        try:
            answer = self.reader.next()
        except (OSError, EOFError):
            with suppress(subprocess.TimeoutExpired):
                self.killed = -self._process.wait(1.0) in _OUTSIDE_SIGNALS
            self.end()
            return False
        if "ready" not in answer:
            self.end()
            raise UnableError(str(answer.get("unable")))
        self.link.settimeout(STOP_CHECK_SECONDS)
        return True

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    @staticmethod
    def order(run: Run) -> dict[str, object]:
        """Return the message that starts *run* in a child."""
        context = run.context
        told = {name: getattr(context, name) for name in ("member", "job", "shard", "epoch", "attempt")}
        return {"task": run.task.to_json(), "context": told}

    def run(self, run: Run, timeout: float | None) -> None:
        """Run a task in the child, and fill in the outcome or the death."""
        begun = None
        try:
            send(self.link, self.order(run))
            self._next(run, "begun", None)
            begun = run.began = self._clock.monotonic()
            answer = self._next(run, "error", None if timeout is None else begun + timeout)
        except (OSError, EOFError):
            death = self.died()
            if begun is not None:
                run.state, run.death = RunState.DIED, death
            return
        if answer is None:
            self.end()
            run.fail(f"the task took longer than its timeout of {timeout:g} seconds and was ended")
        else:
            self.fill_in(run, answer)

    def _next(self, run: Run, what: str, deadline: float | None) -> dict[str, Any] | None:
        """Return the next message, which must hold *what*; None after the deadline. Raise EOFError for a dead child."""
        dead = False
        while deadline is None or self._clock.monotonic() < deadline:
            try:
                if what in (message := self.reader.next()):
                    return message
                self._process.kill()  # The task has meddled with the connection.
                raise EOFError
            except TimeoutError:
                # A process that the child forked may keep the child's end of the connection open for any time.
                if dead:
                    raise EOFError from None
                dead = not self.alive()
                if run.context.stopping.is_set() and not self.spent:
                    self.spent = True
                    send(self.link, {"stop": True})
        return None

    def fill_in(self, run: Run, answer: dict[str, Any]) -> None:
        """Fill in the outcome of *run* from the child's answer."""
        if answer["error"] is not None:
            limit = " (more than the memory limit of a task allows)" if answer["exhausted"] and self._limited else ""
            run.fail(str(answer["error"]) + limit)
            self.spent |= bool(answer["exhausted"])
            return
        run.encoded, run.added_encoded = str(answer["value"]), [str(text) for text in answer["added"]]
        run.added = [Task.from_json(json.loads(text)) for text in run.added_encoded]
        run.state = RunState.DONE

    def died(self) -> str:
        """Return the cause of death of a child whose connection has ended."""
        self.spent = True
        try:
            status = self._process.wait(DEATH_SECONDS)
        except subprocess.TimeoutExpired:  # Only the connection has ended.
            self._process.kill()
            status = self._process.wait()
        self.link.close()
        if status >= 0:
            return f"child_exit_{status}"
        if -status in _OUTSIDE_SIGNALS:
            return CHILD_KILLED
        with suppress(ValueError):
            return f"child_signal_{signal.Signals(-status).name}"
        return f"child_signal_{-status}"

    def kill(self) -> None:
        """Kill the child if still alive. The thread that reads from the child notices the end."""
        self._process.kill()

    def end(self) -> None:
        """Kill the child if still alive, and leave no zombie."""
        self.spent = True
        self._process.kill()
        self._process.wait()
        self.link.close()
