"""Room in a commit of a shard's owner: bytes and operations are counted before anything is put into the commit.

The shard's record is part of every commit, so the record has a limit of its own: a claim must fit into a commit, too,
and adds blame for each task that was running when the owner died.
"""

from typing import final

from smoothcluster.backend import Guarantees
from smoothcluster.records.shard import Shard

RECORD_GROWTH_BYTES = 16 * 1024
"""Bytes of a commit kept free for growth of the shard's record; less on a store that takes small commits."""

OPERATION_BYTES = 64
"""Bytes counted for each operation besides the key and the value, as `smoothcluster.backend.commit_size` does."""

BLAME_BYTES = 72
"""Bytes by which the record grows for a task that was running when the owner died, or that waits for a retry."""


@final
class Room:
    """The room that is left in a commit with *record*, within a *share* of the store's limits.

    Whatever is put in first may take all of the limits.
    """

    def __init__(self, record: Shard, limits: Guarantees, share: int) -> None:
        self.empty = True
        """Whether nothing was put into the commit but the record."""
        self._limits, self._share = limits, share
        size = len(record.to_json())
        self._bytes: int = size + min(RECORD_GROWTH_BYTES, limits.largest_commit // 16)
        self._operations: int = 1
        self._marked = sum(chunk.run.bit_count() for chunk in record.open.values())
        self._weight = size + BLAME_BYTES * self._marked
        """Bytes of the record if the owner dies with this commit, estimated from above."""
        self._most_weight = min(limits.largest_value, 3 * limits.largest_commit // 8) // share

    @property
    def operations_left(self) -> int:
        """How many more operations the commit may have, if they are small."""
        return self._limits.most_operations // (1 if self.empty else self._share) - self._operations

    def reserve(self, size: int, operations: int) -> bool:
        """Reserve room for *operations* with *size* bytes of keys and values; return whether there is enough."""
        size += self._bytes + OPERATION_BYTES * operations
        operations += self._operations
        share = 1 if self.empty else self._share
        if size > self._limits.largest_commit // share or operations > self._limits.most_operations // share:
            return False
        self._bytes, self._operations, self.empty = size, operations, False
        return True

    def reserve_growth(self, size: int, *, needed: bool) -> bool:
        """Reserve room in the record; return whether there is enough, or whether the growth is *needed* anyway."""
        if self._weight + size > self._most_weight and not needed:
            return False
        self._weight += size
        return True

    def reserve_start(self) -> bool:
        """Reserve room in the record for one more running task. A single task may always run."""
        if not self.reserve_growth(BLAME_BYTES, needed=not self._marked):
            return False
        self._marked += 1
        return True
