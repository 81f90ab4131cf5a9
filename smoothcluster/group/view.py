"""A snapshot of the group, as read by a member: the input of every decision.

The snapshot may be out of date when used. The member then loses a race, but no promise is broken, because
every move is a guarded commit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from smoothcluster.model import Evidence
from smoothcluster.records.breaker import CLOSED_BREAKER, Breaker
from smoothcluster.records.group import Member, Seat, Spec
from smoothcluster.records.shard import Shard

T = TypeVar("T")

Report = Callable[[str, str], None]
"""Callback for garbage, with the key of the garbage and the error found."""


@dataclass(frozen=True, slots=True)
class Versioned(Generic[T]):
    """A record and the version read with the record; None as version if the key does not exist yet."""

    record: T
    version: str | None


@dataclass(frozen=True, slots=True)
class _Index:
    """What many decisions ask of one view, computed once. Callers change none of it."""

    living: dict[str, Member]
    owned: dict[str | None, list[int]]
    seated: dict[str, int]
    runners: list[str]


@dataclass(frozen=True, slots=True)
class View:
    """The group's spec, seats, shards and members, and the members this process knows to be dead.

    A view never changes, so the answers of the methods are computed once, in one pass over members, seats and shards.
    """

    spec: Versioned[Spec]
    seats: Sequence[Versioned[Seat]]
    shards: Sequence[Versioned[Shard] | None]
    """By number; None for a shard with a garbage record, which no member may touch."""
    members: Mapping[str, Versioned[Member]]
    gone: Mapping[str, Evidence] = field(default_factory=dict[str, Evidence])
    """Incarnations proved dead, even if their records still exist."""
    complete: bool = True
    """Whether *members* were read after the rest. If not, a missing member may be a newcomer."""
    breaker: Versioned[Breaker] = Versioned(CLOSED_BREAKER, None)
    _known: list[_Index] = field(default_factory=list[_Index], init=False, repr=False, compare=False)
    """The index, once computed."""

    @property
    def all_run(self) -> bool:
        """Whether all members are Runners, without seats."""
        return self.spec.record.backup is None

    def living(self) -> dict[str, Member]:
        """The present members, without those proved dead."""
        return self._index().living

    def verdict(self, incarnation: str | None) -> Evidence | None:
        """The evidence that *incarnation* no longer works; None if *incarnation* may still work."""
        if incarnation is None:
            return Evidence.LEFT
        if incarnation in self.gone:
            return self.gone[incarnation]
        if incarnation in self.members:
            return None
        if incarnation in self.breaker.record.dead:
            return self.breaker.record.dead[incarnation].evidence
        return Evidence.LEASE_EXPIRED if self.complete else None

    def seated(self) -> dict[str, int]:
        """The seat number of each living member with a seat."""
        return self._index().seated

    def runners(self) -> list[str]:
        """The living Runners: the seat holders in order of seats; in a group without seats, the first to join.

        Without seats, unfit members are passed over unless all members are unfit.
        """
        return self._index().runners

    def owned(self, incarnation: str | None) -> list[int]:
        """The shards that *incarnation* owns; for None, the shards without an owner."""
        return self._index().owned.get(incarnation, [])

    def _index(self) -> _Index:
        if not self._known:
            living = {name: read.record for name, read in self.members.items() if name not in self.gone}
            owned: dict[str | None, list[int]] = {}
            for number, read in enumerate(self.shards):
                if read is not None:
                    owned.setdefault(read.record.owner, []).append(number)
            seated = {
                read.record.holder: number
                for number, read in enumerate(self.seats)
                if read.record.holder is not None and self.verdict(read.record.holder) is None
            }
            runners = self._first_to_join(living) if self.all_run else sorted(seated, key=seated.__getitem__)
            self._known.append(_Index(living, owned, seated, runners))
        return self._known[0]

    def _first_to_join(self, living: Mapping[str, Member]) -> list[str]:
        fit = [name for name, member in living.items() if member.unfit is None] or list(living)
        return sorted(fit, key=lambda name: living[name].place)[: self.spec.record.runner]
