"""Claims: take seats and shards, and remove the records of dead members.

Each claim is a single guarded commit. A claim that was refused, or has an unknown outcome, needs no cleanup: the next
read of the group shows the seats and shards that this incarnation holds.
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
"""Seconds for which the successor may claim before another member removes the dead member's record."""


class Claims:
    """The claims of one incarnation."""

    def __init__(
        self, backend: CoordinationBackend, keys: Keys, environment: Environment, me: OwnRecord, workload: Workload,
        adoption: Adoption, takeovers: TakeoverLog, schedule: Schedule, report: Report,
    ) -> None:  # fmt: skip
        self.tried = False
        """Whether a claim was tried since the last read of the group, so the view may lack shards and seats of ours."""
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
        """Commit a claim on *seat* and *shards*, and release *spare*, if given, in the same commit.

        After success, begin to work on the claimed shards. After success or refusal, have the group read again: for
        shards left out of a full commit, or for the change made first by another member. Report a directory in the
        place of a key. Raise any other BackendError.
        """
        # A proof of another death may arrive before the next read of the group. The view then lacks this claim, and a
        # second claim could take a second seat or exceed the capacity. The flag is set before the commit, because a
        # commit with an unknown outcome may have landed.
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
        # The next read of the group takes any other version of the own record for a change by another member.
        self._me.read = Versioned(move.me, result.versions[self._keys.member(move.me.incarnation)])
        if spare is not None:
            self._workload.drop(spare[0])
        for number, shard in move.shards.items():
            self._workload.adopt(number, Versioned(shard, result.versions[self._keys.shard(number)]))
        if any(orphaned(view, number) for number in move.shards):
            self._adoption.adopted(now)
        if move.me.incarnation not in move.former.values():  # Otherwise we claim our own shards again.
            self._takeovers.tell(move, view)
        self._adoption.note(view, told)

    def exchange(self, view: View, todo: Plan, now: float) -> bool:
        """Swap an own shard without tasks for an unassigned shard that has tasks. Return whether a claim was tried.

        `Incarnation` calls this when there is no other move to make. Raise any BackendError.
        """
        pair = self._adoption.exchange(view, todo.unplaced, self._workload.works.values(), now)
        if pair is None:
            return False
        number, drained = pair
        self.claim(view, None, [number], now, spare=(drained.number, Versioned(drained.record, drained.version)))
        return True

    def remove_dead(self, view: View, now: float) -> None:
        """Remove the records of members proved dead from whom no member claims.

        Such a dead member owned neither seat nor shards, or no successor has claimed in time. In a group
        without seats every such record goes at once: the removal tells all other members to claim their shares.
        Called at the end of a decision without another move. Raise any BackendError.
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
        # The breaker's record keeps the evidence of an owner's death, so write this record first. A member that reads
        # the group after the removal would otherwise find no evidence, and take the death for an expired lease.
        if not self._adoption.record(view, now, self._environment.new_id(), removed=bool(dead)):
            self._schedule.look_again()
            return
        for name in dead:
            # Another member may have removed the record since *view* was read: the store then refuses, without harm.
            self._backend.commit([], [Delete(self._keys.member(name))])
