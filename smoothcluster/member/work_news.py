"""News of the workload for the other parts of an incarnation: starts, fenced shards and lost commits."""

from typing import final

from smoothcluster.clock import Signal
from smoothcluster.group.events import EventLog
from smoothcluster.member.schedule import Schedule
from smoothcluster.member.takeover_log import TakeoverLog
from smoothcluster.work.observer import WorkloadObserver


@final
class WorkNews(WorkloadObserver):
    """Writes the news of a `Workload` into the events, and has the group read again."""

    def __init__(
        self, incarnation: str, events: EventLog, schedule: Schedule, takeovers: TakeoverLog, wake: Signal
    ) -> None:
        self.behind_shards: dict[str, dict[str, int]] = {}
        """The shards that lost commits, until an event reports them: the kept and the acknowledged commits of each."""
        self._incarnation, self._events, self._schedule = incarnation, events, schedule
        self._takeovers, self._wake = takeovers, wake

    def wake(self) -> None:
        self._wake.set()

    def started(self, shard: int) -> None:
        self._takeovers.resumed(shard)

    def lost(self, shard: int) -> None:
        """Report that the shard has another owner, so the store refuses our commits."""
        self._events.add("fenced", shard=shard, incarnation=self._incarnation)
        self._schedule.read_again()

    def behind(self, shard: int, kept: int, acknowledged: int) -> None:
        self.behind_shards[str(shard)] = {"kept": kept, "acknowledged": acknowledged}
        self._schedule.read_again()
