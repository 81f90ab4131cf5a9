"""The user's options for child processes, and the children made from the options."""

import logging
from dataclasses import dataclass
from typing import Self

from smoothcluster.errors import UsageError
from smoothcluster.model import Handler
from smoothcluster.pool.children.handler_ref import NoOriginError, Origin, origin_of
from smoothcluster.pool.children.pool import Children

log = logging.getLogger("smoothcluster")

LEAST_MEMORY = 2**20
"""Bytes that a child needs to receive a task and to answer."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """Whether all tasks run in children, and the limits of each task there."""

    kind: str | None
    """"process", or None: only suspects run in children."""
    timeout: float | None
    """Seconds."""
    memory: int | None
    """Bytes."""

    def check(self) -> Self:
        """Raise UsageError if the options contradict each other or are out of range."""
        if self.kind not in (None, "process"):
            raise UsageError(f'isolation must be "process" or None, not {self.kind!r:.80}')
        for what, limit in (("task_timeout", self.timeout), ("task_memory", self.memory)):
            if limit is None:
                continue
            if not limit > 0:
                raise UsageError(f"{what} must be more than 0, not {limit!r:.80}")
            if self.kind is None:
                raise UsageError(f'{what} needs isolation="process": a task can only be ended with its process')
        if self.memory is not None and self.memory < LEAST_MEMORY:
            raise UsageError(
                f"task_memory is in bytes: {self.memory} are not enough for any task; give {LEAST_MEMORY} or more"
            )
        return self

    def children(self, handler: Handler, most: int) -> Children:
        """Make children for *handler*, *most* at once. Raise UsageError if all tasks need children and none works."""
        every = self.kind is not None
        origin: Origin | None = None
        try:
            origin = origin_of(handler)
        except NoOriginError as error:
            if every:
                raise UsageError(f"isolation needs a handler that a child process can import: {error}") from None
            log.info("no child process can run the handler (%s): suspects are run alone in this process", error)
        children = Children(origin, most, every=every, timeout=self.timeout, memory=self.memory)
        why = children.check() if every else None
        if why is not None:
            children.close()
            raise UsageError(f"isolation needs a handler that a child process can import: {why}")
        return children
