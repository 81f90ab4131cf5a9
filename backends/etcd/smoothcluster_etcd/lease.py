"""A lease is etcd's own.

The danger: renewals are answered by whoever believes to lead, without asking the other servers.
A leader that was paused, and replaced meanwhile, may renew a lease that has long been over. So
each renewal is followed by a read, which only the true leader can confirm. If that shows the same
term as the renewal, there was no other leader when the lease was renewed.
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
    """Granted, for *ttl* seconds, as *number*."""

    def __init__(self, connection: Connection, number: int, ttl: float) -> None:
        self.connection = connection
        self.number = number
        self.gone = False
        """Set once it is known; a server that is behind might still say otherwise."""
        self._ttl = ttl

    @property
    def id(self) -> str:
        return lease_id(self.number)

    @property
    def ttl(self) -> float:
        return self._ttl

    def renew(self) -> bool:
        if self.gone:
            return False
        deadline = self.connection.deadline()
        request = _rpc.LeaseKeepAliveRequest(ID=self.number)
        renewed = self.connection.call("renew", request, deadline, OutcomeUnknownError)
        self.gone = renewed.TTL <= 0
        if not self.gone and self.connection.term(deadline) != renewed.header.raft_term:
            raise OutcomeUnknownError(f"etcd has elected another leader; whether lease {self.id} lives is uncertain")
        return not self.gone

    def revoke(self) -> None:
        if self.gone:
            return
        with suppress(LeaseLostError):
            request = _rpc.LeaseRevokeRequest(ID=self.number)
            self.connection.call("revoke", request, unknown=OutcomeUnknownError)
        self.gone = True


def lease_id(number: int) -> str:
    """How a lease's id is written: as etcd's own tools do."""
    return f"{number:x}"
