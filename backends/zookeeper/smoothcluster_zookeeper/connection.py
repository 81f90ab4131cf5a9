"""The session for everything except leases: created on first use, replaced after a loss."""

import threading
from collections.abc import Callable
from typing import final

from smoothcluster.errors import AccessDeniedError, BackendClosedError, UnavailableError
from smoothcluster.timeline import Mark, Timeline
from smoothcluster_zookeeper.driver import Fired
from smoothcluster_zookeeper.session import Session
from smoothcluster_zookeeper.settings import Settings

_MOST_SYNCS = 200
"""Syncs before a read asks the leader whether the store is older. Each takes a round trip, and one sync is the rule."""

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
        self.timeline = Timeline()
        """The transaction ids in the answers to all sessions of the backend."""

    @property
    def live(self) -> Session | None:
        """The session if connected: for requests not worth waiting for."""
        session = self.session
        return session if session is not None and session.connected else None

    def ready(self, deadline: float) -> Session:
        """Return a connected session. Raise UnavailableError at *deadline*."""
        self.settings.lifetime.check()  # Before the lock.
        while True:
            with self._lock:
                self.settings.lifetime.check()  # `close` may have taken the session since, and no other may follow.
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
            except (AccessDeniedError, BackendClosedError):
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
        # Before the first request: a server may refuse the session meanwhile, and then the answers prove nothing.
        drops = session.kazoo.drops
        syncs, since = 0, self.timeline.mark()
        # The session's server may be behind the server that answered an earlier call. A sync brings a follower up to
        # date. But the leader answers a sync at once, even while a commit that a follower has applied already still
        # waits in the leader's own queue: so only the number of the answer shows that the server has caught up.
        while session.zxid < self.timeline.position:
            if syncs == _MOST_SYNCS:
                # The leader gives each transaction the store's next number, even to a transaction that only checks and
                # fails. So a number below an earlier answer proves that the store is older.
                transaction = session.kazoo.transaction()
                transaction.check(self._root, -1)
                session.run(transaction, deadline)
                self.timeline.advance(session.zxid, since)
                break
            session.wait(session.kazoo.sync(self._root), deadline)
            syncs += 1
        session.kazoo.verified = drops
        return session

    def verify(self, session: Session, deadline: float) -> None:
        """Find out whether the store is older than before, if *session*, perhaps of a lease, cannot know."""
        drops = session.kazoo.drops
        if session.kazoo.verified != drops:
            self.for_reading(deadline)
            session.kazoo.verified = drops

    def sync(self) -> None:
        """Wait until all later reads return a state no older than this call."""
        deadline, since = self.settings.deadline(), self.timeline.mark()
        session = self.ready(deadline)
        session.wait(session.kazoo.sync(self._root), deadline)
        self.record_state(session, since)

    def record_state(self, session: Session, since: Mark) -> None:
        """Remember the state in answer to a request sent at *since* by *session*, this connection's or a lease's."""
        self.timeline.advance(session.zxid, since, latest=False)

    def close(self) -> None:
        """End the session of a client with an ended lifetime: `ready` opens no other session."""
        with self._lock:
            session, self.session = self.session, None
        if session:
            session.close(self.settings.deadline())

    def _on_change(self, session: Session) -> None:
        # A session that connects and fails before `ready` has stored it is ignored. No watch is armed there yet.
        if session is self.session and not session.connected:
            self.disconnected()
