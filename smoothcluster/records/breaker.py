"""The record of the circuit breaker: recent deaths of a group, and whether adoption is stopped.

An open breaker keeps the load of dead members from killing the survivors in turn. The record holds no times,
because the clocks of two machines cannot be compared. Each member measures seconds by a clock of its own, from the
moment when the member first saw a death in the record.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from smoothcluster.model import Evidence
from smoothcluster.records.codec import GarbageError, dump, load

REMEMBERED_DEATHS = 64
"""How many deaths the record keeps, besides the deaths of members with shards still to be adopted."""


@dataclass(frozen=True, slots=True)
class Death:
    """A death of a member that owned shards, with the evidence that the first successor had."""

    name: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Breaker:
    """The breaker's state and the deaths, as the store keeps them."""

    open: bool
    """Whether members with shards must not adopt shards of dead members."""
    dead: dict[str, Death]
    """Deaths by incarnation, the latest last."""
    id: str

    def after(
        self, fresh: Mapping[str, Death], owners: Collection[str | None], commit_id: str, *, opens: bool
    ) -> "Breaker":
        """The record with the *fresh* deaths added. Deaths of *owners*, present owners of shards, are always kept."""
        dead = {**self.dead, **fresh}
        old = list(dead)[:-REMEMBERED_DEATHS]
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
            raise GarbageError(f"the record is not a breaker: {error!r:.80}") from None


CLOSED_BREAKER = Breaker(open=False, dead={}, id="")
"""The breaker of a group in which no member has died yet."""
