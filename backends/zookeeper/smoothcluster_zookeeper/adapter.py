"""ZooKeeper as a `CoordinationBackend`."""

import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, final

from kazoo.exceptions import BadVersionError, NoAuthError, NodeExistsError, NoNodeError, NotEmptyError

from smoothcluster.backend import (
    AtVersion,
    Change,
    Committed,
    Condition,
    CoordinationBackend,
    Create,
    Delete,
    Entry,
    Exists,
    Guarantees,
    Lease,
    Refused,
    Watch,
    check_commit,
)
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import (
    AccessDeniedError,
    BackendError,
    LeaseLostError,
    MisplacedKeyError,
    OutcomeUnknownError,
    UnavailableError,
    UsageError,
)
from smoothcluster_zookeeper.address import Address, parse_url, tls_context
from smoothcluster_zookeeper.directories import Directories
from smoothcluster_zookeeper.driver import Transaction
from smoothcluster_zookeeper.errors import NO_AUTH, NO_NODE, translate
from smoothcluster_zookeeper.layout import Access, Layout, sort_names
from smoothcluster_zookeeper.lease import SURE, SessionLease, lease_id
from smoothcluster_zookeeper.requests import Failed, MultiRead
from smoothcluster_zookeeper.session import Session, Settings
from smoothcluster_zookeeper.watches import Watches

_NAMESPACE = "smoothcluster"

_REQUEST = 0xFFFFF
"""Bytes of the largest request, unless a server's `jute.maxbuffer` says otherwise."""

_LONGEST_SESSION = 3600.0
_SHORTEST_SESSION = 0.001
"""Seconds to ask for so that the longest and shortest that the servers grant are granted."""

_AT_ONCE = 256
"""Reads in one request."""


@final
class ZookeeperBackend(CoordinationBackend):
    """Servers *hosts*, such as ``h1:2181,h2:2181/chroot``; everything lies under *namespace* there.

    It connects when it is first used. No call blocks for longer than *timeout* seconds.
    With *username* and *password* (digest), what is made is for them alone. With *use_ssl*, or
    any other TLS option: *ca* (default: the system's), *certfile* and *keyfile* for a client's
    certificate, *verify_certs*, *check_hostname*.
    """

    def __init__(
        self,
        hosts: str,
        *,
        namespace: str = _NAMESPACE,
        timeout: float = 5.0,
        username: str | None = None,
        password: str | None = None,
        use_ssl: bool = False,
        ca: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        keyfile_password: str | None = None,
        verify_certs: bool = True,
        check_hostname: bool = True,
    ) -> None:
        if (username is None) != (password is None):
            raise UsageError("ZooKeeper: username and password go together")
        if timeout <= 0:
            raise UsageError("ZooKeeper: timeout must be positive")
        self._address = Address.of(hosts, namespace)
        credentials = [] if username is None else [("digest", f"{username}:{password}")]
        tls = None
        if use_ssl or ca or certfile:
            tls = tls_context(ca, certfile, keyfile, keyfile_password, verify=verify_certs, hostname=check_hostname)
        self._settings = Settings(self._address.hosts, timeout, credentials, tls)
        self._layout = Layout(self._address.root)
        self._access = Access.of(authenticated=bool(credentials))
        self._directories = Directories(self._layout, self._access)
        self._watches = Watches(self._layout, self._reader, timeout)
        self._guarantees = _guarantees(self._layout.root)
        self._bounds_known = False
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._leases: set[SessionLease] = set()
        self._seen = 0
        """The latest state of the store that any of our sessions has shown."""
        self._closed = False

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        namespace: str | None = None,
        timeout: float = 5.0,
        username: str | None = None,
        password: str | None = None,
        use_ssl: bool = False,
        ca: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        keyfile_password: str | None = None,
        verify_certs: bool = True,
        check_hostname: bool = True,
    ) -> "ZookeeperBackend":
        """The backend at ``zookeeper://h1:2181,h2:2181/chroot``, with the constructor's options."""
        hosts, named = parse_url(url)
        return cls(
            hosts,
            namespace=namespace or named or _NAMESPACE,
            timeout=timeout,
            username=username,
            password=password,
            use_ssl=use_ssl,
            ca=ca,
            certfile=certfile,
            keyfile=keyfile,
            keyfile_password=keyfile_password,
            verify_certs=verify_certs,
            check_hostname=check_hostname,
        )

    @property
    def guarantees(self) -> Guarantees:
        # The servers tell the bounds of lease times by what they grant. Not worth waiting for a connection.
        longest = self._session
        if not self._bounds_known and longest is not None and longest.connected:
            self._bounds_known = True
            shortest = Session(self._settings, _SHORTEST_SESSION, ping=False)
            with suppress(BackendError):
                shortest.ready(self._deadline())
                self._guarantees = replace(
                    self._guarantees, shortest_ttl=shortest.granted * SURE, longest_ttl=longest.granted * SURE
                )
            shortest.close(self._deadline())
        return self._guarantees

    @property
    def url(self) -> str:
        return self._address.url(_NAMESPACE)

    # Reading.

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        return self._entries(keys, [self._layout.key(key) for key in keys], self._deadline())

    def keys(self, directory: str) -> list[str]:
        names = self._names(self._layout.directory(directory), self._deadline())
        return [f"{directory}/{name}" for name in names]

    def sync(self) -> None:
        deadline = self._deadline()
        session = self._connected(deadline)
        session.wait(session.kazoo.sync(self._layout.root), deadline)
        self._note(session)

    def _names(self, directory: str, deadline: float) -> list[str]:
        """What lies in *directory*, a znode: keys, and directories that lead to some."""
        names, deeper = sort_names(self._children([directory], deadline)[0])
        below = [f"{directory}/{name}" for name in deeper]
        for name, znode, found in zip(deeper, below, self._children(below, deadline), strict=True):
            keys, directories = sort_names(found)
            # One that holds only directories may lead to nothing: they may have been left empty.
            if keys or any(self._names(f"{znode}/{each}", deadline) for each in directories):
                names.append(name)
        return sorted(names)

    def _entries(self, keys: Sequence[str], znodes: Sequence[str], deadline: float) -> list[Entry | None]:
        return self._as_entries(keys, self._read(znodes, deadline), deadline)

    def _as_entries(self, keys: Sequence[str], answers: Sequence[Any], deadline: float) -> list[Entry | None]:
        entries: list[Entry | None] = []
        for key, answer in zip(keys, answers, strict=True):
            if isinstance(answer, Failed):
                if answer.code == NO_AUTH:
                    self._deny_unless_directory(key, deadline)
                elif answer.code != NO_NODE:
                    raise UnavailableError(f"ZooKeeper at {self._settings.hosts}: error {answer.code} for {key!r}")
                entries.append(None)
            else:
                owner = lease_id(answer.owner) if answer.owner else None
                entries.append(Entry(key, answer.data, str(answer.version), answer.created, owner))
        return entries

    def _children(self, znodes: Sequence[str], deadline: float) -> list[list[str]]:
        listings: list[list[str]] = []
        for answer in self._read(znodes, deadline, children=True):
            if isinstance(answer, Failed):
                if answer.code != NO_NODE:
                    raise translate(NoAuthError(), self._settings.hosts)
                listings.append([])
            else:
                listings.append(answer)
        return listings

    def _read(self, znodes: Sequence[str], deadline: float, *, children: bool = False) -> list[Any]:
        if not znodes:
            return []
        session = self._reader(deadline)
        parts = [znodes[start : start + _AT_ONCE] for start in range(0, len(znodes), _AT_ONCE)]
        pending = [session.kazoo.send(MultiRead(part, children=children)) for part in parts]
        answers = [answer for each in pending for answer in session.wait(each, deadline)]
        self._note(session)
        return answers

    def _deny_unless_directory(self, key: str, deadline: float) -> None:
        """What may not be read is a directory's stand-in, or somebody else's."""
        session = self._connected(deadline)
        if not self._directories.exists(session, self._layout.directory(key), deadline):
            raise translate(NoAuthError(), self._settings.hosts)

    def list(self, directory: str) -> "list[Entry]":
        here = self._layout.directory(directory)
        deadline = self._deadline()
        names, _ = sort_names(self._children([here], deadline)[0])
        keys = [f"{directory}/{name}" for name in names]
        found = self._entries(keys, [self._layout.key_in(here, name) for name in names], deadline)
        return [entry for entry in found if entry is not None]

    # Changing.

    def commit(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        return self._commit(conditions, changes, self._deadline())[0]

    def commit_and_list(
        self, conditions: Sequence[Condition], changes: Sequence[Change], directory: str
    ) -> tuple[Committed | Refused, Sequence[Entry]]:
        deadline = self._deadline()
        here = self._layout.directory(directory)
        mine = [each.key for each in changes if isinstance(each, Create) and each.key.rpartition("/")[0] == directory]
        # Who has just come is often alone, so its own keys are read on the chance.
        znodes = [self._layout.key(key) for key in mine]
        after = [MultiRead([here], children=True), *([MultiRead(znodes)] if mine else [])]
        outcome, (listing, *own) = self._commit(conditions, changes, deadline, after)
        names = [] if isinstance(listing[0], Failed) else sort_names(listing[0])[0]
        keys = [f"{directory}/{name}" for name in names]
        try:
            if set(keys) == set(mine):
                read: Sequence[Any] = own[0] if own else ()
                return outcome, [entry for entry in self._as_entries(mine, read, deadline) if entry is not None]
            found = self._entries(keys, [self._layout.key_in(here, name) for name in names], deadline)
        except UnavailableError as error:
            raise OutcomeUnknownError(f"the commit was answered, and what lies there is not known: {error}") from error
        return outcome, [entry for entry in found if entry is not None]

    def _commit(
        self,
        conditions: Sequence[Condition],
        changes: Sequence[Change],
        deadline: float,
        after: Sequence[MultiRead] = (),
    ) -> tuple[Committed | Refused, Sequence[Any]]:
        """The outcome, and the answers to what is to be asked *after* it."""
        lease = self._own(check_commit(self._guarantees, conditions, changes))
        self._directories.tidy()
        session = lease.session if lease else self._connected(deadline)
        parts = (*conditions, *changes)
        while True:
            session.ready(deadline)
            transaction = session.kazoo.transaction()
            if lease:
                transaction.check(lease.znode, -1)
            for part in parts:
                self._add(transaction, part)
            results, failed, answers = session.run(transaction, deadline, OutcomeUnknownError, after)
            self._note(session)
            if lease:
                if failed == 0:
                    lease.lose()
                    raise LeaseLostError(f"lease {lease.id} is gone")
                results = results[1:]
                failed = failed and failed - 1
            if failed is None:
                self._look_at_directories([each.key for each in changes if isinstance(each, Delete)])
                return Committed(_versions(parts, results)), answers
            if not self._mend(session, parts[failed], results[failed], changes, deadline):
                return Refused(parts[failed].key), answers

    def _look_at_directories(self, deleted: Sequence[str]) -> None:
        # Not through a lease's session, which that would keep alive.
        if deleted and self._session is not None and self._session.connected:
            self._directories.look_at(self._session, deleted)

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

    def _mend(
        self, session: Session, part: Condition | Change, error: Exception, changes: Sequence[Change], deadline: float
    ) -> bool:
        """Whether a commit that failed at *part*, so that nothing was applied, can be tried again now."""
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
            return False  # Its stand-in: there is no such key.
        if isinstance(error, BadVersionError | NoNodeError | NotEmptyError):
            return False
        raise translate(error, self._settings.hosts)

    # Leases and watches.

    def lease(self, ttl: float) -> Lease:
        if ttl <= 0:
            raise ValueError("a lease takes a positive time")
        deadline = self._deadline()
        self._drop_lost_leases()
        asked = SYSTEM_CLOCK.monotonic()
        session = Session(self._settings, ttl / SURE, ping=False, expired=LeaseLostError)
        lease = None
        try:
            session.ready(deadline)
            lease = SessionLease(session, f"{self._layout.leases}/{uuid.uuid4().hex}", asked)
            self._stand_for(lease, deadline)
            with self._lock:
                if self._closed:
                    raise UnavailableError("closed")
                self._leases.add(lease)
        except LeaseLostError as error:
            session.abandon()
            raise UnavailableError(str(error)) from error
        except BaseException:
            session.close(deadline)
            raise
        return lease

    def watch(self, path: str, notify: Callable[[], None], *, values: bool = True) -> Watch:
        return self._watches.add(path, notify, values=values)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            session, self._session = self._session, None
            leases, self._leases = self._leases, set()
        if session:
            session.close(self._deadline())
        for lease in leases:
            lease.session.abandon()
        self._watches.close()

    def _stand_for(self, lease: SessionLease, deadline: float) -> None:
        """Make the znode that stands for *lease*."""
        while True:
            pending = lease.session.kazoo.create(lease.znode, self._access.all, ephemeral=True)
            try:
                lease.session.wait(pending, deadline, OutcomeUnknownError)
            except NoNodeError:
                self._directories.make(lease.session, self._layout.leases, deadline)
            else:
                return

    def _own(self, lease: Lease | None) -> SessionLease | None:
        if lease is None:
            return None
        if not isinstance(lease, SessionLease):
            raise ValueError(f"lease {lease.id} was not granted by this backend")  # noqa: TRY004  # The contract says so.
        if lease.gone:
            raise LeaseLostError(f"lease {lease.id} is gone")
        return lease

    def _drop_lost_leases(self) -> None:
        with self._lock:
            lost = {lease for lease in self._leases if lease.gone or lease.session.lost}
            self._leases -= lost
        for lease in lost:
            lease.lose()

    # The session for everything but leases.

    def _deadline(self) -> float:
        return SYSTEM_CLOCK.monotonic() + self._settings.timeout

    def _reader(self, deadline: float) -> Session:
        """A connected session whose reads will not go back behind what we have seen."""
        session = self._connected(deadline)
        if session.zxid < self._seen:
            # Not waited for: a session's requests are answered in order.
            session.kazoo.sync(self._layout.root)
        return session

    def _connected(self, deadline: float) -> Session:
        while True:
            with self._lock:
                if self._closed:
                    raise UnavailableError("closed")
                lost = self._session if self._session and self._session.lost else None
                if self._session is None or lost:
                    self._session = Session(self._settings, _LONGEST_SESSION, ping=True, changed=self._on_change)
                session = self._session
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

    def _on_change(self, session: Session) -> None:
        if session is self._session and not session.connected:
            self._watches.disconnected()

    def _note(self, session: Session) -> None:
        with self._lock:
            self._seen = max(self._seen, session.zxid)


def _guarantees(root: str) -> Guarantees:
    """Before connecting: the bounds of ZooKeeper's default settings."""
    largest_commit = 1_000_000
    # What an operation takes beyond its key, value and the 64 bytes that are reckoned for it.
    beyond = max(1, len(root.encode()) + 52 - 64)
    return Guarantees(
        linearizable_writes=True,
        survives_failover=True,
        unique_versions=False,
        shortest_ttl=4.0 * SURE,
        longest_ttl=40.0 * SURE,
        ttl_step=0.0,
        largest_value=900_000,
        largest_commit=largest_commit,
        most_operations=min(4000, (_REQUEST - largest_commit - 1024) // beyond),
    )


def _number(version: str | None) -> int:
    """As ZooKeeper has it: -1 stands for any. What it cannot have sent would end kazoo's thread."""
    if version is None:
        return -1
    number = int(version)
    if not 0 <= number < 2**31:
        raise ValueError(f"{version!r} is no version that ZooKeeper gives")
    return number


def _versions(parts: Sequence[Condition | Change], results: Sequence[Any]) -> dict[str, str]:
    versions: dict[str, str] = {}
    for part, result in zip(parts, results, strict=True):
        if isinstance(part, Create):
            versions[part.key] = "0"
        elif not isinstance(part, Exists | AtVersion | Delete):
            versions[part.key] = str(result.version)
    return versions
