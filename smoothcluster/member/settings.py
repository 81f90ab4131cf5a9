"""Settings of a member, valid for all incarnations of the member."""

from dataclasses import dataclass, field

from smoothcluster.group.breaker import Pacing
from smoothcluster.group.election import Order, join_order
from smoothcluster.group.spec import Wanted
from smoothcluster.options import Retries

NO_RETRIES = Retries()


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a member: the numbers, the limits and the order of candidates."""

    group: str
    wanted: Wanted
    concurrency: int = 8
    lease_ttl: float = 10.0
    retries: Retries = NO_RETRIES
    grace: float = 10.0
    order: Order = join_order
    capacity: int | None = None
    """Most shards to own; None for any number."""
    pacing: Pacing = field(default_factory=Pacing)
