"""The breaker: what a group keeps of its deaths, so that handed-over load does not kill one survivor after another.

The record says who died of late and whether adoption is stopped. It holds no times: nobody compares
two machines' clocks. Each member counts seconds on its own, from when it first saw a death there.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from smoothcluster.errors import UsageError
from smoothcluster.model import Evidence
from smoothcluster.records.group import GarbageError, dump, load

REMEMBERED = 64
"""Deaths kept in the record, besides those of members whose shards nobody has taken yet."""


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


@dataclass(frozen=True, slots=True)
class Death:
    """A member that died while it owned shards, as its first heir knew it."""

    name: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Breaker:
    """What the store keeps of it."""

    open: bool
    """Whether members that have shards already must leave those of the dead alone."""
    dead: dict[str, Death]
    """By incarnation, the latest last."""
    id: str

    def after(
        self, fresh: Mapping[str, Death], owners: Collection[str | None], commit_id: str, *, opens: bool
    ) -> "Breaker":
        """The record once *fresh* deaths are told in it; *owners* are whose shards still wait."""
        dead = {**self.dead, **fresh}
        old = list(dead)[:-REMEMBERED]
        kept = {name: death for name, death in dead.items() if name not in old or name in owners}
        return Breaker(self.open or opens, kept, commit_id)

    def to_json(self) -> bytes:
        dead = [[incarnation, death.name, death.evidence] for incarnation, death in self.dead.items()]
        return dump({"open": self.open, "dead": dead, "id": self.id})

    @classmethod
    def from_json(cls, value: bytes) -> "Breaker":
        data = load(value)
        try:
            dead = {str(incarnation): Death(str(name), Evidence(how)) for incarnation, name, how in data["dead"]}
            return cls(data["open"] is True, dead, str(data["id"]))
        except (KeyError, ValueError, TypeError) as error:
            raise GarbageError(f"not a breaker: {error!r:.80}") from None


CLOSED = Breaker(open=False, dead={}, id="")
"""Of a group in which nobody has died yet."""
