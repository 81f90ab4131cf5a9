"""Moves: choose the move now due. A move is at most one commit, and the group is read again after each.

The order of precedence: own shards that a rollback of the store took from us, a free seat, free shards, the circuit
breaker, an exchange of shards, and last the records of dead members.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, final

from smoothcluster.group.assignment import Plan, plan
from smoothcluster.group.election import CANDIDATE_TURN_SECONDS
from smoothcluster.group.view import View
from smoothcluster.member.candidacy import Candidacy
from smoothcluster.member.claims import Claims
from smoothcluster.member.rebalancing import Rebalancer
from smoothcluster.member.rollback import RollbackRecovery
from smoothcluster.member.schedule import CLAIMANT_HEAD_START_SECONDS, RECHECK_SECONDS, Schedule


class Target(NamedTuple):
    """The shards and the seat of an urgent claim, to be read again before the claim."""

    shards: Sequence[int]
    seat: int | None = None


@final
class Moves:
    """The moves of one incarnation, with the parts that make them."""

    def __init__(
        self, claims: Claims, candidacy: Candidacy, rebalancer: Rebalancer, rollback: RollbackRecovery,
        schedule: Schedule,
    ) -> None:  # fmt: skip
        self._claims, self._candidacy, self._rebalancer, self._rollback = claims, candidacy, rebalancer, rollback
        self._me, self._workload, self._adoption = claims.me, claims.workload, claims.adoption
        self._schedule = schedule

    def urgent(self, view: View, now: float) -> Target | None:
        """Return the target of an urgent claim, given *view* with the latest proofs of death; None if there is none.

        A member with nothing to claim reads the group a little later, to leave the processor and the store to the
        successor. In a group without seats, each member has shards to claim or a record to remove.
        """
        seat = self._candidacy.seat(view, now)
        if seat is not None and seat.holder in view.members:  # Else this claim could not remove the record.
            return Target(view.owned(seat.holder), seat.number)
        self._adoption.observe(view, now)
        claims = self._plan(view, now).claim
        if view.all_run and claims:
            return Target(claims)
        if seat is not None or claims or view.all_run:
            # A candidate may have joined since the last view: read all members before a claim on shards alone.
            self._schedule.overdue = True
        else:
            self._schedule.read_by(now + CLAIMANT_HEAD_START_SECONDS)
        return None

    def act(self, view: View, now: float, *, given_more: bool) -> None:
        """Try the first move now due, and schedule the transfers and the next read.

        *given_more* says whether *view* may lack shards transferred to us.
        """
        self._adoption.observe(view, now)
        again = self._rollback.begun_before(view)
        if again:
            self._claims.claim(view, None, again, now)
            return
        self._candidacy.observe(view, now)
        if self._candidacy.waiting:
            self._schedule.read_by(now + CANDIDATE_TURN_SECONDS / 2)
        if given_more:
            # With a claim on top of the shards transferred to us, we could exceed our limits.
            self._schedule.read_again()
            return
        seat = self._candidacy.seat(view, now)
        if seat is not None:
            self._claims.claim_seat(view, seat, now)
            return
        todo = self._plan(view, now)
        if todo.claim:
            self._claims.claim(view, None, todo.claim, now)
            return
        self._tend(view, todo, now)

    def _tend(self, view: View, todo: Plan, now: float) -> None:
        """Without anything to claim: prepare transfers, and try the moves that serve the group."""
        self._workload.restarts.coming = 0
        self._adoption.report_unassigned(view, todo)
        self._schedule.read_by(self._rebalancer.plan(todo), now + RECHECK_SECONDS)
        if not todo.patient or self._candidacy.starting(view, now):
            self._schedule.read_by(now + RECHECK_SECONDS)
        if self._adoption.close_breaker(view, now) or self._claims.exchange(view, todo, now):
            self._schedule.read_again()
            return
        self._schedule.read_by(self._adoption.next_time(todo), now + 0.001)
        self._claims.remove_dead(view, now)

    def _plan(self, view: View, now: float) -> Plan:
        """Return the shards to claim or to transfer."""
        successor = self._candidacy.has_successor(view, now)
        busy = [work.number for work in self._workload.works.values() if work.outstanding]
        adopt = self._adoption.most(view, now)
        found = plan(view, self._me.record.incarnation, busy=busy, successor=successor, adopt=adopt)
        return replace(found, claim=self._claims.claimable(view, found.claim)) if found.claim else found
