"""A lease is a record in the store, with an expiry on the store's own clock.

The store's clock follows the server's clock, but advances by at most `CLOCK_STEP_CAP_SECONDS` between two commands. So
after a pause of the server, or a jump of the server's clock, no lease ends early by more than `CLOCK_STEP_CAP_SECONDS`.
Therefore the store keeps a lease two caps longer than the time told to the holder.
"""

import uuid
from typing import final

from smoothcluster.backend import Lease
from smoothcluster.errors import OutcomeUnknownError
from smoothcluster_redis.connection import CLOCK_STEP_CAP_SECONDS
from smoothcluster_redis.servers import Servers


@final
class RedisLease(Lease):
    """A lease, granted on construction. Raises UnavailableError or OutcomeUnknownError."""

    def __init__(self, servers: Servers, ttl: float) -> None:
        self.servers = servers
        """The part of the store that holds the lease: no other part knows the lease."""
        self._id = uuid.uuid4().hex
        self._ttl = ttl
        self._granted = round((ttl + 2 * CLOCK_STEP_CAP_SECONDS) * 1000)
        servers.run("lease", [self._id, self._granted], OutcomeUnknownError)

    @property
    def id(self) -> str:
        return self._id

    @property
    def ttl(self) -> float:
        return self._ttl

    def renew(self) -> bool:
        return bool(self.servers.run("renew", [self._id, self._granted], OutcomeUnknownError))

    def revoke(self) -> None:
        self.servers.run("revoke", [self._id], OutcomeUnknownError)
