"""The jobs that are being cancelled or deleted, as far as a member knows."""

from dataclasses import dataclass
from typing import final


@final
@dataclass
class ClosedJobs:
    """The jobs with a mark under ``control``. The member reads the marks again while `stale`."""

    jobs: frozenset[str] = frozenset()
    stale: bool = True
    """Whether the store may hold other marks. Set after each claim, too: a claimant reads the marks."""
