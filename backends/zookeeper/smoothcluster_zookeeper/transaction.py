"""A commit as a single ZooKeeper transaction, repeated only where a refusal shows that nothing was applied."""

from collections.abc import Sequence
from typing import Any, final

from kazoo.exceptions import BadVersionError, NoAuthError, NodeExistsError, NoNodeError, NotEmptyError

from smoothcluster.backend import AtVersion, Change, Committed, Condition, Create, Delete, Exists, Refused
from smoothcluster.errors import LeaseLostError, MisplacedKeyError, OutcomeUnknownError
from smoothcluster.timeline import Mark, numbered
from smoothcluster_zookeeper.connection import Connection
from smoothcluster_zookeeper.directories import Directories
from smoothcluster_zookeeper.driver import Transaction
from smoothcluster_zookeeper.errors import translate_error
from smoothcluster_zookeeper.kazoo_requests import MultiRead
from smoothcluster_zookeeper.layout import Access, Layout
from smoothcluster_zookeeper.lease import SessionLease
from smoothcluster_zookeeper.session import Session


@final
class Commits:
    """The commits of a backend."""

    def __init__(self, connection: Connection, directories: Directories, layout: Layout, access: Access) -> None:
        self._connection, self._directories, self._layout, self._access = connection, directories, layout, access

    def apply(
        self,
        conditions: Sequence[Condition],
        changes: Sequence[Change],
        lease: SessionLease | None,
        deadline: float,
        after: Sequence[MultiRead] = (),
    ) -> tuple[Committed | Refused, Sequence[Any]]:
        """Return the outcome and the answers to the requests *after*. Created keys with a lease belong to *lease*.

        There are no answers if the commit names a version from before a rollback of the store: then nothing is sent.
        """
        self._directories.remove_empty()
        # An ephemeral znode belongs to the session that sends the transaction: so keys on a lease need its session.
        session = lease.session if lease else self._connection.ready(deadline)
        parts, timeline = (*conditions, *changes), self._connection.timeline
        while True:
            session.ready(deadline)
            # After the wait for a connection: the session may have connected to an older store meanwhile.
            self._connection.verify(session, deadline)
            since, outdated = timeline.mark(), timeline.outdated(parts)
            if outdated is not None:
                return Refused(outdated), ()
            transaction = self._transaction(session, lease, numbered(parts))
            results, failed, answers = session.run(transaction, deadline, OutcomeUnknownError, after)
            self._connection.record_state(session, since)
            if lease:
                results, failed = _without_lease_check(lease, results, failed)
            if failed is None:
                self._check_directories([each.key for each in changes if isinstance(each, Delete)])
                return Committed(_versions(parts, results, since)), answers
            if not self._prepare_retry(session, parts[failed], results[failed], changes, deadline):
                return Refused(parts[failed].key), answers

    def _transaction(
        self, session: Session, lease: SessionLease | None, parts: Sequence[Condition | Change]
    ) -> Transaction:
        transaction = session.kazoo.transaction()
        if lease:
            # The servers check the lease in the transaction itself: a lease that was alive when the caller asked
            # may end before the transaction arrives.
            transaction.check(lease.znode, -1)
        for part in parts:
            self._add(transaction, part)
        return transaction

    def _add(self, transaction: Transaction, part: Condition | Change) -> None:
        znode = self._layout.key(part.key)
        match part:
            case Exists():
                transaction.check(znode, -1)
            case AtVersion():
                transaction.check(znode, _number(part.version))
            case Create():
                transaction.create(znode, part.value, acl=self._access.all, ephemeral=part.lease is not None)
            case Delete():
                transaction.delete(znode, _number(part.version))
            case _:
                transaction.set_data(znode, part.value, _number(part.version))

    def _check_directories(self, deleted: Sequence[str]) -> None:
        # Not through a lease's session: a request would keep the lease alive.
        session = self._connection.live
        if deleted and session is not None:
            self._directories.schedule_check(session, deleted)

    def _prepare_retry(
        self, session: Session, part: Condition | Change, error: Exception, changes: Sequence[Change], deadline: float
    ) -> bool:
        """Return whether a commit, refused at *part* without effect, can be tried again now.

        Create missing directories, and remove an empty directory in the place of a new key. Another client may undo
        both before the next attempt, so the caller tries until the deadline.
        """
        directory = self._layout.directory(part.key)
        if isinstance(part, Create) and isinstance(error, NoNodeError):
            self._directories.make_for(session, [each.key for each in changes if isinstance(each, Create)], deadline)
            return True
        if isinstance(part, Create) and isinstance(error, NodeExistsError):
            if not self._directories.exists(session, directory, deadline):
                return False
            if not self._directories.remove_if_empty(session, directory, deadline):
                raise MisplacedKeyError(part.key, "is a directory and cannot hold bytes")
            return True
        if isinstance(error, NoAuthError) and self._directories.exists(session, directory, deadline):
            return False  # A stand-in: the key does not exist.
        if isinstance(error, BadVersionError | NoNodeError | NotEmptyError):
            return False
        raise translate_error(error, session.settings.hosts)


def _without_lease_check(
    lease: SessionLease, results: Sequence[Any], failed: int | None
) -> tuple[Sequence[Any], int | None]:
    """Return *results* and *failed* without the first operation, the check of *lease*; raise if this check failed."""
    if failed == 0:
        lease.mark_lost()
        raise LeaseLostError(f"lease {lease.id} is gone")
    return results[1:], failed and failed - 1


def _number(version: str | None) -> int:
    """Return ZooKeeper's version number: -1 for any. A number never sent by ZooKeeper would end kazoo's thread."""
    if version is None:
        return -1
    number = int(version)
    if not 0 <= number < 2**31:
        raise ValueError(f"{version!r} is not a version number of ZooKeeper")
    return number


def _versions(parts: Sequence[Condition | Change], results: Sequence[Any], since: Mark) -> dict[str, str]:
    versions: dict[str, str] = {}
    for part, result in zip(parts, results, strict=True):
        if isinstance(part, Create):
            versions[part.key] = since.version(0)
        elif not isinstance(part, Exists | AtVersion | Delete):
            versions[part.key] = since.version(result.version)
    return versions
