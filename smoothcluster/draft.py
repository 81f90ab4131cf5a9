"""A commit of progress in the making, and one that is built and not yet settled."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from smoothcluster.backend import Change, Guarantees
from smoothcluster.pool import Run
from smoothcluster.quarantine import Condemned

Mark = tuple[str, bytes]
"""A task of a job, by its digest."""


@dataclass(slots=True)
class Draft:
    """A commit in the making, kept within the store's limits."""

    limits: Guarantees
    bytes: int
    operations: int = 1
    changes: list[Change] = field(default_factory=list[Change])
    results: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    """Bytes of each job's results, reckoned generously."""
    sent: list[Mark] = field(default_factory=list[Mark])
    starts: list[Run] = field(default_factory=list[Run])
    condemned: list[Condemned] = field(default_factory=list[Condemned])

    def room(self, size: int, operations: int) -> bool:
        """Whether so much more fits; a path and its framing take 200 bytes at most."""
        return (
            self.bytes + size + 200 * operations <= self.limits.largest_commit
            and self.operations + operations <= self.limits.most_operations
        )

    def book(self, size: int, operations: int) -> None:
        self.bytes += size + 200 * operations
        self.operations += operations


@dataclass(frozen=True, slots=True)
class Pending:
    """A commit built and not yet settled."""

    id: str
    changes: list[Change]
    sent: list[Mark]
    starts: list[Run]
    """To be run as soon as it was applied."""
    condemned: Sequence[Condemned] = ()
    """Tasks that it puts into quarantine: to be told then."""
