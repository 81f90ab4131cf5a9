"""Runs handlers, so that a member's coordinator never waits for one.

The coordinator hands over each `Run` with `put` and finds it again in `finished`, with what
came of it. Whatever a handler does (raise, exit, return nonsense) becomes the error of that
run and of nothing else. Values are encoded here, beside other handlers' waiting.

The danger: a sync handler that does not come back cannot be ended. It keeps its thread and
its place; the thread is a daemon, so it does not keep the process.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import cast

from smoothcluster.model import Handler
from smoothcluster.pool.base import Pool, always
from smoothcluster.pool.loop import AsyncHandlerPool
from smoothcluster.pool.run import Run, RunState
from smoothcluster.pool.threads import HandlerPool

__all__ = ["AsyncHandlerPool", "HandlerPool", "Pool", "Run", "RunState", "is_async", "make_pool"]


def make_pool(
    handler: Handler, concurrency: int, deliver: Callable[[], None], can_start: Callable[[Run], bool] = always
) -> Pool:
    """The pool that suits *handler*: threads, or one event loop for ``async def``. `HandlerPool` has the details."""
    kind = AsyncHandlerPool if is_async(handler) else HandlerPool
    return kind(handler, concurrency, deliver, can_start)


def is_async(handler: Handler) -> bool:
    """Whether *handler* is to be awaited; sees through partial objects and to an instance's ``__call__``."""
    target: object = handler
    while isinstance(target, partial):
        target = cast("partial[object]", target).func
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(type(target).__call__)
