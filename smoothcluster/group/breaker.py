"""Circuit breaker: detect a series of deaths, as seen by a member and timed by the member's own clock.

The breaker opens in the commit that would adopt the first shard of the death that exceeds the limit, because this
death counts together with the recorded deaths. Any member that has seen no death for a while closes the breaker.
Deaths found in the record at a member's first read count as old, because the member cannot know their time.
"""

from dataclasses import dataclass
from math import inf

from smoothcluster.errors import UsageError
from smoothcluster.group.assignment import orphaned, workers
from smoothcluster.group.view import View
from smoothcluster.model import Evidence
from smoothcluster.records.breaker import Breaker, Death


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """Limits on how fast members with shards adopt the shards of dead members.

    Adoption adds to a member's queue, never to the number of tasks running at once. But the tasks may bring other
    dangers (memory, an overloaded host, a bug), and these limits are for such dangers. The limits never hold back
    a member without shards, nor the last working member.
    """

    shards: int = 4
    """Shards in a round of adoption. Smaller: deadly tasks arrive in small rounds; larger: adoption ends sooner."""
    pause: float = 0.1
    """Seconds between two rounds of adoption. Longer: more time for a round to show an effect."""
    share: float = 0.5
    """The breaker opens when more than this share of the members died. 1.0 switches it off."""
    least: int = 2
    """Fewer deaths than this never open the breaker."""
    window: float = 10.0
    """Seconds within which deaths count together. Longer: slower series of deaths count as series."""
    memory: float = 60.0
    """Seconds for which a member that is gone still counts among the members."""
    quiet: float = 10.0
    """Seconds without a death after which the breaker closes. Longer: unassigned shards wait longer."""

    def __post_init__(self) -> None:
        """Raise UsageError, naming the field, if a value is out of range."""
        self.check()

    def check(self) -> "Pacing":
        """Return self; raise UsageError, naming the field, if a value is out of range."""
        for what in ("shards", "least"):
            if type(number := getattr(self, what)) is not int or number < 1:
                raise UsageError(f"pacing: {what} must be a whole number of at least 1, not {number!r}")
        for what in ("pause", "share", "window", "memory", "quiet"):
            number = getattr(self, what)
            if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
                raise UsageError(f"pacing: {what} must be a number of at least 0, not {number!r:.80}")
        if self.quiet < self.window:
            raise UsageError(
                f"pacing: quiet ({self.quiet}) must be at least window ({self.window}), or the breaker reopens at once"
            )
        return self


class DeathWindow:
    """The deaths seen by a member, and their times."""

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self._present: dict[str, float] = {}
        """By name: time of the last sight of the member alive, or of the member's death."""
        self._died: dict[str, tuple[str, float]] | None = None
        """By dead incarnation: the name, and the time when the death was first seen."""
        self._opened: float | None = None

    def observe(self, view: View, now: float) -> None:
        """Record the living and the dead members that *view* shows."""
        record = view.breaker.record
        died = self._died if self._died is not None else {}
        seen = now if self._died is not None else -inf
        known = record.dead | unrecorded(view)
        for incarnation, death in known.items():
            if incarnation not in died:
                died[incarnation] = (death.name, seen)
                self._present[death.name] = max(seen, self._present.get(death.name, -inf))
        for member in view.living().values():
            self._present[member.name] = now
        oldest = now - self._pacing.memory
        self._present = {name: at for name, at in self._present.items() if at >= oldest}
        self._died = {each: (name, at) for each, (name, at) in died.items() if at >= oldest or each in known}
        if record.open:
            self._opened = now if self._opened is None else self._opened
        elif self._opened is not None:
            # The closing member may have seen the deaths earlier than this member: so they are over here, too.
            self._opened = None
            self._died = {incarnation: (name, -inf) for incarnation, (name, _) in self._died.items()}

    def series(self, now: float) -> bool:
        """Whether so many members have died lately that adoption of their shards should stop."""
        since = now - self._pacing.window
        dead = {name for name, at in (self._died or {}).values() if at > since}
        return len(dead) >= self._pacing.least and len(dead) > self._pacing.share * len(self._present)

    def breaker_after(self, view: View, now: float, commit_id: str) -> Breaker | None:
        """The breaker's record with all deaths in *view* added; None if there is nothing to change.

        Call `look` first.
        """
        fresh = unrecorded(view)
        if not fresh and (view.breaker.record.open or not self.series(now)):
            return None
        owners = {read.record.owner for read in view.shards if read is not None}
        return view.breaker.record.after(fresh, owners, commit_id, opens=self.series(now))

    def closes_at(self) -> float | None:
        """The time when the breaker may close if no other member dies; None while the breaker is closed."""
        if self._opened is None:
            return None
        last = max((at for _, at in (self._died or {}).values()), default=-inf)
        return max(last, self._opened) + self._pacing.quiet


def unrecorded(view: View) -> dict[str, Death]:
    """Deaths of present owners of shards that the breaker's record lacks."""
    fresh: dict[str, Death] = {}
    for number, read in enumerate(view.shards):
        if read is None or read.record.owner is None or read.record.owner in view.breaker.record.dead:
            continue
        if orphaned(view, number):
            evidence = view.verdict(read.record.owner) or Evidence.LEASE_EXPIRED
            fresh[read.record.owner] = Death(read.record.name or read.record.owner, evidence)
    return fresh


def exempt(view: View, me: str) -> bool:
    """Whether *me* is exempt from the breaker: *me* owns no shards yet, or no other member works."""
    return not view.owned(me) or workers(view) == [me]
