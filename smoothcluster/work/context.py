"""Context shared by the work on all shards of one incarnation."""

from collections.abc import Callable
from dataclasses import dataclass, field

from smoothcluster.backend import Guarantees
from smoothcluster.group.store import GroupStore
from smoothcluster.model import Stopping
from smoothcluster.options import Retries
from smoothcluster.pool import Apart
from smoothcluster.work.closed_jobs import ClosedJobs
from smoothcluster.work.quota import Quota
from smoothcluster.work.sent_tasks import SentTasks


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
    quota: Quota
    closed: ClosedJobs = field(default_factory=ClosedJobs)
    """The jobs of which nothing starts, and nothing is added, any more."""

    @property
    def limits(self) -> Guarantees:
        """The limits of the store, as far as they are known by now."""
        return self.store.backend.guarantees
