"""Runs handlers, so that a member's coordinator never waits for one.

The coordinator hands over each `Run` with `put` and finds it again in `finished`, with what
came of it. Whatever a handler does (raise, exit, return nonsense) becomes the error of that
run and of nothing else. Values are encoded here, beside other handlers' waiting.

The danger: a sync handler that does not come back cannot be ended. It keeps its thread and
its place; the thread is a daemon, so it does not keep the process.
"""

from collections.abc import Callable

from smoothcluster.model import Handler
from smoothcluster.pool.children.protocol import Apart, NoChildren
from smoothcluster.pool.event_loop import AsyncHandlerPool
from smoothcluster.pool.handlers import is_async
from smoothcluster.pool.protocol import Pool, always
from smoothcluster.pool.run import Run, RunState
from smoothcluster.pool.threads import HandlerPool

__all__ = ["Apart", "AsyncHandlerPool", "HandlerPool", "NoChildren", "Pool", "Run", "RunState", "is_async", "make_pool"]

_NO_CHILDREN = NoChildren()


def make_pool(
    handler: Handler,
    concurrency: int,
    deliver: Callable[[], None],
    can_start: Callable[[Run], bool] = always,
    apart: Apart = _NO_CHILDREN,
) -> Pool:
    """The pool that suits *handler*: threads, or one event loop for ``async def``. `HandlerPool` has the details.

    Where all tasks run in children, the threads only wait for these, whatever the handler is.
    """
    kind = AsyncHandlerPool if is_async(handler) and not apart.every else HandlerPool
    return kind(handler, concurrency, deliver, can_start, apart)
