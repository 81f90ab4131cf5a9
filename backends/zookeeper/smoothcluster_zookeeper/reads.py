"""Read keys and directories, many per request, and never return a state older than already seen."""

from collections import deque
from collections.abc import Collection, Sequence
from typing import Any, final

from kazoo.exceptions import NoAuthError, NoNodeError

from smoothcluster.backend import (
    Entry,
    Guarantees,
    check_directory,
)
from smoothcluster.errors import UnavailableError
from smoothcluster.timeline import Mark
from smoothcluster_zookeeper.connection import Connection
from smoothcluster_zookeeper.directories import Directories
from smoothcluster_zookeeper.driver import Pending
from smoothcluster_zookeeper.errors import NO_AUTH, NO_NODE, translate_error
from smoothcluster_zookeeper.kazoo_requests import Failed, MultiRead, Znode
from smoothcluster_zookeeper.layout import Layout, sort_names
from smoothcluster_zookeeper.lease import lease_id

_READS_PER_REQUEST = 256
"""Reads in one request."""

_REQUESTS_AHEAD = 4
"""Requests sent before the answer to the first is awaited: enough to keep a server busy, and few to have in flight."""


@final
class Reads:
    """The reads of a backend, each call until a *deadline*."""

    def __init__(self, connection: Connection, layout: Layout, guarantees: Guarantees) -> None:
        self._connection, self._layout, self._guarantees = connection, layout, guarantees

    def entries(self, keys: Sequence[str], deadline: float) -> list[Entry | None]:
        """Return the entry of each of *keys*, None for an absent key."""
        return self.answered(keys, *self._read([self._layout.key(key) for key in keys], deadline), deadline)

    def entries_in(self, directory: str, deadline: float) -> list[Entry]:
        """Return the entries of the keys directly in *directory*."""
        since = self._connection.timeline.mark()
        (found,) = self._children([self._layout.directory(directory)], deadline)
        return self.listed(directory, found, since, deadline)

    def listed(self, directory: str, found: Sequence[str], since: Mark, deadline: float) -> list[Entry]:
        """Return the entries of the keys directly in *directory*, given the names *found* in the directory's znode.

        The names answer a request sent at *since*. If a rollback of the store has shown since, list again.
        """
        here = self._layout.directory(directory)
        names, _ = sort_names(found)
        check_directory(self._guarantees, directory, len(names))
        answers, read_since = self._read([self._layout.key_in(here, name) for name in names], deadline)
        if self._connection.timeline.rolled_back_since(since):
            return self.entries_in(directory, deadline)  # The names and the values may be from two stores.
        entries = self.answered([f"{directory}/{name}" for name in names], answers, read_since, deadline)
        return [entry for entry in entries if entry is not None]

    def answered(self, keys: Sequence[str], answers: Sequence[Any], since: Mark, deadline: float) -> list[Entry | None]:
        """Return the entries of *keys* from the *answers* to a `MultiRead` of their znodes, sent at *since*."""
        entries: list[Entry | None] = []
        for key, answer in zip(keys, answers, strict=True):
            if isinstance(answer, Failed):
                if answer.code == NO_AUTH:
                    self._deny_unless_directory(key, deadline)
                elif answer.code != NO_NODE:
                    hosts = self._connection.settings.hosts
                    raise UnavailableError(f"ZooKeeper at {hosts}: error {answer.code} for {key!r}")
                entries.append(None)
            else:
                owner = lease_id(answer.owner) if answer.owner else None
                entries.append(Entry(key, answer.data, since.version(answer.version), answer.created, owner))
        return entries

    def silent_leases(self, leases: Collection[str], deadline: float) -> frozenset[str]:
        """Return the ids among *leases* without a renewal for their time, by the clock of the servers' leader."""
        directory, session = self._layout.leases, self._connection.ready(deadline)
        try:
            # A write, because only a write shows the time of the leader. Before the reads: the server then knows every
            # renewal up to this time.
            now = session.wait(session.kazoo.set(directory, b""), deadline).mtime
        except NoNodeError:
            return frozenset()  # No client has ever asked for a lease.
        (names,) = self._children([directory], deadline)
        znodes, _ = self._read([f"{directory}/{name}" for name in names], deadline)
        return frozenset(
            lease_id(each.owner)
            for each in znodes
            # An older version leaves the value empty.
            if isinstance(each, Znode) and each.data.isdigit() and now - each.modified >= int(each.data)
        ).intersection(leases)

    def names(self, directory: str, deadline: float) -> list[str]:
        """Return the sorted full names in *directory*: keys, and directories with keys below."""
        since = self._connection.timeline.mark()
        names = self._names(self._layout.directory(directory), deadline)
        if self._connection.timeline.rolled_back_since(since):
            return self.names(directory, deadline)  # The names may be from two stores.
        check_directory(self._guarantees, directory, len(names))
        return [f"{directory}/{name}" for name in names]

    def _names(self, znode: str, deadline: float) -> list[str]:
        names, deeper = sort_names(self._children([znode], deadline)[0])
        below = [f"{znode}/{name}" for name in deeper]
        for name, each, found in zip(deeper, below, self._children(below, deadline), strict=True):
            keys, directories = sort_names(found)
            # A directory with only subdirectories may lead to no key: the subdirectories may be empty.
            if keys or any(self._names(f"{each}/{deepest}", deadline) for deepest in directories):
                names.append(name)
        return sorted(names)

    def _children(self, znodes: Sequence[str], deadline: float) -> list[list[str]]:
        listings: list[list[str]] = []
        for answer in self._read(znodes, deadline, children=True)[0]:
            if isinstance(answer, Failed):
                if answer.code != NO_NODE:
                    raise translate_error(NoAuthError(), self._connection.settings.hosts)
                listings.append([])
            else:
                listings.append(answer)
        return listings

    def _read(self, znodes: Sequence[str], deadline: float, *, children: bool = False) -> tuple[list[Any], Mark]:
        """Return the answers, and the moment before the requests."""
        if not znodes:
            return [], self._connection.timeline.mark()
        session = self._connection.for_reading(deadline)
        since, answers = self._connection.timeline.mark(), list[Any]()
        pending: deque[Pending] = deque()
        for start in range(0, len(znodes), _READS_PER_REQUEST):
            if len(pending) == _REQUESTS_AHEAD:
                answers += session.wait(pending.popleft(), deadline)
            part = znodes[start : start + _READS_PER_REQUEST]
            pending.append(session.kazoo.send(MultiRead(part, children=children)))
        for each in pending:
            answers += session.wait(each, deadline)
        self._connection.record_state(session, since)
        # The later requests may have gone over a new connection, to a server with an older store.
        self._connection.verify(session, deadline)
        return answers, since

    def _deny_unless_directory(self, key: str, deadline: float) -> None:
        """Deny access to *key*, unless the unreadable znode is a directory's stand-in."""
        session = self._connection.ready(deadline)
        if not Directories.exists(session, self._layout.directory(key), deadline):
            raise translate_error(NoAuthError(), self._connection.settings.hosts)
