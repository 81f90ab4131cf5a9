"""Settings of a member, valid for all incarnations of the member."""

from dataclasses import dataclass, field
from typing import Self

from smoothcluster.arguments import check_callable, check_count, check_seconds
from smoothcluster.errors import UsageError
from smoothcluster.group.breaker import Pacing
from smoothcluster.group.election import Order, join_order
from smoothcluster.group.spec import Wanted
from smoothcluster.options import DEFAULT_MAX_TASKS, Retries

NO_RETRIES = Retries()

MOST_CONCURRENCY = 100_000
"""Most handlers at once in a member. A member keeps a record for each possible thread."""


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
    max_tasks: int = DEFAULT_MAX_TASKS
    """Most tasks of a job that was submitted without a bound."""

    def check(self) -> Self:
        """Return self; raise UsageError, naming the setting, if a value is out of range."""
        check_count("concurrency", self.concurrency)
        if self.concurrency > MOST_CONCURRENCY:
            raise UsageError(f"concurrency must be at most {MOST_CONCURRENCY}, not {self.concurrency}")
        check_seconds("lease_ttl", self.lease_ttl, zero=False)
        check_seconds("grace", self.grace)
        check_callable("order", self.order)
        if self.capacity is not None:
            check_count("capacity", self.capacity)
        check_count("max_tasks", self.max_tasks)
        self.wanted.check()
        self.pacing.check()
        return self
