"""Context shared by the work on all shards of one incarnation."""

from collections.abc import Callable
from dataclasses import dataclass

from smoothcluster.backend import Guarantees
from smoothcluster.group.store import GroupStore
from smoothcluster.model import Stopping
from smoothcluster.options import Retries
from smoothcluster.pool import Apart

Mark = tuple[str, bytes]
"""A task of a job, by digest."""


class SentTasks:
    """Digests of tasks already added by this process, so a link found often is sent once.

    Only acknowledged tasks are remembered. If a repeat were left out because of a commit that never happened, the task
    would be lost.
    """

    MOST_MARKS = 100_000

    def __init__(self) -> None:
        self._marks: dict[Mark, None] = {}

    def __contains__(self, mark: Mark) -> bool:
        return mark in self._marks

    def clear(self) -> None:
        """Forget all digests: the store may have lost acknowledged tasks."""
        self._marks.clear()

    def add(self, marks: list[Mark]) -> None:
        self._marks.update(dict.fromkeys(marks))
        while len(self._marks) > self.MOST_MARKS:
            del self._marks[next(iter(self._marks))]


@dataclass(frozen=True, slots=True)
class WorkContext:
    """Settings and functions for the work on every shard of an incarnation."""

    store: GroupStore
    shards: int
    member: str
    incarnation: str
    retries: Retries
    stopping: Stopping
    sent: SentTasks
    apart: Apart
    note: Callable[..., object]
    """Note an event."""

    @property
    def limits(self) -> Guarantees:
        """The limits of the store, as far as they are known by now."""
        return self.store.backend.guarantees
