"""Leases of etcd.

The danger: a server answers renewals as soon as it believes to be the leader, without asking the other
servers. A paused and meanwhile replaced leader may renew a lease after the end of the lease. So a read follows
each renewal, and only the true leader can confirm a read. If the read shows the same term as the renewal, no
other leader existed at the time of the renewal.
"""

from contextlib import suppress
from typing import Any, final

from etcd3 import etcdrpc

from smoothcluster.backend import Lease
from smoothcluster.errors import LeaseLostError, OutcomeUnknownError
from smoothcluster_etcd.connection import Connection

_rpc: Any = etcdrpc


@final
class EtcdLease(Lease):
    """A lease granted for *ttl* seconds with id *number*."""

    def __init__(self, connection: Connection, number: int, ttl: float) -> None:
        self.connection = connection
        self.number = number
        self.gone = False
        """True once the lease is known to be gone; a server behind the others might still report a live lease."""
        self._ttl = ttl

    @property
    def id(self) -> str:
        return lease_id(self.number)

    @property
    def ttl(self) -> float:
        return self._ttl

    def renew(self) -> bool:
        self.connection.lifetime.check()
        if self.gone:
            return False
        deadline = self.connection.deadline()
        request = _rpc.LeaseKeepAliveRequest(ID=self.number)
        renewed = self.connection.call("renew", request, deadline, OutcomeUnknownError)
        self.gone = renewed.TTL <= 0
        # After the renewal: a read before the renewal would not show a leader elected in between.
        if not self.gone and self.connection.term(deadline) != renewed.header.raft_term:
            raise OutcomeUnknownError(f"etcd has elected another leader, and the state of lease {self.id} is unknown")
        return not self.gone

    def revoke(self) -> None:
        self.connection.lifetime.check()
        if self.gone:
            return
        with suppress(LeaseLostError):
            request = _rpc.LeaseRevokeRequest(ID=self.number)
            self.connection.call("revoke", request, unknown=OutcomeUnknownError)
        self.gone = True


def lease_id(number: int) -> str:
    """Return a lease's id in the notation of etcd's own tools."""
    return f"{number:x}"
