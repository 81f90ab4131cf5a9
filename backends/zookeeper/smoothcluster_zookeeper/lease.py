"""A lease is a ZooKeeper session of its own, with a znode that stands for it.

The znode lives and dies with the session and its name is never used again. Every commit that
hangs keys on the lease is conditional on it, and goes through the lease's own session.
"""

from typing import final

from kazoo.exceptions import NoNodeError

from smoothcluster.backend import Lease
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import LeaseLostError, OutcomeUnknownError
from smoothcluster_zookeeper.session import Session


def lease_id(session_id: int) -> str:
    """How a session's id, which is signed in the protocol, is written: as ZooKeeper's own tools do."""
    return f"{session_id & 0xFFFFFFFFFFFFFFFF:#x}"


@final
class SessionLease(Lease):
    """Granted: *znode* exists and lives with *session*."""

    def __init__(self, session: Session, znode: str) -> None:
        self.session = session
        self.znode = znode
        self.gone = False
        self._id = lease_id(session.id)

    @property
    def id(self) -> str:
        return self._id

    @property
    def ttl(self) -> float:
        return self.session.granted

    def renew(self) -> bool:
        if self.gone:
            return False
        # A write, because a server that is cut off from the others still answers pings and reads.
        # Half the time, so that another server can be tried with the rest of it.
        deadline = SYSTEM_CLOCK.monotonic() + min(self.session.settings.timeout, self.ttl / 2)
        try:
            self.session.ready(deadline)
            self.session.wait(self.session.kazoo.set(self.znode, b""), deadline, OutcomeUnknownError)
        except (LeaseLostError, NoNodeError):
            self.lose()
            return False
        return True

    def revoke(self) -> None:
        if self.gone:
            return
        self.gone = True
        deadline = SYSTEM_CLOCK.monotonic() + self.session.settings.timeout
        try:
            self.session.ready(deadline)
            told = self.session.close(deadline)
        except LeaseLostError:
            return
        finally:
            self.session.abandon()
        if not told:
            raise OutcomeUnknownError(f"{self.session.settings.hosts} was not told that lease {self.id} ends")

    def lose(self) -> None:
        """It is gone: make sure that nothing can hang on it, nor its session live on."""
        self.gone = True
        self.session.abandon()
