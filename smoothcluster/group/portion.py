"""Portions: the changes of a move that fit into one commit; the rest waits for the next commit."""

from collections.abc import Sequence
from typing import final

from smoothcluster.backend import Change, Condition, Delete, Guarantees, commit_size


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
        size, least = commit_size(conditions, mandatory), commit_size((), mandatory[:always])
        self._size, self._least = (size.bytes, size.operations), (least.bytes, least.operations)

    def add(self, *changes: Change) -> bool:
        """Add all of *changes* if they fit beside the changes added so far; return whether they do."""
        size = _sum(self._size, changes)
        if not self._fits(size, changes):
            return False
        self._size = size
        self.changes.extend(changes)
        return True

    def fits_alone(self, *changes: Change) -> bool:
        """Whether *changes* fit into a commit of this kind without any others."""
        return self._fits(_sum(self._least, changes), changes)

    def _fits(self, size: tuple[int, int], changes: Sequence[Change]) -> bool:
        limits, largest = self._limits, max(0 if isinstance(each, Delete) else len(each.value) for each in changes)
        return (
            size[0] <= limits.largest_commit and size[1] <= limits.most_operations and largest <= limits.largest_value
        )


def _sum(size: tuple[int, int], changes: Sequence[Change]) -> tuple[int, int]:
    more = commit_size((), changes)
    return size[0] + more.bytes, size[1] + more.operations
