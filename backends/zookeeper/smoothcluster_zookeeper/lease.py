"""A lease is a ZooKeeper session of its own, represented by a znode.

The znode lives and dies with the session, and no later lease reuses the name. Every commit with keys on the
lease is conditional on the znode and goes through the lease's own session.

The danger: only the servers' leader ends sessions, and the server of this client reports the session to the
leader no more than twice a tick. If the server fails right after answering a renewal, the leader counts from
an earlier renewal. (Seen: 10 seconds granted, renewed after 6, gone 4.5 later.) But an answer to a write
proves the arrival of everything noted by the server half a tick before. So a renewal counts from the previous
renewal, and `ttl` leaves out the time between the two.
"""

import math
import threading
import uuid
from typing import final

from kazoo.exceptions import NoNodeError

from smoothcluster.backend import Lease
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import LeaseLostError, OutcomeUnknownError, UnavailableError
from smoothcluster_zookeeper.directories import Directories
from smoothcluster_zookeeper.layout import Access, Layout
from smoothcluster_zookeeper.session import Session
from smoothcluster_zookeeper.settings import Settings

RELIABLE_SHARE_OF_TTL = 0.7
"""Fraction of the granted time on which a holder can rely by renewing every third of this span."""

_HALF_TICK_SHARE_OF_TTL = 0.2
"""Upper bound of half a tick, as a fraction of the granted time, which is at least two ticks and usually many."""


def lease_id(session_id: int) -> str:
    """Return a session's id, a signed number in the protocol, in the notation of ZooKeeper's own tools."""
    return f"{session_id & 0xFFFFFFFFFFFFFFFF:#x}"


@final
class SessionLease(Lease):
    """A granted lease: *znode* exists and lives with *session*."""

    def __init__(self, session: Session, znode: str, asked: float) -> None:
        self.session = session
        self.znode = znode
        self.gone = False
        self._noted = self._certain = asked
        """When this client sent the last renewal, and the last renewal certainly known to the leader."""
        self._id = lease_id(session.id)
        self._ttl = session.granted * RELIABLE_SHARE_OF_TTL
        self.value = str(math.ceil(self._ttl * 1000)).encode()
        """The value of the znode, in milliseconds, for clients that show the age of the last renewal: see `Reads`."""

    @property
    def id(self) -> str:
        return self._id

    @property
    def ttl(self) -> float:
        return self._ttl

    def renew(self) -> bool:
        self.session.settings.lifetime.check()
        if self.gone:
            return False
        # Before the request: the leader notes the renewal at a later moment, never at an earlier one.
        sent = SYSTEM_CLOCK.monotonic()
        # Half the time, so that the rest remains for another server.
        deadline = sent + min(self.session.settings.timeout, self.ttl / 2)
        half_tick = self.session.granted * _HALF_TICK_SHARE_OF_TTL
        try:
            self._write(deadline)
            if sent - self._noted >= half_tick:
                self._certain, self._noted = self._noted, sent
            if sent - self._certain > self.session.granted - self.ttl:
                if sent + half_tick >= deadline:
                    raise OutcomeUnknownError(
                        f"lease {self.id} is alive, but its remaining time is uncertain; renew it again"
                    )
                SYSTEM_CLOCK.sleep(half_tick)
                self._write(deadline)
                self._certain = self._noted = sent
        except (LeaseLostError, NoNodeError):
            self.mark_lost()
            return False
        return True

    def _write(self, deadline: float) -> None:
        # No mere ping or read: a server without contact to the others still answers those.
        self.session.ready(deadline)
        self.session.wait(self.session.kazoo.set(self.znode, self.value), deadline, OutcomeUnknownError)

    def revoke(self) -> None:
        self.session.settings.lifetime.check()
        if self.gone:
            return
        # Before the request: no renewal or commit that another thread begins from now on may succeed.
        self.gone = True
        deadline = self.session.settings.deadline()
        try:
            self.session.ready(deadline)
            confirmed = self.session.close(deadline)
        except LeaseLostError:
            return
        finally:
            self.session.abandon()
        if not confirmed:
            raise OutcomeUnknownError(
                f"ZooKeeper at {self.session.settings.hosts} did not confirm the end of lease {self.id}"
            )

    def mark_lost(self) -> None:
        """Mark the lease as gone, so that no key can depend on the lease, and end the session."""
        self.gone = True  # First: closing takes time, and no commit or renewal may begin meanwhile.
        self.session.close(self.session.settings.deadline())


@final
class Leases:
    """The leases of a backend."""

    def __init__(self, settings: Settings, layout: Layout, access: Access, directories: Directories) -> None:
        self._settings, self._layout, self._access, self._directories = settings, layout, access, directories
        self._lock = threading.Lock()
        self._leases: set[SessionLease] = set()

    def grant(self, ttl: float) -> SessionLease:
        """Grant a new lease, for *ttl* seconds if the servers agree."""
        self._settings.lifetime.check()  # Before any lock.
        deadline = self._settings.deadline()
        self._drop_lost()
        # Before the request: the servers count the session's time from a later moment, so the holder's count is safe.
        asked = SYSTEM_CLOCK.monotonic()
        session = Session(self._settings, ttl / RELIABLE_SHARE_OF_TTL, ping=False, expired=LeaseLostError)
        try:
            session.ready(deadline)
            lease = SessionLease(session, f"{self._layout.leases}/{uuid.uuid4().hex}", asked)
            self._create_znode(lease, deadline)
            with self._lock:
                # `close` may have run since the session was opened, and abandons only the leases noted by then.
                self._settings.lifetime.check()
                self._leases.add(lease)
        except LeaseLostError as error:
            session.abandon()
            raise UnavailableError(str(error)) from error
        except BaseException:
            session.close(deadline)
            raise
        return lease

    def own(self, lease: Lease | None) -> SessionLease | None:
        """Return *lease* after checking: this backend has granted the lease, and the lease is not gone."""
        if lease is None:
            return None
        if not isinstance(lease, SessionLease) or lease.session.settings is not self._settings:
            raise ValueError(f"lease {lease.id} was not granted by this backend")
        if lease.gone:
            raise LeaseLostError(f"lease {lease.id} is gone")
        return lease

    def close(self) -> None:
        """Abandon all leases of a client with an ended lifetime. The leases expire by themselves."""
        with self._lock:
            leases, self._leases = self._leases, set()
        for lease in leases:
            lease.session.abandon()

    def _create_znode(self, lease: SessionLease, deadline: float) -> None:
        """Create the znode for *lease*."""
        while True:
            pending = lease.session.kazoo.create(lease.znode, lease.value, self._access.all, ephemeral=True)
            try:
                lease.session.wait(pending, deadline, OutcomeUnknownError)
            except NoNodeError:
                self._directories.make(lease.session, self._layout.leases, deadline)
            else:
                return

    def _drop_lost(self) -> None:
        with self._lock:
            lost = {lease for lease in self._leases if lease.gone or lease.session.lost}
            self._leases -= lost
        for lease in lost:
            lease.mark_lost()
