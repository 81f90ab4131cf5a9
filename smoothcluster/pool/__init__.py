"""Pools of workers: run handlers, so that a member's coordinator never waits for a handler.

The coordinator hands over each `Run` with `put`, and finds the run with the outcome in `finished`::

    coordinator --put--> queue --> worker calls the handler --> finished, then deliver() --> coordinator
                         queue --take_back--> coordinator (runs without a start)

Parts: `protocol` is the interface for the coordinator; `threads` runs sync handlers and `event_loop` runs async
handlers; `run` is a single start of a task and encodes the outcome; `handlers` tells the kinds of handlers apart;
`fork_guard` ends copies of the process after a handler forks; `children` runs tasks in child processes.

Invariants: a run leaves the pool at most once, by `finished` or by `take_back`; at most *concurrency* handlers run at
once; values are encoded here, never by the coordinator.

On failure: whatever a handler does (raise, exit, return a value other than JSON) becomes the error of that run and
affects no other run. Outside a child process, a hanging sync handler cannot be ended and keeps a thread. The
thread is a daemon, so the process can still end.

Begin reading with `protocol.Pool` and `run.Run`, then `threads.HandlerPool`.
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
    """Make the pool for *handler*: threads, or an event loop for ``async def``. `HandlerPool` has the details.

    Where all tasks run in children, the pool has threads for both kinds of handlers: the threads only
    wait for the children.
    """
    kind = AsyncHandlerPool if is_async(handler) and not apart.every else HandlerPool
    return kind(handler, concurrency, deliver, can_start, apart)
