"""Whether members die in series: what one member makes of the deaths it has seen, by its own clock.

The breaker opens before the first shard is adopted of a death that makes it a series, since that
death is counted with those already told. It is closed by any member that has seen no death for a
while. What stood in the record when this member first looked is old news: when that was, it cannot know.
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
    """How carefully the shards of dead members are adopted by those that have some already.

    Adopting adds to a member's queue, never to what it runs at once. What else may come with the
    tasks (memory, a host that cannot bear more, a bug) is what these are for. A member without
    shards is never held back, nor is the last one that works.
    """

    shards: int = 4
    """How many a member adopts at once. Smaller: what kills is met in small doses; larger: sooner done."""
    pause: float = 0.1
    """Seconds from one such round to the next. Longer: more time for a dose to show its effect."""
    share: float = 0.5
    """The breaker opens when more than this share of the members died. 1.0 switches it off."""
    least: int = 2
    """And at least so many."""
    window: float = 10.0
    """Within so many seconds. Longer: slower series of deaths count as series."""
    memory: float = 60.0
    """Seconds for which somebody who is gone still counts as one of the members."""
    quiet: float = 10.0
    """Seconds without a death after which the breaker closes. Longer: unassigned shards wait longer."""

    def check(self) -> "Pacing":
        """Return it, or raise UsageError saying what is wrong with it."""
        for what in ("shards", "least"):
            if type(number := getattr(self, what)) is not int or number < 1:
                raise UsageError(f"pacing: {what} must be a whole number of at least 1, not {number!r}")
        for what in ("pause", "share", "window", "memory", "quiet"):
            if not getattr(self, what) >= 0:
                raise UsageError(f"pacing: {what} must be at least 0, not {getattr(self, what)!r}")
        if self.quiet < self.window:
            raise UsageError(
                f"pacing: quiet ({self.quiet}) must be at least window ({self.window}): it would open again"
            )
        return self


class DeathWindow:
    """The deaths that one member has seen, and when."""

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self._present: dict[str, float] = {}
        """When each name was last seen among the living or to die."""
        self._died: dict[str, tuple[str, float]] | None = None
        """Each dead incarnation's name, and when it was first seen to be dead."""
        self._opened: float | None = None

    def look(self, view: View, now: float) -> None:
        """Take note of who lives and who has died."""
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
            # Whoever closed it may have seen the deaths earlier than we did: they are over for us, too.
            self._opened = None
            self._died = {incarnation: (name, -inf) for incarnation, (name, _) in self._died.items()}

    def series(self, now: float) -> bool:
        """Whether so many have died of late that nobody should adopt what they left."""
        since = now - self._pacing.window
        dead = {name for name, at in (self._died or {}).values() if at > since}
        return len(dead) >= self._pacing.least and len(dead) > self._pacing.share * len(self._present)

    def told(self, view: View, now: float, commit_id: str) -> Breaker | None:
        """The breaker's record once it is told of all deaths that *view* shows; None if it knows of them.

        Call `look` first.
        """
        fresh = unrecorded(view)
        if not fresh and (view.breaker.record.open or not self.series(now)):
            return None
        owners = {read.record.owner for read in view.shards if read is not None}
        return view.breaker.record.after(fresh, owners, commit_id, opens=self.series(now))

    def closes_at(self) -> float | None:
        """When, if nobody else dies, the breaker may be closed; None while it is."""
        if self._opened is None:
            return None
        last = max((at for _, at in (self._died or {}).values()), default=-inf)
        return max(last, self._opened) + self._pacing.quiet


def unrecorded(view: View) -> dict[str, Death]:
    """Those who died owning shards that are still theirs, and of whom the breaker does not know."""
    fresh: dict[str, Death] = {}
    for number, read in enumerate(view.shards):
        if read is None or read.record.owner is None or read.record.owner in view.breaker.record.dead:
            continue
        if orphaned(view, number):
            evidence = view.verdict(read.record.owner) or Evidence.LEASE_EXPIRED
            fresh[read.record.owner] = Death(read.record.name or read.record.owner, evidence)
    return fresh


def exempt(view: View, me: str) -> bool:
    """Whether the breaker does not stop *me*: it has no shards yet, or nobody else works."""
    return not view.owned(me) or workers(view) == [me]
