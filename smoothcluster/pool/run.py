"""A run: a single start of a task, with the handler's outcome encoded for the store."""

import inspect
import json
import logging
from enum import StrEnum
from typing import final

from smoothcluster.model import LARGEST_VALUE, Task, TaskContext, why_not_json

_log = logging.getLogger(__name__)

LONGEST_ERROR_CHARACTERS = 2048
"""Characters of an error's text; longer texts are cut."""

_to_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class RunState(StrEnum):
    """The progress or outcome of a run."""

    NOT_STARTED = "not started"
    """The handler was not called: the run still waits, was not allowed to start, or got no child process."""
    DONE = "done"
    """`Run.encoded`, `Run.added` and `Run.added_encoded` hold the values that the handler returned and submitted."""
    FAILED = "failed"
    """`Run.error` gives the reason."""
    INTERRUPTED = "interrupted"
    """The pool stopped and cancelled the handler: the task has no outcome and should run again elsewhere."""
    DIED = "died"
    """The child process of the run died: `Run.death` gives the cause, `Run.began` the start of the run."""


@final
class Run:
    """A single start of a task: the coordinator hands in task and context, and the pool fills in the outcome."""

    __slots__ = (
        "added", "added_encoded", "alone", "apart", "began", "context", "death", "encoded", "error", "key", "state",
        "task", "urgent",
    )  # fmt: skip

    def __init__(self, task: Task, context: TaskContext, key: object = None) -> None:
        self.task = task
        self.context = context
        self.key = key
        """For the coordinator; the pool never reads this."""
        self.state = RunState.NOT_STARTED
        self.encoded = "null"
        """The handler's return value, as JSON text in ASCII."""
        self.error: str | None = None
        """The reason of a failure, on a single line."""
        self.added: list[Task] = []
        """The tasks that the handler submitted; empty after a failure."""
        self.added_encoded: list[str] = []
        """The same tasks as JSON text in ASCII."""
        self.apart = False
        """Whether the task must run in a child process."""
        self.alone = False
        """Whether the child process must run no other task."""
        self.urgent = False
        """Whether the run starts before all waiting runs that are not urgent."""
        self.death = ""
        self.began = 0.0

    def fail(self, reason: str) -> None:
        """Mark the run as failed, for this reason."""
        self.state = RunState.FAILED
        self.error = reason if len(reason) <= LONGEST_ERROR_CHARACTERS else reason[: LONGEST_ERROR_CHARACTERS - 1] + "…"


class _UnfitError(Exception):
    """A returned or submitted value cannot be stored."""


def record_result(run: Run, value: object) -> None:
    """Fill in the returned value and all submitted tasks, or fail the run if any of them cannot be stored."""
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
    """Fail the run because the handler raised *error*. The traceback goes to the log, not to the store."""
    run.fail(describe(error))
    _log.info("task %r failed", run.task.id, exc_info=error)


def describe(error: BaseException) -> str:
    """The error's name and text, on a single line."""
    name, words = type(error).__name__, _words(error)
    return f"{name}: {words}" if words else name


def _encoded_task(task: object) -> str:
    if not isinstance(task, Task):
        raise _UnfitError(f"the handler submitted {type(task).__name__}, not a Task")
    if not isinstance(task.id, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # whoever made it
        raise _UnfitError(f"the handler submitted a task with an id of type {type(task.id).__name__}, not text")
    deed = f"submitted task {task.id[:100]!r}"
    try:
        plain = task.to_json()
    except Exception as error:  # noqa: BLE001 - its fields may be anything, whatever their annotations say
        raise _UnfitError(f"the handler {deed}, which is not JSON: {_words(error)}") from None
    return _encoded(plain, deed)


def _encoded(value: object, deed: str) -> str:
    try:
        why = why_not_json(value)
        if why is not None:
            raise ValueError(why)
        text = _to_json(value)
    except BaseException as error:  # noqa: BLE001 - the value's own code may run here, and raise anything
        if inspect.iscoroutine(value):
            value.close()
            raise _UnfitError(
                "the handler returned a coroutine: declare the handler with 'async def', or run the coroutine inside"
            ) from None
        raise _UnfitError(f"the handler {deed}, which is not JSON: {_words(error)}") from None
    if len(text) > LARGEST_VALUE:
        raise _UnfitError(f"the handler {deed} of {len(text)} bytes of JSON; the limit is {LARGEST_VALUE}")
    return text


def _words(error: BaseException) -> str:
    """The error's text, on a single line."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - an error that cannot say what it is remains an error
        return ""
    return " ".join(text[: 2 * LONGEST_ERROR_CHARACTERS].split())
