"""The parent's side of a child process: start the child, send tasks, notice a death, end the child.

The parent trusts nothing that a child sends. A child whose messages make no sense is ended, and the task bears the
blame. Every wait for a child has a bound, except the wait for the outcome of a handler without a timeout.
"""

import json
import logging
import os
import signal
import sys
from contextlib import suppress
from typing import Any, final

from smoothcluster.clock import Clock
from smoothcluster.model import LARGEST_VALUE, Task
from smoothcluster.pool.children.handler_ref import Origin
from smoothcluster.pool.children.messages import LARGEST_MESSAGE_BYTES, NonsenseError, Reader, send
from smoothcluster.pool.children.os_process import socket_pair, start_process
from smoothcluster.pool.run import Run, RunState
from smoothcluster.records.blame import CHILD_KILLED, CHILD_NONSENSE

log = logging.getLogger("smoothcluster")

_START_SCRIPT = """\
import sys
sys.path[:] = sys.argv[3:]
from smoothcluster.pool.children.main import main
main(int(sys.argv[1]), int(sys.argv[2]))
"""
"""Sets the module path before the first import from there: the current folder, which Python puts first, may hold a
json.py of the user."""

STOP_CHECK_SECONDS = 0.2
"""Seconds between two checks, while waiting for a child, whether the child must be told to stop."""

LONGEST_START_SECONDS = 60.0
"""Seconds that a child may take to import its handler, and to begin a task."""

LONGEST_DEATH_SECONDS = 30.0
"""Seconds from the end of a child's connection to the end of the child, until the parent kills the child."""

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
        self._link, theirs = socket_pair()
        with theirs:
            told = [str(theirs.fileno()), str(os.getpid())]
            try:
                self._process = start_process(_START_SCRIPT, [*told, *origin.search_path()], theirs.fileno())
            except BaseException:
                self._link.close()
                raise
        self.pid = self._process.pid
        self.spent = False
        """Whether the child must not be used again: told to stop, out of memory, out of time, or dead."""
        self.killed = False
        """Whether a signal from outside ended the child early, which does not show that children fail to get ready."""
        # Two objects for one socket, each with its own timeout: a long message does not fit into the socket's buffer.
        self._outlet = self._link.dup()
        self._outlet.settimeout(LONGEST_START_SECONDS)
        self._link.settimeout(STOP_CHECK_SECONDS)
        self.reader = Reader(self._link, LARGEST_MESSAGE_BYTES)
        self._runs = 0
        self._limited = memory is not None
        with suppress(OSError):  # The child has died: `greet` will report the death.
            argv = [str(each) for each in sys.argv]
            self.send({"origin": origin.to_json(), "memory": memory, "width": width, "argv": argv})

    def greet(self) -> bool:
        """Wait until the child is ready; False if the child died. Raise UnableError if the import fails."""
        try:
            answer = self._next(None, self._clock.monotonic() + LONGEST_START_SECONDS)
        except NonsenseError:
            answer = None
        except (OSError, EOFError):
            answer = None
            if self._process.wait(1.0):
                status = self._process.status
                self.killed = status is None or -status in _OUTSIDE_SIGNALS
        if answer is None or "ready" not in answer:
            self.end()
            if answer is not None:
                raise UnableError(str(answer.get("unable")))
            return False
        return True

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.alive()

    def run(self, run: Run, timeout: float | None) -> None:
        """Run a task in the child, and fill in the outcome or the death."""
        began: float | None = None
        self._runs += 1
        try:
            self.send(self.order(run, self._runs))
            if self._next(run, self._clock.monotonic() + LONGEST_START_SECONDS, "begun") is None:
                raise TimeoutError
            began = run.began = self._clock.monotonic()
            done = self._finish(run, None if timeout is None else began + timeout)
        except TimeoutError:  # Before the handler's start: a child that somebody has stopped, say.
            log.warning("child process %d has not taken a task in time, so the member has ended the child", self.pid)
            self.end()
            return
        except (OSError, EOFError):
            death = self.died()
        except Exception as error:  # noqa: BLE001 - what a child sends may make no sense in any way
            death = self.misled(error, run.task.id)
        else:
            if not done:
                self.end()
                run.fail(f"the task took longer than its timeout of {timeout:g} seconds and was ended")
            return
        if began is not None:
            run.state, run.death = RunState.DIED, death

    @staticmethod
    def order(run: Run, number: int) -> dict[str, object]:
        """Return the message that starts *run*. The answers carry *number*."""
        context = run.context
        told = {name: getattr(context, name) for name in ("member", "job", "shard", "epoch", "attempt")}
        return {"task": run.task.to_json(), "context": told, "run": number}

    def send(self, message: dict[str, object]) -> None:
        """Send *message*; raise OSError if the child is gone, or does not read for too long."""
        send(self._outlet, message)

    def _next(self, run: Run | None, deadline: float | None, *kinds: str) -> dict[str, Any] | None:
        """Return the next message, one of *kinds* if *run* is given; None after the deadline.

        Raise EOFError for a dead child, NonsenseError for any other message.
        """
        dead = False
        while deadline is None or self._clock.monotonic() < deadline:
            try:
                message = self.reader.read()
            except TimeoutError:
                # A process that the child forked may keep the child's end of the connection open for any time.
                if dead:
                    raise EOFError from None
                dead = not self.alive()
                if run is not None and run.context.stopping.is_set() and not self.spent:
                    self.spent = True
                    self.send({"stop": True})
                continue
            if message is None:
                continue
            if run is not None and (message.get("run") != self._runs or not any(kind in message for kind in kinds)):
                raise NonsenseError("a message out of turn")
            return message
        return None

    def _finish(self, run: Run, deadline: float | None) -> bool:
        """Receive the outcome and fill in the run; False after the deadline."""
        added: list[str] = []
        while (answer := self._next(run, deadline, "added", "error")) is not None and "added" in answer:
            added += texts(answer)
        if answer is None:
            return False
        self.fill_in(run, answer, added)
        return True

    def fill_in(self, run: Run, answer: dict[str, Any], added: list[str]) -> None:
        """Fill in the outcome of *run*: the child's last *answer*, and the tasks *added* by earlier answers."""
        exhausted = bool(answer["exhausted"])
        if answer["error"] is not None:
            limit = " (more than the memory limit of a task allows)" if exhausted and self._limited else ""
            run.fail(_text(answer["error"]) + limit)
            self.spent |= exhausted
            return
        encoded, tasks = _text(answer["value"]), [Task.from_json(json.loads(text)) for text in added]
        # The state comes last: a run with half an outcome is no outcome.
        run.encoded, run.added_encoded, run.added, run.state = encoded, added, tasks, RunState.DONE

    def died(self) -> str:
        """Return the cause of death of a child whose connection has ended."""
        if not self._process.wait(LONGEST_DEATH_SECONDS):
            log.warning("child process %d has closed the connection, so the member has ended the child", self.pid)
            self.end()
            return CHILD_NONSENSE
        self.end()
        status = self._process.status
        if status is None:
            log.warning("the exit status of child process %d went to other code of this process", self.pid)
            return CHILD_KILLED  # The weakest evidence, because the task may not have killed the child.
        if status >= 0:
            return f"child_exit_{status}"
        if -status in _OUTSIDE_SIGNALS:
            return CHILD_KILLED
        with suppress(ValueError):
            return f"child_signal_{signal.Signals(-status).name}"
        return f"child_signal_{-status}"

    def misled(self, error: Exception, *tasks: str) -> str:
        """End a child that sent nonsense while it ran *tasks*."""
        self.end()
        log.warning(
            "the child process of task %s sent bytes that are no message (%s), so the member has ended the child",
            ", ".join(map(repr, tasks)), f"{type(error).__name__}: {error}"[:200],
        )  # fmt: skip
        return CHILD_NONSENSE

    def kill(self) -> None:
        """Kill the child if still alive. The thread that reads from the child notices the end."""
        self._process.kill()

    def end(self) -> None:
        """Kill the child if still alive, and leave no zombie."""
        self.spent = True
        self._process.end()
        self._link.close()
        self._outlet.close()


def texts(answer: dict[str, Any]) -> list[str]:
    """Return the tasks that *answer* adds."""
    return [_text(each) for each in answer["added"]]


def _text(value: object) -> str:
    """Return *value* if this is text that a run may hold."""
    if not isinstance(value, str) or len(value) > LARGEST_VALUE:
        raise NonsenseError("a value that is no text, or too long")
    return value
