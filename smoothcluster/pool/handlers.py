"""Checks on handlers: sync, async, or unusable."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import cast

from smoothcluster.errors import UsageError
from smoothcluster.model import Handler


def is_async(handler: Handler) -> bool:
    """Whether *handler* must be awaited. Looks inside partial objects and at an instance's ``__call__``."""
    return _is(handler, inspect.iscoroutinefunction)


def check_handler(handler: object) -> None:
    """Raise UsageError if *handler* cannot be called with a task and a context, or would only make a generator."""
    if not callable(handler):
        raise UsageError(f"handler must be a function of a task and a context, not {handler!r:.80}")
    if _is(handler, inspect.isgeneratorfunction) or _is(handler, inspect.isasyncgenfunction):
        raise UsageError(
            f"handler {handler!r:.80} is a generator: return the outcome instead, and add tasks by context.submit"
        )
    try:
        parameters = inspect.signature(handler)
    except (TypeError, ValueError):  # Some functions written in C have no signature.
        return
    try:
        parameters.bind(None, None)
    except TypeError as error:
        raise UsageError(
            f"handler {handler!r:.80} is called with a task and a context, but has {parameters}: {error}"
        ) from None


def _is(handler: object, kind: Callable[[object], bool]) -> bool:
    target = handler
    while isinstance(target, partial):
        target = cast("partial[object]", target).func
    return kind(target) or kind(type(target).__call__)
