"""The settings of a member; the same for all its incarnations."""

from dataclasses import dataclass, field

from smoothcluster.group.breaker import Pacing
from smoothcluster.group.election import Order, join_order
from smoothcluster.group.spec import Wanted
from smoothcluster.options import Retries

NO_RETRIES = Retries()


@dataclass(frozen=True, slots=True)
class Settings:
    """How a member behaves; the same for all its incarnations."""

    group: str
    wanted: Wanted
    concurrency: int = 8
    lease_ttl: float = 10.0
    retries: Retries = NO_RETRIES
    grace: float = 10.0
    order: Order = join_order
    capacity: int | None = None
    """Shards to take at most."""
    pacing: Pacing = field(default_factory=Pacing)
