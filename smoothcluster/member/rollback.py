"""Recovery after a rollback of the store: report the rollback once, and claim again the shards that lost commits.

A store may go back in history: a replica without the last commits takes over, or somebody restores a backup or empties
the store. From then on, no version read before is valid. So every commit under way is refused, and the next read of
the group finds each own shard at an unexpected version. If the shard's record is our last record, the shard has lost
nothing, and the work goes on. Otherwise the record in the store counts, and the state in memory does not: we claim the
shard again, under a new epoch, and every task without an outcome in the store runs again. In an emptied store the
member record is gone, too: the incarnation ends, and the next incarnation reports the rollback after the join.
"""

import logging

from smoothcluster.group.events import EventLog
from smoothcluster.group.store import GroupStore
from smoothcluster.group.view import View
from smoothcluster.member.work_news import WorkNews
from smoothcluster.work.workload import Workload

log = logging.getLogger("smoothcluster")


class StoreHistory:
    """The store's history as of the last look, through all incarnations of a member."""

    def __init__(self, store: GroupStore) -> None:
        self._store = store
        self._last: str | None = None

    def look(self) -> tuple[str | None, bool]:
        """Return the present history, and whether the history differs from the last look: then log a warning."""
        now = self._store.history()
        before, self._last = self._last, now
        changed = before is not None and now != before
        if changed:
            log.warning(
                "the store at %s may be older than before: emptied, restored from a backup, or without the last "
                "writes (%s). Submit again, to the same jobs, the tasks submitted since then: repeats are skipped",
                self._store.backend.url,
                now,
            )
        return now, changed


class RollbackRecovery:
    """The own shards of one incarnation with a record in the store other than the last acknowledged."""

    def __init__(
        self, history: StoreHistory, workload: Workload, events: EventLog, incarnation: str, news: WorkNews
    ) -> None:
        self._history, self._workload, self._events, self._incarnation = history, workload, events, incarnation
        self._news = news
        self._own_version: str | None = None
        """The version of the own member record at the last look at the history."""

    def compare(self, view: View) -> None:
        """Compare the own shards with *view*, drop the shards that lost commits, and report a rollback.

        Called after each read of the whole group. Raise UnavailableError if the store does not tell the history. The
        history costs a request, so this method asks only at first, and after an unexpected version of a record.
        """
        whole: list[int] = []
        for number, work in list(self._workload.works.items()):
            read = view.shards[number]
            # A pending commit may have landed without an answer before *view* was read, so another version proves no
            # rollback. The workload sends the commit again: a refusal shows the reason.
            if read is not None and read.version != work.version and work.pending is None:
                whole += [number] if self._workload.reconcile(number, read) else []
        # A member without shards, such as a Backup Runner, notices a rollback by the new version of the own record, and
        # has nothing to report but the warning. After the end of the last incarnation the event tells the reason.
        own = view.members[self._incarnation].version
        if whole or self._news.behind_shards or own != self._own_version:
            history, changed = self._history.look()
            # Cleared only after the call: if the call fails, the next read reports the lost commits.
            first, self._own_version = self._own_version is None, own
            behind, self._news.behind_shards = self._news.behind_shards, {}
            if whole or behind or (changed and first):
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
