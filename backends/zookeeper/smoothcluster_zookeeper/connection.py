"""The session that everything but leases goes through: made when it is first needed, replaced when it was lost."""

import threading
from collections.abc import Callable
from typing import final

from smoothcluster.errors import AccessDeniedError, UnavailableError
from smoothcluster_zookeeper.session import Session, Settings

_LONGEST_SESSION = 3600.0
"""Seconds to ask for so that the longest that the servers grant is granted."""


@final
class Connection:
    """Of one backend, to servers that have everything under *root*."""

    def __init__(self, settings: Settings, root: str) -> None:
        self.settings = settings
        self.disconnected: Callable[[], None] = lambda: None
        """Called in the session's thread."""
        self.session: Session | None = None
        """It may not be connected, or no more."""
        self._root = root
        self._lock = threading.Lock()
        self._seen = 0
        """The latest state of the store that any of our sessions has shown."""
        self._closed = False

    @property
    def live(self) -> Session | None:
        """The session, if it is connected: for what is not worth waiting for."""
        session = self.session
        return session if session is not None and session.connected else None

    def ready(self, deadline: float) -> Session:
        """A session that is connected. Raise UnavailableError at *deadline*."""
        while True:
            with self._lock:
                if self._closed:
                    raise UnavailableError("closed")
                lost = self.session if self.session and self.session.lost else None
                if self.session is None or lost:
                    self.session = Session(self.settings, _LONGEST_SESSION, ping=True, changed=self._on_change)
                session = self.session
            if lost:
                lost.abandon()
            try:
                session.ready(deadline)
            except AccessDeniedError:
                raise
            except UnavailableError:
                if not session.lost:
                    raise
            else:
                return session

    def for_reading(self, deadline: float) -> Session:
        """As `ready`, and its reads will not go back behind what we have seen."""
        session = self.ready(deadline)
        if session.zxid < self._seen:
            # Not waited for: a session's requests are answered in order.
            session.kazoo.sync(self._root)
        return session

    def sync(self) -> None:
        """Have all that is read from now on be no older than this call."""
        deadline = self.settings.deadline()
        session = self.ready(deadline)
        session.wait(session.kazoo.sync(self._root), deadline)
        self.note(session)

    def note(self, session: Session) -> None:
        """We have seen what *session*, ours or a lease's, has shown."""
        with self._lock:
            self._seen = max(self._seen, session.zxid)

    def close(self) -> None:
        """End the session, and begin no other."""
        with self._lock:
            self._closed = True
            session, self.session = self.session, None
        if session:
            session.close(self.settings.deadline())

    def _on_change(self, session: Session) -> None:
        if session is self.session and not session.connected:
            self.disconnected()
