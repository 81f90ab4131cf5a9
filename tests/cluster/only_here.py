"""A handler whose module only members can import: what it needs, their children do not find."""

import os

from cluster.handlers import MEMBER, act

from smoothcluster import Task, TaskContext

if os.environ.get(MEMBER) != str(os.getpid()):
    raise ImportError("there is no database for children")


def act_here(task: Task, context: TaskContext) -> object:
    """As `act`."""
    return act(task, context)
