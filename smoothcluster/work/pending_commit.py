"""A commit of a shard's owner that is built, but not yet settled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from smoothcluster.backend import Change, Create, Update
from smoothcluster.jobs.chunks import job_of
from smoothcluster.pool import Run
from smoothcluster.records.quarantine import QuarantinedTask
from smoothcluster.work.sent_tasks import Mark

MOST_TASK_IDS_IN_EVENT = 20
"""Most task ids in an event."""


@dataclass(frozen=True, slots=True)
class PendingCommit:
    """A commit that is built, but not yet settled."""

    id: str
    changes: Sequence[Change]
    sent: list[Mark]
    starts: list[Run]
    """Runs for the pool, as soon as the store has applied the commit."""
    quarantined: Sequence[QuarantinedTask]
    """Tasks that the commit quarantines: the events are noted as soon as the store has applied the commit."""
    unreadable: Mapping[str, Sequence[str]]
    """By chunk, ids of unreadable tasks that the commit records as failed: events are noted likewise."""

    def without(self, key: str) -> "PendingCommit":
        """Return a copy that avoids garbage at *key*: a create becomes an overwrite, any other change is left out."""
        mended: list[Change] = []
        for change in self.changes:
            if change.key != key:
                mended.append(change)
            elif isinstance(change, Create):
                mended.append(Update(key, change.value))
        return replace(self, changes=mended)

    def report(self, note: Callable[..., object], shard: int) -> None:
        """Note the events of a commit of *shard* that the store has applied."""
        for each in self.quarantined:
            each.report(note)
        for name, ids in self.unreadable.items():
            shown = ids[:MOST_TASK_IDS_IN_EVENT]
            note("tasks_unreadable", job=job_of(name), shard=shard, count=len(ids), tasks=shown)
