"""Candidacy: measure for how long members have been idle and seats vacant, and choose the seat to claim.

All times come from this process's own clock, and no two clocks are compared. A record with the same version in two
reads was unchanged in between, so the owner's clock does not matter.
"""

from smoothcluster.group.election import (
    CANDIDATE_TURN_SECONDS,
    Observation,
    Order,
    SeatClaim,
    fit,
    free_seats,
    seat_to_claim,
)
from smoothcluster.group.view import View


class Candidacy:
    """The idle members and the vacant seats that one incarnation has seen, with times."""

    def __init__(self, me: str, order: Order, ttl: float) -> None:
        self._me, self._order, self._ttl = me, order, ttl
        self._idle: dict[str, tuple[str | None, float]] = {}
        """For each member that does not run: the version of the record, and when this version was first read."""
        self._vacant: dict[int, float] = {}
        """For each free seat: the time of the first view with this seat free."""

    def observe(self, view: View, now: float) -> None:
        """Record the idle members and the free seats that *view* shows. Called with each newly read view.

        A changed record starts the time of an idle member again, and a seat that was taken meanwhile starts again, too.
        """
        idle = {name: read.version for name, read in view.members.items() if not read.record.running}
        since = {name: seen for name, (version, seen) in self._idle.items() if idle.get(name) == version}
        self._idle = {name: (version, since.get(name, now)) for name, version in idle.items()}
        free = free_seats(view, self._seen(now))
        self._vacant = {claim.number: self._vacant.get(claim.number, now) for claim in free}

    @property
    def waiting(self) -> bool:
        """Whether a seat is free. Then read the group again soon: our turn may come without an event to wake us."""
        return bool(self._vacant)

    def seat(self, view: View, now: float) -> SeatClaim | None:
        """Return the seat to claim now; None if no seat is free for us or another candidate has the turn."""
        return seat_to_claim(view, self._me, self._seen(now), self._order)

    def has_successor(self, view: View, now: float) -> bool:
        """Whether a fit candidate is there to take a free seat, and the turns of all candidates are not over yet.

        Until then, Runners leave the free shards to the candidate.
        """
        waited = now - max(self._vacant.values(), default=now)
        successors = fit(view, self._me, self._order)
        return bool(successors) and waited <= CANDIDATE_TURN_SECONDS * len(successors)

    def starting(self, view: View, now: float) -> bool:
        """Whether another Runner has joined lately and does not run yet.

        Such a Runner will be due a share, but the beginning of its work may wake no other member. So the group must be
        read again soon.
        """
        runners = view.runners()
        idle = (since for name, (_, since) in self._idle.items() if name in runners and name != self._me)
        return any(now - since < self._ttl for since in idle)

    def _seen(self, now: float) -> Observation:
        return Observation(now, self._ttl, {name: since for name, (_, since) in self._idle.items()}, self._vacant)
