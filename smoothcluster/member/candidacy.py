"""For how long others have not moved, by one member's own clock, and what may be done about it then.

Nothing here compares clocks: a record that stands unchanged while this process looks on for long
enough was not touched in that time, whatever its owner's clock says.
"""

from smoothcluster.group.election import PATIENCE, Order, SeatClaim, fit, free_seats, seat_to_claim
from smoothcluster.group.view import View


class Candidacy:
    """What one incarnation has been waiting for, and since when."""

    def __init__(self, me: str, order: Order, ttl: float) -> None:
        self._me, self._order, self._ttl = me, order, ttl
        self._idle: dict[str, tuple[str | None, float]] = {}
        """Of each member that does not run, the version of its record, and since when that has stood."""
        self._vacant: dict[int, float] = {}
        """Since when each free seat has been so."""

    def look(self, view: View, now: float) -> None:
        """Take note of who does not run, and of the seats that are free."""
        idle = {name: read.version for name, read in view.members.items() if not read.record.running}
        since = {name: seen for name, (version, seen) in self._idle.items() if idle.get(name) == version}
        self._idle = {name: (version, since.get(name, now)) for name, version in idle.items()}
        free = free_seats(view, self._idle_since(), now, self._ttl)
        self._vacant = {claim.number: self._vacant.get(claim.number, now) for claim in free}

    @property
    def waiting(self) -> bool:
        """Whether a seat is free: our turn to take it may come while nothing happens."""
        return bool(self._vacant)

    def seat(self, view: View, now: float) -> SeatClaim | None:
        """The seat to claim now, if any."""
        return seat_to_claim(view, self._me, self._idle_since(), now, self._ttl, self._order, self._vacant)

    def has_successor(self, view: View, now: float) -> bool:
        """Whether a candidate is there to take a free seat, and its turn is not over yet."""
        waited = now - max(self._vacant.values(), default=now)
        heirs = fit(view, self._me, self._order)
        return bool(heirs) and waited <= PATIENCE * len(heirs)

    def starting(self, view: View, now: float) -> bool:
        """Whether a Runner has joined and is about to work: it will be due a share, and tells nobody when."""
        runners = view.runners()
        idle = (since for name, (_, since) in self._idle.items() if name in runners and name != self._me)
        return any(now - since < self._ttl for since in idle)

    def _idle_since(self) -> dict[str, float]:
        return {name: since for name, (_, since) in self._idle.items()}
