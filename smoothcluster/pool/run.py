"""One start of a task, and making something storable of what its handler did."""

import inspect
import json
import logging
from enum import StrEnum
from typing import final

from smoothcluster.model import LARGEST_VALUE, Task, TaskContext

_log = logging.getLogger(__name__)

LARGEST_ERROR = 2048
"""Characters of an error's text; what is longer is cut."""

_to_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class RunState(StrEnum):
    """How far a run has come."""

    NOT_STARTED = "not started"
    """The handler was not called; handed back so, it was not allowed to start."""
    DONE = "done"
    """`Run.encoded`, `Run.added` and `Run.added_encoded` say what the handler returned and submitted."""
    FAILED = "failed"
    """`Run.error` says why."""
    INTERRUPTED = "interrupted"
    """The pool was stopped and cancelled the handler: it has no outcome and should run again elsewhere."""
    DIED = "died"
    """The child process in which it ran is gone: `Run.death` says how, `Run.began` when it had begun."""


@final
class Run:
    """One start of a task: what the coordinator hands in, and what the pool fills in."""

    __slots__ = (
        "added", "added_encoded", "alone", "apart", "began", "context", "death", "encoded", "error", "key", "state",
        "task",
    )  # fmt: skip

    def __init__(self, task: Task, context: TaskContext, key: object = None) -> None:
        self.task = task
        self.context = context
        self.key = key
        """The coordinator's own; never looked at."""
        self.state = RunState.NOT_STARTED
        self.encoded = "null"
        """What the handler returned, as JSON text in ASCII."""
        self.error: str | None = None
        """One line."""
        self.added: list[Task] = []
        """What the handler submitted; empty if it failed."""
        self.added_encoded: list[str] = []
        """The same tasks as JSON text in ASCII."""
        self.apart = False
        """To be run in a child process."""
        self.alone = False
        """And in one that nothing else is run in."""
        self.death = ""
        self.began = 0.0

    def fail(self, reason: str) -> None:
        """Fill in that it failed, and why."""
        self.state = RunState.FAILED
        self.error = reason if len(reason) <= LARGEST_ERROR else reason[: LARGEST_ERROR - 1] + "…"


class _UnfitError(Exception):
    """What a handler returned or submitted cannot be stored."""


def settle(run: Run, value: object) -> None:
    """Fill in what the handler returned and submitted; all of it, or why not."""
    try:
        encoded = "null" if value is None else _encoded(value, f"returned {type(value).__name__}")
        submitted = run.context.submitted
        if submitted:
            # A copy: a thread that the handler left behind may go on submitting.
            added = list(submitted)
            run.added_encoded = [_encoded_task(task) for task in added]
            run.added = added
    except _UnfitError as error:
        run.fail(str(error))
    else:
        run.encoded = encoded
        run.state = RunState.DONE


def raised(run: Run, error: BaseException) -> None:
    """Fill in that the handler raised *error*; its traceback goes to the log, not to the store."""
    _log.info("task %r failed", run.task.id, exc_info=error)
    name, words = type(error).__name__, _words(error)
    run.fail(f"{name}: {words}" if words else name)


def _encoded_task(task: object) -> str:
    if not isinstance(task, Task):
        raise _UnfitError(f"handler submitted {type(task).__name__}, not a Task")
    if not isinstance(task.id, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # whoever made it
        raise _UnfitError(f"handler submitted a task whose id is {type(task.id).__name__}, not text")
    deed = f"submitted task {task.id[:100]!r}"
    try:
        plain = task.to_json()
    except Exception as error:  # noqa: BLE001 - its fields may be anything, whatever their annotations say
        raise _UnfitError(f"handler {deed} which is not JSON: {_words(error)}") from None
    return _encoded(plain, deed)


def _encoded(value: object, deed: str) -> str:
    try:
        text = _to_json(value)
    except BaseException as error:  # noqa: BLE001 - the value's own code may run here, and raise anything
        if inspect.iscoroutine(value):
            value.close()
            raise _UnfitError("handler returned a coroutine: declare it with 'async def', or run it inside") from None
        raise _UnfitError(f"handler {deed} which is not JSON: {_words(error)}") from None
    if len(text) > LARGEST_VALUE:
        raise _UnfitError(f"handler {deed} of {len(text)} bytes of JSON; the limit is {LARGEST_VALUE}")
    return text


def _words(error: BaseException) -> str:
    """The error's own text, on one line."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - an error that cannot say what it is remains an error
        return ""
    return " ".join(text[: 2 * LARGEST_ERROR].split())
