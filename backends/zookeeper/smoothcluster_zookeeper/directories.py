"""Create directories for new keys, and remove empty directories.

Both happen apart from commits, and a crash may interrupt both without harm: an empty directory counts as
absent, and a commit creates a missing directory.
"""

import threading
from collections import deque
from collections.abc import Iterable
from typing import final

from kazoo.exceptions import NodeExistsError, NoNodeError

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import MisplacedKeyError
from smoothcluster_zookeeper.driver import Pending, Transaction
from smoothcluster_zookeeper.errors import translate_error
from smoothcluster_zookeeper.layout import Access, Layout, sort_names
from smoothcluster_zookeeper.session import Session, first_failure

_MOST_PENDING_CHECKS = 256
"""Most directories waiting for a check; further directories stay as they are."""


_QUIET_SECONDS = 1.0
"""Seconds without a deletion before a check of a directory: a lock, for example, comes and goes in the same place."""


@final
class Directories:
    """The directories of a namespace."""

    def __init__(self, layout: Layout, access: Access) -> None:
        self._layout = layout
        self._access = access
        self._lock = threading.Lock()
        self._maybe_empty: dict[str, tuple[Session, float]] = {}
        """Directories possibly empty, and since when; the oldest first."""
        self._checks: deque[tuple[Session, str, Pending, bool]] = deque()
        """Pending answers about a directory: whether empty or, if the last element is True, whether removed.

        Threads append and pop without the lock: each operation of a deque is atomic.
        """

    def make_for(self, session: Session, keys: Iterable[str], deadline: float) -> None:
        """Create every directory of *keys*. Raise MisplacedKeyError if a directory's name belongs to a key."""
        for znode in sorted({self._layout.key(key).rpartition("/")[0] for key in keys}):
            self.make(session, znode, deadline)

    def make(self, session: Session, znode: str, deadline: float) -> None:
        """Create the directory *znode* after the directories above, unless present."""
        plain = len(znode) <= len(self._layout.root) or znode == self._layout.leases
        while True:
            transaction = session.kazoo.transaction()
            if not plain:
                transaction.create(self._layout.stand_in(znode), acl=self._access.stand_in)
                transaction.create(self._layout.child(znode), acl=self._access.all)
            transaction.create(znode, acl=self._access.all)
            results, failed, _ = session.run(transaction, deadline)
            if failed is None:
                return
            error = results[failed]
            if isinstance(error, NoNodeError):
                self.make(session, znode.rpartition("/")[0], deadline)
            elif not isinstance(error, NodeExistsError):
                raise translate_error(error, session.settings.hosts)
            elif self.exists(session, znode, deadline):
                return
            # Refused as present, and now absent: a key has the name, or another client removed the directory in
            # between, and the loop tries again.
            elif self.exists(session, self._layout.stand_in(znode), deadline):
                name = znode.removeprefix(f"{self._layout.root}/")
                raise MisplacedKeyError(name, "holds bytes and cannot be a directory")

    @staticmethod
    def exists(session: Session, znode: str, deadline: float) -> bool:
        """Return whether the znode exists."""
        return session.wait(session.kazoo.exists(znode), deadline) is not None

    def remove_if_empty(self, session: Session, znode: str, deadline: float) -> bool:
        """Remove the directory *znode* and empty directories below; return whether *znode* is gone."""
        try:
            keys, deeper = sort_names(session.wait(session.kazoo.children(znode), deadline))
        except NoNodeError:
            return True
        if keys or not all(self.remove_if_empty(session, f"{znode}/{name}", deadline) for name in deeper):
            return False
        _, failed, _ = session.run(self._removal(session, znode), deadline)
        return failed is None or self.remove_if_empty(session, znode, deadline)  # Another client was here meanwhile.

    def schedule_check(self, session: Session, keys: Iterable[str]) -> None:
        """Schedule a check of the directories of the deleted *keys*, which may now be empty."""
        now = SYSTEM_CLOCK.monotonic()
        with self._lock:
            for znode in {self._layout.key(key).rpartition("/")[0] for key in keys}:
                self._maybe_empty.pop(znode, None)
                if len(self._maybe_empty) < _MOST_PENDING_CHECKS:
                    self._maybe_empty[znode] = (session, now)

    def remove_empty(self) -> None:
        """Remove directories already known to be empty, without waiting."""
        for znode, session in self._quiet():
            self._request_check(session, znode)
        while self._checks:
            try:
                session, znode, answer, removed = self._checks.popleft()
            except IndexError:
                return  # Another thread took the last answer after this thread saw the answer in the queue.
            if not answer.ready():
                self._checks.appendleft((session, znode, answer, removed))
                return
            if not answer.successful() or session.lost:
                continue
            if removed:
                if first_failure(answer.value) is None:
                    self._request_check(session, znode.rpartition("/")[0])
            elif answer.value is not None and answer.value.numChildren == 0:
                self._checks.append((session, znode, self._removal(session, znode).commit_async(), True))

    def _quiet(self) -> list[tuple[str, Session]]:
        """Return directories without a recent deletion."""
        until, found = SYSTEM_CLOCK.monotonic() - _QUIET_SECONDS, list[tuple[str, Session]]()
        with self._lock:
            for znode, (session, since) in self._maybe_empty.items():
                if since > until:
                    break
                found.append((znode, session))
            for znode, _ in found:
                del self._maybe_empty[znode]
        return [(znode, session) for znode, session in found if session.connected]

    def _request_check(self, session: Session, znode: str) -> None:
        if znode != self._layout.root and len(self._checks) < _MOST_PENDING_CHECKS:
            self._checks.append((session, znode, session.kazoo.exists(znode), False))

    def _removal(self, session: Session, znode: str) -> Transaction:
        # All three or none: if another client has created a key here since the check, ZooKeeper refuses the first
        # deletion, and the stand-in stays.
        transaction = session.kazoo.transaction()
        for part in (znode, self._layout.child(znode), self._layout.stand_in(znode)):
            transaction.delete(part)
        return transaction
