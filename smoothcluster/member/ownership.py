"""Ownership: keep the shards in work equal to the shards that are ours by the store."""

from typing import final

from smoothcluster.group.view import Versioned, View
from smoothcluster.member.rollback import RollbackRecovery
from smoothcluster.member.work_news import WorkNews
from smoothcluster.work.workload import Workload


@final
class Ownership:
    """The own shards of one incarnation, as the last view shows them."""

    def __init__(self, incarnation: str, workload: Workload, rollback: RollbackRecovery, news: WorkNews) -> None:
        self._incarnation, self._workload, self._rollback, self._news = incarnation, workload, rollback, news

    def match(self, view: View) -> None:
        """Take up the shards that are ours in *view*, and drop all others."""
        mine = {n: read for n in view.owned(self._incarnation) if (read := view.shards[n]) is not None}
        for number, work in list(self._workload.works.items()):
            # A shard may go to another member and come back to us between two reads: then the epoch differs.
            if number not in mine or mine[number].record.epoch != work.record.epoch:
                self._news.lost(number)
                self._workload.drop(number)
        # May drop shards with lost commits, which the next move claims again.
        self._rollback.compare(view)
        for number in sorted(mine.keys() - self._workload.works.keys() - set(self._rollback.begun_before(view))):
            # A copy: the work changes its record before the store does, and the views share theirs.
            read = mine[number]
            self._workload.adopt(number, Versioned(read.record.copy(), read.version))
