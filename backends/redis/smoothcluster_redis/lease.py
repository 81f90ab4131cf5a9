"""A lease is a record in the store, with an expiry on the store's own clock.

That clock follows the server's, but by no more than `CAP` between two commands: a server that stood
still, or whose clock was set, ends nobody's lease early by more than that. A lease is therefore
granted two caps longer than its holder is told.
"""

import uuid
from typing import final

from smoothcluster.backend import Lease
from smoothcluster.errors import OutcomeUnknownError
from smoothcluster_redis.connection import CAP
from smoothcluster_redis.servers import Servers


@final
class RedisLease(Lease):
    """Granted on construction. Raise UnavailableError or OutcomeUnknownError."""

    def __init__(self, servers: Servers, ttl: float) -> None:
        self.servers = servers
        """Whose it is: it means nothing to another part of the store."""
        self._id = uuid.uuid4().hex
        self._ttl = ttl
        self._granted = round((ttl + 2 * CAP) * 1000)
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
