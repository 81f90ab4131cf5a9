"""Handing shards over to members that are well: to balance the group, or because one is no Runner any more.

A shard is given when nothing of it runs and all is recorded; until then nothing more of it is started.
One commit makes it the target's and touches the target's own record, so the gift itself wakes it.
"""

from collections.abc import Mapping
from dataclasses import replace

from smoothcluster.backend import Committed, CoordinationBackend
from smoothcluster.group.assignment import Plan, room
from smoothcluster.group.handover import give, let_go
from smoothcluster.group.reading import read_ownership
from smoothcluster.group.view import Report, Versioned, View
from smoothcluster.member.environment import Environment
from smoothcluster.member.settings import Settings
from smoothcluster.member.stopping import Stopping
from smoothcluster.member.takeover_log import TakeoverLog
from smoothcluster.records.group import Member
from smoothcluster.records.keys import Keys
from smoothcluster.records.shard import Shard
from smoothcluster.work.workload import Workload


class Rebalancer:
    """What one incarnation is about to give away."""

    def __init__(
        self, backend: CoordinationBackend, keys: Keys, settings: Settings, environment: Environment,
        workload: Workload, stopping: Stopping, takeovers: TakeoverLog, report: Report,
    ) -> None:  # fmt: skip
        self._backend, self._keys, self._report = backend, keys, report
        self._clock, self._grace, self._new_id = environment.clock, settings.grace, environment.new_id
        self._workload, self._stopping, self._takeovers = workload, stopping, takeovers
        self._moving: dict[int, str | None] = {}
        self._resigning: float | None = None
        """Since when, by our clock, everything is to be given away."""

    def plan(self, todo: Plan) -> float | None:
        """Start nothing more of what is to move. If all is, return when what still runs is waited for no longer."""
        self._resign(resigning=todo.resign)
        gifts = dict(todo.give)
        for number, work in self._workload.works.items():
            work.moving = number in gifts
        self._moving = {number: target for number, target in gifts.items() if number in self._workload.works}
        if self._moving:
            self._workload.hand_back(lambda work: work.moving)
        return None if self._resigning is None else self._resigning + self._grace

    def _resign(self, *, resigning: bool) -> None:
        """Our seat was closed, or we have one again: whoever runs here is told, as when a member leaves."""
        if resigning and self._resigning is None:
            self._resigning = self._clock.monotonic()
            self._stopping.set()
        elif not resigning and self._resigning is not None:
            self._resigning = None
            self._stopping.clear()

    def give(self, view: View, me: Member) -> bool:
        """Hand over what is to move and on which nothing runs, or has run for too long; whether that was tried."""
        late = self._resigning is not None and self._clock.monotonic() >= self._resigning + self._grace
        gifts: dict[str | None, dict[int, Versioned[Shard]]] = {}
        for number, target in self._moving.items():
            work = self._workload.works.get(number)
            if work is not None and (work.quiet() or (late and not work.unsaid())):
                gifts.setdefault(target, {})[number] = Versioned(work.record, work.version)
        for target, gift in gifts.items():
            self._give_to(view, me, target, gift)
        return bool(gifts)

    def _give_to(self, view: View, me: Member, target: str | None, gift: Mapping[int, Versioned[Shard]]) -> None:
        for number in gift:
            del self._moving[number]
        if target is None:
            move = let_go(self._keys, me, gift, self._new_id())
        elif target in view.members and self._has_room(view, target, len(gift)):
            move = give(self._keys, me, view.members[target], gift, self._new_id())
        else:
            return
        if isinstance(self._backend.commit([], move.changes), Committed):
            if target is not None:
                self._takeovers.tell_gift(move)
            for number in gift:
                self._workload.drop(number)

    def _has_room(self, view: View, target: str, more: int) -> bool:
        """Whether *target* has room for *more* shards, counted after its record was read, which a gift compares."""
        if view.members[target].record.capacity is None:
            return True
        found = read_ownership(self._backend, self._keys, view.spec.record, self._report)
        now = replace(view, shards=found.shards) if found is not None else view
        return more <= (room(now, target) or 0)
