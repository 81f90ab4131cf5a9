"""What all shards of one incarnation have in common."""

from collections.abc import Callable
from dataclasses import dataclass

from smoothcluster.backend import Guarantees
from smoothcluster.group.view import Report
from smoothcluster.model import Stopping
from smoothcluster.pool import Apart
from smoothcluster.records.keys import Keys

Mark = tuple[str, bytes]
"""A task of a job, by its digest."""


class SentTasks:
    """Digests of tasks this process has already added, so that a link met often is sent once.

    Only what was acknowledged is remembered: a repeat left out on the strength of a commit that
    never happened would be a task lost.
    """

    LIMIT = 100_000

    def __init__(self) -> None:
        self._marks: dict[Mark, None] = {}

    def __contains__(self, mark: Mark) -> bool:
        return mark in self._marks

    def clear(self) -> None:
        """Nothing is certain any more: the store may have lost what it had acknowledged."""
        self._marks.clear()

    def add(self, marks: list[Mark]) -> None:
        self._marks.update(dict.fromkeys(marks))
        while len(self._marks) > self.LIMIT:
            del self._marks[next(iter(self._marks))]


@dataclass(frozen=True, slots=True)
class WorkContext:
    """On which an incarnation works on each of its shards."""

    keys: Keys
    shards: int
    member: str
    incarnation: str
    limits: Guarantees
    max_attempts: int
    retry_delay: float
    stopping: Stopping
    new_id: Callable[[], str]
    report: Report
    sent: SentTasks
    apart: Apart
    note: Callable[..., object]
    """Note an event."""
    wall: Callable[[], float]
    """The time, for people."""
