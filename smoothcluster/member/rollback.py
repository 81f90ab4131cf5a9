"""Recovery after a rollback of the store: find the own shards that lost acknowledged commits, and claim them again.

A store with a false `Guarantees.survives_failover` may go back in history: a replica without the last commits takes
over. From then on, no version read before is valid. So the store refuses every commit under way, and the next read of
the group finds each own shard at an unexpected version. If the shard's record is our last record, the shard has lost
nothing, and the work goes on. Otherwise the record in the store counts, and the state in memory does not: we claim the
shard again, under a new epoch, and every task without an outcome in the store runs again.
"""

from smoothcluster.backend import HasHistory
from smoothcluster.group.events import EventLog
from smoothcluster.group.store import GroupStore
from smoothcluster.group.view import View
from smoothcluster.member.work_news import WorkNews
from smoothcluster.work.workload import Workload


class RollbackRecovery:
    """The own shards of one incarnation with a record in the store other than the last acknowledged."""

    def __init__(
        self, store: GroupStore, workload: Workload, events: EventLog, incarnation: str, news: WorkNews
    ) -> None:
        self._backend, self._workload, self._events, self._incarnation = store.backend, workload, events, incarnation
        self._news = news

    def compare(self, view: View) -> None:
        """Compare the own shards with *view*, drop the shards that lost commits, and report shards with a new version.

        Called after each read of the whole group. Raise UnavailableError if the store does not tell the history.
        """
        whole: list[int] = []
        for number, work in list(self._workload.works.items()):
            read = view.shards[number]
            # A pending commit may have landed without an answer before *view* was read, so another version proves no
            # rollback. The workload sends the commit again: a refusal shows the reason.
            if read is not None and read.version != work.version and work.pending is None:
                whole += [number] if self._workload.reconcile(number, read) else []
        if whole or self._news.behind_shards:
            history = self._backend.history() if isinstance(self._backend, HasHistory) else None
            # Cleared only after the call: if the call fails, the next read reports the lost commits.
            behind, self._news.behind_shards = self._news.behind_shards, {}
            self._events.add("doubt", incarnation=self._incarnation, shards=behind, whole=whole, store=history)

    def begun_before(self, view: View) -> list[int]:
        """Return the own shards in *view* that this incarnation dropped in the same or a later epoch.

        Tasks marked as running in such a record did run here. So the shard must be claimed again, from ourselves: the
        claim counts these starts, and raises the epoch.
        """
        if not view.complete:
            return []  # Parts are older than our last commits: a shard transferred meanwhile would look like our own.
        dropped = [n for n in view.owned(self._incarnation) if n not in self._workload.works]
        epochs = self._workload.epochs
        return [n for n in dropped if (read := view.shards[n]) is not None and epochs.get(n, -1) >= read.record.epoch]
