"""Claims: take seats and shards, and remove the records of dead members.

Each claim is a single guarded commit. A claim that was refused, or has an unknown outcome, needs no cleanup: the next
read of the group shows the seats and shards that this incarnation holds.
"""

import logging
from collections.abc import Iterable

from smoothcluster.backend import Committed, Refused
from smoothcluster.errors import MisplacedKeyError
from smoothcluster.group.assignment import Plan, orphaned, room
from smoothcluster.group.election import SeatClaim
from smoothcluster.group.handover import ClaimRequest, Move, claim, in_flight, leave, removal
from smoothcluster.group.store import GroupStore
from smoothcluster.group.view import Versioned, View
from smoothcluster.member.adoption import Adoption
from smoothcluster.member.own_record import OwnRecord
from smoothcluster.member.schedule import RECHECK_SECONDS, Schedule
from smoothcluster.member.takeover_log import TakeoverLog
from smoothcluster.records.shard import Shard
from smoothcluster.work.workload import Workload

log = logging.getLogger("smoothcluster")

SUCCESSOR_HEAD_START_SECONDS = 0.5
"""Seconds for which the successor may claim before another member removes the dead member's record."""


class Claims:
    """The claims of one incarnation."""

    def __init__(
        self, store: GroupStore, me: OwnRecord, workload: Workload, adoption: Adoption, takeovers: TakeoverLog,
        schedule: Schedule,
    ) -> None:  # fmt: skip
        self.tried = False
        """Whether a claim was tried since the last read of the group, so the view may lack shards and seats of ours."""
        self.me, self.workload, self.adoption = me, workload, adoption
        self._store, self._takeovers, self._schedule = store, takeovers, schedule
        self._unfit: dict[int, str | None] = {}
        """Shards with a record too large for a claim, each with the record's version."""

    def claim_seat(self, view: View, seat: SeatClaim, now: float) -> None:
        """Claim *seat* with as many of the holder's shards as the capacity and the limits on adoption allow."""
        mine = self.me.record
        shards = view.owned(seat.holder)[: room(view, mine.incarnation)] if mine.running else []
        shards = shards[: self.adoption.most(view, now)]  # Without a seat, we may still own some.
        self.claim(view, seat, shards, now)

    def claim(
        self, view: View, seat: SeatClaim | None, shards: Iterable[int], now: float,
        spare: tuple[int, Versioned[Shard]] | None = None,
    ) -> None:  # fmt: skip
        """Commit a claim on *seat* and *shards*, and release *spare*, if given, in the same commit.

        After success, begin to work on the claimed shards. After success or refusal, have the group read again: for
        shards left out of a full commit, or for the change made first by another member. Report a directory in the
        place of a key. Raise any other BackendError.
        """
        # A proof of another death may arrive before the next read of the group. The view then lacks this claim, and a
        # second claim could take a second seat or exceed the capacity. The flag is set before the commit, because a
        # commit with an unknown outcome may have landed.
        self.tried = True
        backend, stamp = self._store.backend, self._store.stamp()
        breaker = self.adoption.breaker_after(view, now, stamp.id)
        shards = list(shards)
        wanted = ClaimRequest(seat, shards, *self.workload.claimable(_in_flight(view, shards)), breaker, spare)
        move = claim(self._store.keys, view, self.me.read, wanted, backend.guarantees, stamp)
        self._leave_out(view, move)
        try:
            result = backend.commit(move.conditions, move.changes)
        except MisplacedKeyError as error:
            self._store.report(error.key, error.what)
            self._schedule.read_in(RECHECK_SECONDS)
            return
        self._schedule.read_again()
        if isinstance(result, Refused):
            return
        self.workload.restarts.coming = _in_flight(view, move.rest)
        if spare is not None:
            self.workload.drop(spare[0])
        self._take_up(move, result, view)
        if any(orphaned(view, number) for number in move.shards):
            self.adoption.adopted(now)
        self.adoption.report_opening(view, breaker)

    def _leave_out(self, view: View, move: Move) -> None:
        """Report the shards that no commit can take, and claim them no more until their records change."""
        for number in move.unfit:
            read = view.shards[number]
            self._unfit[number] = read.version if read is not None else None
            log.error("shard %d has no owner: no commit is large enough for the shard's record", number)

    def claimable(self, view: View, numbers: Iterable[int]) -> tuple[int, ...]:
        """Return those of *numbers* that a commit can take, as far as known."""
        versions = {number: read.version for number in numbers if (read := view.shards[number]) is not None}
        return tuple(number for number, version in versions.items() if self._unfit.get(number, "") != version)

    def _take_up(self, move: Move, result: Committed, view: View) -> None:
        keys = self._store.keys
        if move.me.incarnation not in move.former.values():  # Otherwise we claim our own shards again.
            self._takeovers.add_claim(move, view)
        # The next read of the group takes any other version of the own record for a change by another member.
        self.me.read = Versioned(move.me, result.versions[keys.member(move.me.incarnation)])
        for number, shard in move.shards.items():
            self.workload.adopt(number, Versioned(shard, result.versions[keys.shard(number)]))

    def exchange(self, view: View, todo: Plan, now: float) -> bool:
        """Swap an own shard without tasks for an unassigned shard that has tasks. Return whether a claim was tried.

        `Incarnation` calls this when there is no other move to make. Raise any BackendError.
        """
        pair = self.adoption.exchange(view, todo.unplaced, self.workload.works.values(), now)
        if pair is None:
            return False
        number, drained = pair
        self.claim(view, None, [number], now, spare=(drained.number, drained.present()))
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
            or now >= self._takeovers.since(name) + SUCCESSOR_HEAD_START_SECONDS
        ]
        if known:
            self._schedule.read_by(now + RECHECK_SECONDS)
        # The breaker's record keeps the evidence of an owner's death, so write this record first. A member that reads
        # the group after the removal would otherwise find no evidence, and take the death for an expired lease.
        if not self.adoption.record_deaths(view, now, removed=bool(dead)):
            self._schedule.read_again()
            return
        for name in dead:
            # Another member may have removed the record since *view* was read: the store then refuses, without harm.
            self._store.backend.commit([], removal(self._store.keys, view.members[name].record))

    def release(self, view: View) -> bool:
        """Release the shards without an unsettled commit; with the last of them, the seat and the member record.

        Return whether the member record is deleted; if not, call again with a newer view.
        """
        # A transfer to us may land between the read of *view* and the commit. The commit compares our record, which a
        # transfer changes: the store then refuses, and the next call releases this shard, too.
        works, store = self.workload.works, self._store
        # A pending commit may have landed or not, but its changes are in `work.record` already: leave such a shard as
        # the store has it, to the successor.
        held = {n: work.present() for n, work in works.items() if work.pending is None}
        while True:
            move = leave(store.keys, view, self.me.read, held, store.new_id(), store.backend.guarantees)
            if isinstance(store.backend.commit([], move.changes), Refused):
                return False
            for number in move.shards:
                self.workload.drop(number)
            if not move.rest:
                return True
            # The own record is unchanged until the last commit, so a transfer to us still leads to a refusal.
            held = {number: held[number] for number in move.rest}


def _in_flight(view: View, numbers: Iterable[int]) -> int:
    return sum(in_flight(read.record) for number in numbers if (read := view.shards[number]) is not None)
