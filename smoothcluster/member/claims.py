"""Claims: how one incarnation takes seats and shards, and ends the incarnations of the dead.

Each is one guarded commit. One that came too late, or whose outcome is unknown, needs no care: the
next look shows what is ours.
"""

from collections.abc import Iterable

from smoothcluster.backend import CoordinationBackend, Delete, Refused
from smoothcluster.errors import MisplacedKeyError
from smoothcluster.group.assignment import Plan, orphaned
from smoothcluster.group.election import SeatClaim
from smoothcluster.group.handover import claim
from smoothcluster.group.view import Report, Versioned, View
from smoothcluster.member.adoption import Adoption
from smoothcluster.member.environment import Environment
from smoothcluster.member.own_record import OwnRecord
from smoothcluster.member.schedule import SOON, Schedule
from smoothcluster.member.takeover_log import TakeoverLog
from smoothcluster.records.keys import Keys
from smoothcluster.records.shard import Shard
from smoothcluster.work.workload import Workload

HEIR = 0.5
"""Seconds that a dead member's heir gets before another one who knows ends the dead one's incarnation."""


class Claims:
    """What one incarnation takes."""

    def __init__(
        self, backend: CoordinationBackend, keys: Keys, environment: Environment, me: OwnRecord, workload: Workload,
        adoption: Adoption, takeovers: TakeoverLog, schedule: Schedule, report: Report,
    ) -> None:  # fmt: skip
        self.tried = False
        """Whether one was since the last look, which so does not show what is ours."""
        self._backend, self._keys, self._environment, self._report = backend, keys, environment, report
        self._me, self._workload, self._adoption, self._takeovers, self._schedule = (
            me,
            workload,
            adoption,
            takeovers,
            schedule,
        )

    def claim(
        self,
        view: View,
        seat: SeatClaim | None,
        shards: Iterable[int],
        now: float,
        spare: tuple[int, Versioned[Shard]] | None = None,
    ) -> None:
        """Send a claim. Late: look again. Done: work on what it brought, and look for the rest."""
        self.tried = True
        starts, new_id, at = self._workload.room(), self._environment.new_id(), self._environment.clock.wall()
        told = self._adoption.told(view, now, new_id)
        limits = self._backend.guarantees
        move = claim(self._keys, view, self._me.read, seat, shards, new_id, limits, starts, told, spare, at)
        try:
            result = self._backend.commit(move.conditions, move.changes)
        except MisplacedKeyError as error:
            self._report(error.key, error.what)
            self._schedule.look_in(SOON)
            return
        self._schedule.look_again()
        if isinstance(result, Refused):
            return
        self._me.read = Versioned(move.me, result.versions[self._keys.member(move.me.incarnation)])
        if spare is not None:
            self._workload.drop(spare[0])
        for number, shard in move.shards.items():
            self._workload.adopt(number, Versioned(shard, result.versions[self._keys.shard(number)]))
        if any(orphaned(view, number) for number in move.shards):
            self._adoption.adopted(now)
        if move.me.incarnation not in move.former.values():  # Nothing is handed over where one takes from oneself.
            self._takeovers.tell(move, view)
        self._adoption.note(view, told)

    def exchange(self, view: View, todo: Plan, now: float) -> bool:
        """Give up a shard without tasks for one with some that nobody has room for; whether that was tried."""
        pair = self._adoption.exchange(view, todo.unplaced, self._workload.works.values(), now)
        if pair is None:
            return False
        number, drained = pair
        self.claim(view, None, [number], now, spare=(drained.number, Versioned(drained.record, drained.version)))
        return True

    def remove_dead(self, view: View, now: float) -> None:
        """End the incarnations of the dead that nobody claims from: because they own nothing, or nobody else knows.

        Where there are no seats all others learn of a death from that, and take their shares.
        """
        seated = {read.record.holder for read in view.seats}
        known = sorted(self._takeovers.known.keys() & view.members.keys())
        dead = [
            name
            for name in known
            if view.all_run
            or (name not in seated and not view.owned(name))
            or now >= self._takeovers.since(name) + HEIR
        ]
        if known:
            self._schedule.look_by(now + SOON)
        if not self._adoption.record(view, now, self._environment.new_id(), removed=bool(dead)):
            self._schedule.look_again()
            return
        for name in dead:
            self._backend.commit([], [Delete(self._keys.member(name))])
