"""The breaker: what a group keeps of its deaths, so that handed-over load does not kill one survivor after another.

The record says who died of late and whether adoption is stopped. It holds no times: nobody compares
two machines' clocks. Each member counts seconds on its own, from when it first saw a death there.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from smoothcluster.model import Evidence
from smoothcluster.records.codec import GarbageError, dump, load

REMEMBERED = 64
"""Deaths kept in the record, besides those of members whose shards nobody has taken yet."""


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
