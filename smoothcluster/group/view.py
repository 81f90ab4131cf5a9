"""A picture of the group, as one member read it: what every decision starts from.

It may be out of date by the time it is used; that costs a lost race, never a promise, since
every move made on it is a guarded commit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from smoothcluster.model import Evidence
from smoothcluster.records.breaker import CLOSED, Breaker
from smoothcluster.records.group import Member, Seat, Spec
from smoothcluster.records.shard import Shard

T = TypeVar("T")

Report = Callable[[str, str], None]
"""Told of garbage: the key it lies under, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Versioned(Generic[T]):
    """A record and the version it was read at; None if the key does not exist yet."""

    record: T
    version: str | None


@dataclass(frozen=True, slots=True)
class View:
    """The group's spec, seats, shards and members, and whom this process knows to be dead."""

    spec: Versioned[Spec]
    seats: Sequence[Versioned[Seat]]
    shards: Sequence[Versioned[Shard] | None]
    """None where a shard's record is garbage: nobody may touch it."""
    members: Mapping[str, Versioned[Member]]
    gone: Mapping[str, Evidence] = field(default_factory=dict[str, Evidence])
    """Incarnations proved dead, though their records may still be there."""
    complete: bool = True
    """Whether *members* were read after the rest. If not, one that is missing may be a newcomer."""
    breaker: Versioned[Breaker] = Versioned(CLOSED, None)

    @property
    def all_run(self) -> bool:
        """Whether all members are Runners, without seats."""
        return self.spec.record.backup is None

    def living(self) -> dict[str, Member]:
        """The members that are there and not proved dead."""
        return {name: read.record for name, read in self.members.items() if name not in self.gone}

    def verdict(self, incarnation: str | None) -> Evidence | None:
        """How it is known that *incarnation* no longer works; None if it may well do."""
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
        """Who of the living holds which seat."""
        return {
            read.record.holder: number
            for number, read in enumerate(self.seats)
            if read.record.holder is not None and self.verdict(read.record.holder) is None
        }

    def runners(self) -> list[str]:
        """Who of the living is a Runner: who holds a seat, by seat; or without seats, the first to have joined.

        Without seats one that is unfit is passed over, unless nobody else is there.
        """
        if not self.all_run:
            seated = self.seated()
            return sorted(seated, key=seated.__getitem__)
        living = self.living()
        fit = [name for name, member in living.items() if member.unfit is None] or list(living)
        return sorted(fit, key=lambda name: living[name].join)[: self.spec.record.runner]

    def owned(self, incarnation: str | None) -> list[int]:
        """The shards that *incarnation* owns; those that nobody does, for None."""
        return [n for n, read in enumerate(self.shards) if read is not None and read.record.owner == incarnation]
