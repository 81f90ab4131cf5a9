"""Portions: the changes of a move that fit into one commit; the rest waits for the next commit."""

from collections.abc import Sequence
from typing import final

from smoothcluster.backend import Change, Condition, Guarantees, commit_size

REMOVAL_BYTES = 192
"""Bytes counted for each change besides its own: a claim may remove a member record for each shard."""


@final
class Portion:
    """The *mandatory* changes of a commit, and as many others as fit.

    The first *always* of the mandatory changes are in every commit of this kind, by default all.
    """

    def __init__(
        self, mandatory: Sequence[Change], limits: Guarantees, conditions: Sequence[Condition] = (),
        always: int | None = None,
    ) -> None:  # fmt: skip
        self.changes = list(mandatory)
        self._limits = limits
        self._size = _size(conditions, mandatory)
        self._least = _size((), mandatory[:always])

    def add(self, change: Change) -> bool:
        """Add *change* if it fits beside the changes added so far; return whether it does."""
        size = _sum(self._size, change)
        if not self._fits(size, change):
            return False
        self._size = size
        self.changes.append(change)
        return True

    def fits_alone(self, change: Change) -> bool:
        """Whether *change* fits into a commit of this kind without any other change."""
        return self._fits(_sum(self._least, change), change)

    def _fits(self, size: tuple[int, int], change: Change) -> bool:
        value = len(getattr(change, "value", b""))
        limits = self._limits
        return size[0] <= limits.largest_commit and size[1] <= limits.most_operations and value <= limits.largest_value


def _size(conditions: Sequence[Condition], changes: Sequence[Change]) -> tuple[int, int]:
    size = commit_size(conditions, changes)
    return size.bytes + REMOVAL_BYTES * size.operations, 2 * size.operations


def _sum(size: tuple[int, int], change: Change) -> tuple[int, int]:
    more = _size((), (change,))
    return size[0] + more[0], size[1] + more[1]
