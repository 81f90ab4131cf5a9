"""Rebalancing: transfer own shards to live members, to balance the group or because we are no longer a Runner.

A shard is transferred when no task of the shard runs and all outcomes are recorded; until then no more tasks of the
shard start. A single commit makes the target the owner and changes the target's member record, so the commit wakes the
target. Many shards take several commits, each as large as the store allows. A shard without a target is released, for
any member with room to claim later.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace

from smoothcluster.backend import Committed
from smoothcluster.group.assignment import Plan, room
from smoothcluster.group.handover import Move, release_shards, transfer
from smoothcluster.group.store import GroupStore
from smoothcluster.group.view import Versioned, View
from smoothcluster.member.stopping import Stopping
from smoothcluster.member.takeover_log import TakeoverLog
from smoothcluster.records.group import Member
from smoothcluster.records.shard import Shard
from smoothcluster.work.workload import Workload

log = logging.getLogger("smoothcluster")


class Rebalancer:
    """Shards of one incarnation to transfer soon."""

    def __init__(
        self, store: GroupStore, grace: float, workload: Workload, stopping: Stopping, takeovers: TakeoverLog
    ) -> None:
        self._store, self._clock, self._grace = store, store.clock, grace
        self._workload, self._stopping, self._takeovers = workload, stopping, takeovers
        self._moving: dict[int, str | None] = {}
        self._unfit: set[int] = set()
        """Own shards with a record too large for a transfer: we go on working on them."""
        self._resigning: float | None = None
        """The time on our clock since which we resign: all own shards are to be transferred."""

    def plan(self, todo: Plan) -> float | None:
        """Stop starting tasks of the shards to transfer, and take back the tasks that have not started.

        Called with each plan that claims nothing. If we resign, return the time when the grace period for running
        tasks is over, else None.
        """
        self._resign(resigning=todo.resign)
        self._unfit &= self._workload.works.keys()
        gifts: dict[int, str | None] = {number: to for number, to in todo.give if number not in self._unfit}
        for number, work in self._workload.works.items():
            work.moving = number in gifts
        self._moving = {number: target for number, target in gifts.items() if number in self._workload.works}
        if self._moving:
            self._workload.hand_back(lambda work: work.moving)
        return None if self._resigning is None else self._resigning + self._grace

    def _resign(self, *, resigning: bool) -> None:
        """Set the handlers' stop flag while we resign; clear the flag if we are a Runner again or own no shards."""
        if resigning and self._resigning is None:
            self._resigning = self._clock.monotonic()
            self._stopping.set()
        elif not resigning and self._resigning is not None:
            self._resigning = None
            self._stopping.clear()

    def transfer(self, view: View, me: Member) -> bool:
        """Transfer the planned shards that are quiet to their targets. Return whether a shard was ready.

        Called in each turn after the workload, because the workload's commits may have made a shard quiet. When we
        resign and the grace period is over, transfer shards with running tasks, too. Raise any BackendError.
        """
        late = self._resigning is not None and self._clock.monotonic() >= self._resigning + self._grace
        gifts: dict[str | None, dict[int, Versioned[Shard]]] = {}
        for number, target in self._moving.items():
            work = self._workload.works.get(number)
            # Outcomes to record, and an unsettled commit, go first even after the grace period. A commit of ours
            # without an answer may have landed or not, but the record in memory contains the changes already. A
            # transfer of this record could count outcomes without results in the store.
            if work is not None and (work.quiet() or (late and not work.unsaid())):
                gifts.setdefault(target, {})[number] = work.present()
        for target, gift in gifts.items():
            self._transfer_to(view, me, target, gift)
        return bool(gifts)

    def _transfer_to(self, view: View, me: Member, target: str | None, gift: Mapping[int, Versioned[Shard]]) -> None:
        # Remove the shards from the plan before the commit. If the target dies or claims meanwhile, the store refuses,
        # and only a plan made on a new view may try again.
        for number in gift:
            del self._moving[number]
        if target is not None and not (target in view.members and self._has_room(view, target, len(gift))):
            return
        receiver = view.members[target] if target is not None else None
        while gift:
            move = self._move(me, receiver, gift)
            self._leave_out(move)
            result = self._store.backend.commit([], move.changes) if move.shards else None
            if not isinstance(result, Committed):
                return  # If the target died or claimed meanwhile, the store has refused.
            for number in move.shards:
                self._workload.drop(number)
            if receiver is not None:
                self._takeovers.add_transfer(move)
                # The next commit compares the record that this commit has set.
                key = self._store.keys.member(receiver.record.incarnation)
                receiver = Versioned(replace(receiver.record, id=move.id), result.versions[key])
            gift = _rest(gift, move)

    def _move(self, me: Member, receiver: Versioned[Member] | None, gift: Mapping[int, Versioned[Shard]]) -> Move:
        store = self._store
        limits = store.backend.guarantees
        if receiver is None:
            return release_shards(store.keys, me, gift, store.new_id(), limits)
        return transfer(store.keys, me, receiver, gift, store.new_id(), limits)

    def _leave_out(self, move: Move) -> None:
        """Report the shards that no commit can move, and go on working on them."""
        for number in move.unfit:
            self._unfit.add(number)
            self._workload.works[number].moving = False
            log.error("shard %d stays with its owner: no commit is large enough for the shard's record", number)

    def _has_room(self, view: View, target: str, more: int) -> bool:
        """Whether *target* has room for *more* shards, by a new read of all shards.

        *view* holds the shards as of before the read of the target's record, so a claim of the target between these two
        reads is missing in *view*. A new read shows this claim. A later claim, or a transfer from another member,
        changes the target's record, and the transfer compares this record: the store then refuses.
        """
        if view.members[target].record.capacity is None:
            return True
        found = self._store.read_ownership(view.spec.record)
        now = replace(view, shards=found.shards) if found is not None else view
        return more <= (room(now, target) or 0)


def _rest(gift: Mapping[int, Versioned[Shard]], move: Move) -> Mapping[int, Versioned[Shard]]:
    return {number: gift[number] for number in move.rest}
