"""The session for everything except leases: created on first use, replaced after a loss."""

import logging
import threading
from collections.abc import Callable
from typing import final

from smoothcluster.errors import AccessDeniedError, UnavailableError
from smoothcluster_zookeeper.driver import Fired
from smoothcluster_zookeeper.session import Session
from smoothcluster_zookeeper.settings import Settings

_ZOOKEEPER_LOG = logging.getLogger("smoothcluster_zookeeper")

_MOST_SYNCS = 200
"""Syncs for which a read waits until the server has caught up: each takes a round trip, and one is the rule."""

_LONGEST_SESSION_SECONDS = 3600.0
"""Session time to request, in seconds, so that the servers grant the longest time allowed."""


@final
class Connection:
    """A backend's connection to servers with all data under *root*."""

    def __init__(self, settings: Settings, root: str) -> None:
        self.settings = settings
        self.disconnected: Callable[[], None] = lambda: None
        """Called in the session's thread when a connection has ended, and its ZooKeeper watches with it."""
        self.fired: Fired = lambda _, __: None
        self.session: Session | None = None
        """The session, possibly not yet or no longer connected."""
        self._root = root
        self._lock = threading.Lock()
        self._seen = 0
        """The latest transaction id of the store in any session of the backend."""
        self._closed = False

    @property
    def live(self) -> Session | None:
        """The session if connected: for requests not worth waiting for."""
        session = self.session
        return session if session is not None and session.connected else None

    def ready(self, deadline: float) -> Session:
        """Return a connected session. Raise UnavailableError at *deadline*."""
        while True:
            with self._lock:
                if self._closed:
                    raise UnavailableError("this client of ZooKeeper is closed")
                lost = self.session if self.session and self.session.lost else None
                if self.session is None or lost:
                    self.session = Session(
                        self.settings, _LONGEST_SESSION_SECONDS, ping=True, changed=self._on_change, fired=self.fired
                    )
                session = self.session
            # Outside the lock: the end of the lost session's thread may take seconds, and other calls need not wait.
            if lost:
                lost.abandon()
            try:
                session.ready(deadline)
            except AccessDeniedError:
                raise
            except UnavailableError:
                if not session.lost:
                    raise
                # The session expired while this call was waiting. Time is left for another session.
            else:
                return session

    def for_reading(self, deadline: float) -> Session:
        """Return a session as `ready` does, whose reads never return a state older than already seen."""
        session = self.ready(deadline)
        syncs = 0
        # The session's server may be behind the server that answered an earlier call. A sync brings a follower up to
        # date. But the leader answers a sync at once, even while a commit that a follower has applied already still
        # waits in the leader's own queue: so only the number of the answer shows that the server has caught up.
        while session.zxid < self._seen:
            if syncs == _MOST_SYNCS:
                _ZOOKEEPER_LOG.warning("ZooKeeper is older than before: it has lost its data, or was restored")
                with self._lock:
                    self._seen = session.zxid
                break
            session.wait(session.kazoo.sync(self._root), deadline)
            syncs += 1
        return session

    def sync(self) -> None:
        """Wait until all later reads return a state no older than this call."""
        deadline = self.settings.deadline()
        session = self.ready(deadline)
        session.wait(session.kazoo.sync(self._root), deadline)
        self.record_state(session)

    def record_state(self, session: Session) -> None:
        """Remember the latest state seen by *session*, this connection's or a lease's."""
        with self._lock:
            self._seen = max(self._seen, session.zxid)

    def close(self) -> None:
        """End the session, and open no other."""
        with self._lock:
            self._closed = True
            session, self.session = self.session, None
        if session:
            session.close(self.settings.deadline())

    def _on_change(self, session: Session) -> None:
        # A session that connects and fails before `ready` has stored it is ignored. No watch is armed there yet.
        if session is self.session and not session.connected:
            self.disconnected()
