"""What is in doubt after a store has lost commits that it had acknowledged, as one incarnation finds it.

A store whose `Guarantees.survives_failover` is false may go back in its history: a replica takes
over that had not heard of the last commits. Then no version read before holds any more, so every
commit in the making is refused, and the next look finds each of our shards at a version that we
did not leave it at. Where its record is the one we left, nothing of the shard is lost and the work
goes on. Where it is not, the record in the store counts, and what is in memory does not: the shard
is claimed anew, under a new epoch, and every task without an outcome *there* is run again.
"""

from collections.abc import Callable

from smoothcluster.backend import CoordinationBackend, HasHistory
from smoothcluster.group.events import EventLog
from smoothcluster.group.view import View
from smoothcluster.work.workload import Workload


class RollbackRecovery:
    """The shards of one incarnation that the store has otherwise than they were left."""

    def __init__(
        self,
        backend: CoordinationBackend,
        workload: Workload,
        events: EventLog,
        incarnation: str,
        look_again: Callable[[], None],
    ) -> None:
        self._backend, self._workload, self._events, self._incarnation = backend, workload, events, incarnation
        self._look_again = look_again
        self._behind: dict[str, dict[str, int]] = {}
        workload.on_behind = self._note

    def _note(self, shard: int, kept: int, acknowledged: int) -> None:
        self._behind[str(shard)] = {"kept": kept, "acknowledged": acknowledged}
        self._look_again()

    def settle(self, view: View) -> None:
        """Hold what we work on against what the store has, and tell what is in doubt.

        A shard whose commit is not settled is left alone: its own refusal will tell.
        """
        whole: list[int] = []
        for number, work in list(self._workload.works.items()):
            read = view.shards[number]
            if read is not None and read.version != work.version and work.pending is None:
                whole += [number] if self._workload.reconcile(number, read) else []
        if whole or self._behind:
            history = self._backend.history() if isinstance(self._backend, HasHistory) else None
            behind, self._behind = self._behind, {}
            self._events.add("doubt", incarnation=self._incarnation, shards=behind, whole=whole, store=history)

    def begun_before(self, view: View) -> list[int]:
        """Shards that are ours by the store and were worked on here under this epoch, or a later one, and dropped.

        What their records say is running did run here, so they are to be taken over from ourselves.
        """
        if not view.complete:
            return []  # A part of it is older than what we have done since.
        dropped = [n for n in view.owned(self._incarnation) if n not in self._workload.works]
        epochs = self._workload.epochs
        return [n for n in dropped if (read := view.shards[n]) is not None and epochs.get(n, -1) >= read.record.epoch]
