"""A context for unit tests that call a handler themselves."""

import threading

from smoothcluster.model import Stopping, TaskContext


def task_context(  # parameters: the attributes of the context, each with a default
    *,
    member: str = "crawler_0",
    job: str = "test",
    shard: int = 0,
    epoch: int = 1,
    attempt: int = 1,
    stopping: Stopping | None = None,
) -> TaskContext:
    """Make a context for a call of a handler in a unit test, without a group and without a store.

    `TaskContext.submitted` holds the tasks that the handler added. To test a handler that is told to stop, pass a
    `threading.Event` as *stopping*, and set the event.
    """
    return TaskContext(member, job, shard, epoch, attempt, stopping or threading.Event())
