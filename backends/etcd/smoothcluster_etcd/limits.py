"""The limits of requests: those of etcd's default settings, and lower ones once a server has refused a request."""

import logging
from dataclasses import replace
from typing import final

from smoothcluster.backend import Guarantees
from smoothcluster.errors import CommitTooLargeError
from smoothcluster_etcd.errors import concerns_operations

log = logging.getLogger("smoothcluster_etcd")

MOST_COMPARISONS = 128
"""Comparisons per transaction, unless the server sets `--max-txn-ops`. The same limit holds for operations."""

_FEWEST_COMPARISONS = 8
"""Comparisons per transaction below which no limit is assumed."""

_FEWEST_BYTES = 16 * 1024
"""Bytes of a commit below which no limit is assumed."""

SERVER_OPTIONS_ADVICE = (
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

    def lower(self, error: CommitTooLargeError, refused: int, size: int = 0) -> None:
        """Lower the limits after a server has refused a transaction with so many comparisons or operations.

        *size* is the size in bytes of the commit, if the transaction was a commit.
        """
        before = self.guarantees
        if concerns_operations(error):
            lower = max(_FEWEST_COMPARISONS, 1 << (refused - 1).bit_length() - 1)  # The next power of two below.
            if lower < self.comparisons:
                self.comparisons = lower
                self.guarantees = replace(before, most_operations=lower // 2)
                log.warning("%s. From now on, requests have %d operations at most", error, lower)
        elif (most := max(_FEWEST_BYTES, size // 2)) < before.largest_commit:
            value = min(before.largest_value, most - most // 8)
            self.guarantees = replace(before, largest_commit=most, largest_value=value)
            log.warning("%s. From now on, commits have %d bytes at most", error, most)
