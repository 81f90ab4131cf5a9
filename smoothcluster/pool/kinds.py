"""The two kinds of handlers."""

import inspect
from functools import partial
from typing import cast

from smoothcluster.model import Handler


def is_async(handler: Handler) -> bool:
    """Whether *handler* is to be awaited; sees through partial objects and to an instance's ``__call__``."""
    target: object = handler
    while isinstance(target, partial):
        target = cast("partial[object]", target).func
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(type(target).__call__)
