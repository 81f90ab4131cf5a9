"""Make the child processes of a member, as the user's `Isolation` asks."""

import logging
from collections.abc import Callable

from smoothcluster.errors import UsageError
from smoothcluster.model import Handler
from smoothcluster.options import Isolation
from smoothcluster.pool.children.handler_ref import NoOriginError, Origin, origin_of
from smoothcluster.pool.children.pool import Children

log = logging.getLogger("smoothcluster")


def make_children(handler: Handler, most: int, isolation: Isolation | None, wake: Callable[[], None]) -> Children:
    """Make children for *handler*, *most* at once; for suspects only if *isolation* is None.

    A child calls *wake*, from any thread, once it is ready.

    Raise UsageError if all tasks need children and none works.
    """
    origin: Origin | None = None
    try:
        origin = origin_of(handler)
    except NoOriginError as error:
        if isolation is not None:
            raise UsageError(f"isolation needs a handler that a child process can import: {error}") from None
        log.info("no child process can run the handler (%s), so suspect tasks run alone in this process", error)
    children = Children(origin, most, isolation, wake)
    why = children.check() if isolation is not None else None
    if why is not None:
        children.close()
        raise UsageError(f"isolation needs a handler that a child process can import: {why}")
    return children
