"""The limits of requests: those of etcd's default settings, and lower ones once a server has refused a request."""

from collections.abc import Sequence
from dataclasses import replace
from typing import final

from smoothcluster.backend import Change, Condition, Guarantees, commit_size
from smoothcluster_etcd.errors import ServerLimitError

MOST_COMPARISONS = 128
"""Comparisons per transaction, unless the server sets `--max-txn-ops`. The same limit holds for operations."""

_FEWEST_COMPARISONS = 8
"""Comparisons per transaction below which no limit is assumed."""

_FEWEST_BYTES = 16 * 1024
"""Bytes of a commit below which no limit is assumed."""

ADVICE = (
    "start etcd with its default limits or larger ones: --max-txn-ops=128 --max-request-bytes=1572864 or more, or"
    " without these options"
)
"""What to do about a server with lower limits."""

_DEFAULT_GUARANTEES = Guarantees(
    linearizable_writes=True,
    survives_failover=True,
    unique_versions=True,
    shortest_ttl=2.0,
    longest_ttl=9_000_000_000.0,
    ttl_step=1.0,
    largest_value=900_000,
    # Safely below the 1.5 MiB of a request, which names each key up to three times.
    largest_commit=1_000_000,
    # Half of a transaction's limit: the rest is for comparing the directories of new keys.
    most_operations=MOST_COMPARISONS // 2,
)
"""Guarantees with etcd's default settings."""


@final
class RequestLimits:
    """The limits of the requests of one client."""

    def __init__(self) -> None:
        self.comparisons = MOST_COMPARISONS
        """Most comparisons, and most operations, in a transaction."""
        self.guarantees = _DEFAULT_GUARANTEES

    def lower(self, error: ServerLimitError, refused: int) -> None:
        """Lower the limits after a server has refused a transaction with so many comparisons or operations."""
        if error.operations:
            lower = 1 << (refused - 1).bit_length() - 1  # The next power of two below.
            self.comparisons = min(self.comparisons, max(_FEWEST_COMPARISONS, lower))
            self.guarantees = replace(self.guarantees, most_operations=self.comparisons // 2)

    def lower_after(
        self, error: ServerLimitError, refused: int, conditions: Sequence[Condition], changes: Sequence[Change]
    ) -> None:
        """Lower the limits after a server has refused this commit, with so many comparisons or operations."""
        self.lower(error, refused)
        if not error.operations:
            most = max(_FEWEST_BYTES, commit_size(conditions, changes).bytes // 2)
            before = self.guarantees
            self.guarantees = replace(
                before,
                largest_commit=min(before.largest_commit, most),
                largest_value=min(before.largest_value, most - most // 8),
            )
