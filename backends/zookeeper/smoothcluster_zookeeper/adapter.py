"""ZooKeeper as a `CoordinationBackend`."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, final

from smoothcluster.backend import (
    Change,
    Committed,
    Condition,
    CoordinationBackend,
    Create,
    Entry,
    Guarantees,
    HasHistory,
    Lease,
    Refused,
    Watch,
    check_commit,
    check_watches,
)
from smoothcluster.errors import BackendError, OutcomeUnknownError, UnavailableError
from smoothcluster.lifetime import ClientLifetime
from smoothcluster.server_options import TlsOptions, warn_of_plain_password
from smoothcluster_zookeeper.address import STORE_NAME, Address, parse_url
from smoothcluster_zookeeper.connection import Connection
from smoothcluster_zookeeper.directories import Directories
from smoothcluster_zookeeper.kazoo_requests import Failed, MultiRead
from smoothcluster_zookeeper.layout import Access, Layout, sort_names
from smoothcluster_zookeeper.lease import RELIABLE_SHARE_OF_TTL, Leases
from smoothcluster_zookeeper.reads import Reads
from smoothcluster_zookeeper.session import Session
from smoothcluster_zookeeper.settings import Settings
from smoothcluster_zookeeper.transaction import Commits
from smoothcluster_zookeeper.watches import Watches

_DEFAULT_NAMESPACE = "smoothcluster"

_LARGEST_REQUEST_BYTES = 0xFFFFF
"""Bytes of the largest request, unless a server sets `jute.maxbuffer`."""

_SHORTEST_SESSION_SECONDS = 0.001
"""Session time to request, in seconds, so that the servers grant the shortest time allowed."""


@final
class ZookeeperBackend(CoordinationBackend, HasHistory):
    """Backend on the servers *hosts*, such as ``h1:2181,h2:2181/chroot``; everything lies under *namespace* there.

    The backend connects on first use. No call blocks for longer than *timeout* seconds.
    With *username* and *password* (digest), only these credentials have access to the created znodes. *use_ssl*,
    *ca* and *certfile* each switch TLS on. Options of TLS: *ca* (default: the system's authorities), *certfile* and
    *keyfile* for a client certificate, *verify_certs* and *check_hostname* (both on).
    """

    def __init__(  # parameters: each option is a keyword, so that type checkers and the reference know the option
        self,  # long: more than half of the lines are the signature
        hosts: str,
        *,
        namespace: str = _DEFAULT_NAMESPACE,
        timeout: float = 5.0,
        username: str | None = None,
        password: str | None = None,
        use_ssl: bool = False,
        ca: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        keyfile_password: str | None = None,
        verify_certs: bool | None = None,
        check_hostname: bool | None = None,
    ) -> None:
        self._address = Address.of(hosts, namespace)
        tls = TlsOptions(
            use_ssl=use_ssl, ca=ca, certfile=certfile, keyfile=keyfile, keyfile_password=keyfile_password,
            verify_certs=verify_certs, check_hostname=check_hostname,
        )  # fmt: skip
        self._lifetime = ClientLifetime(self, self.url)
        settings = Settings.of(self._lifetime, self._address.hosts, timeout, username, password, tls.context())
        if settings.credentials and not tls.on:
            warn_of_plain_password(STORE_NAME, [host for host, _ in self._address.servers])
        self._layout = Layout(self._address.root)
        access = Access.of(authenticated=bool(settings.credentials))
        directories = Directories(self._layout, access)
        self._connection = Connection(settings, self._layout.root)
        self._watches = Watches(self._layout, self._connection)
        self._guarantees = _guarantees(self._layout.root)
        self._reads = Reads(self._connection, self._layout, self._guarantees)
        self._leases = Leases(settings, self._layout, access, directories)
        self._commits = Commits(self._connection, directories, self._layout, access)
        self._bounds_known = False

    @classmethod
    def from_url(  # parameters: `connect` checks the options of its caller against these names
        cls,  # long: passes every option on by name, so that no option can get lost unnoticed
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
        verify_certs: bool | None = None,
        check_hostname: bool | None = None,
    ) -> "ZookeeperBackend":
        """Return the backend at ``zookeeper://h1:2181,h2:2181/chroot``, with the constructor's options."""
        hosts, named = parse_url(url)
        return cls(
            hosts,
            namespace=namespace or named or _DEFAULT_NAMESPACE,
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
        # Granted sessions show the servers' bounds of lease times. Not worth waiting for a connection.
        longest = self._connection.live
        if not self._bounds_known and longest is not None:
            self._lifetime.check_process()
            self._bounds_known = True
            deadline = self._connection.settings.deadline()
            shortest = Session(self._connection.settings, _SHORTEST_SESSION_SECONDS, ping=False)
            with suppress(BackendError):
                shortest.ready(deadline)
                self._guarantees = replace(
                    self._guarantees,
                    shortest_ttl=shortest.granted * RELIABLE_SHARE_OF_TTL,
                    longest_ttl=longest.granted * RELIABLE_SHARE_OF_TTL,
                )
            shortest.close(deadline)
        return self._guarantees

    @property
    def url(self) -> str:
        return self._address.url(_DEFAULT_NAMESPACE)

    def _deadline(self) -> float:
        """Return the deadline of a call that begins now; raise UsageError or BackendClosedError if none may begin."""
        self._lifetime.check()
        return self._connection.settings.deadline()

    # Reading.

    @property
    def limits_advice(self) -> str:
        return "start the ZooKeeper servers with -Djute.maxbuffer=1048575 or more, or without this property"

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        return self._reads.entries(keys, self._deadline())

    def keys(self, directory: str) -> list[str]:
        return self._reads.names(directory, self._deadline())

    def list(self, directory: str) -> "list[Entry]":
        return self._reads.entries_in(directory, self._deadline())

    def silent_leases(self, leases: Sequence[str]) -> frozenset[str]:
        deadline = self._deadline()
        return self._reads.silent_leases(leases, deadline) if leases else frozenset()

    def sync(self) -> None:
        self._connection.sync()

    # Changing.

    def commit(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        return self._commit(conditions, changes, self._deadline())[0]

    def commit_and_list(
        self, conditions: Sequence[Condition], changes: Sequence[Change], directory: str
    ) -> tuple[Committed | Refused, Sequence[Entry]]:
        deadline = self._deadline()
        here = self._layout.directory(directory)
        mine = [each.key for each in changes if isinstance(each, Create) and each.key.rpartition("/")[0] == directory]
        # A new member is often alone, so read the keys of this commit on the chance.
        znodes = [self._layout.key(key) for key in mine]
        after = [MultiRead([here], children=True), *([MultiRead(znodes)] if mine else [])]
        since = self._connection.timeline.mark()
        outcome, answers = self._commit(conditions, changes, deadline, after)
        try:
            if not answers:
                return outcome, self._reads.entries_in(directory, deadline)
            listing, *own = answers
            found: Sequence[str] = () if isinstance(listing[0], Failed) else listing[0]
            if {f"{directory}/{name}" for name in sort_names(found)[0]} != set(mine):
                return outcome, self._reads.listed(directory, found, since, deadline)
            entries = self._reads.answered(mine, own[0] if own else (), since, deadline)
        except UnavailableError as error:
            raise OutcomeUnknownError(
                f"the store answered the commit, but the listing after the commit failed: {error}"
            ) from error
        return outcome, [entry for entry in entries if entry is not None]

    def _commit(
        self,
        conditions: Sequence[Condition],
        changes: Sequence[Change],
        deadline: float,
        after: Sequence[MultiRead] = (),
    ) -> tuple[Committed | Refused, Sequence[Any]]:
        """Return the outcome and the answers to the requests *after*."""
        lease = self._leases.own(check_commit(self._guarantees, conditions, changes))
        return self._commits.apply(conditions, changes, lease, deadline, after)

    # Leases and watches.

    def lease(self, ttl: float) -> Lease:
        if ttl <= 0:
            raise ValueError("the time of a lease must be positive")
        return self._leases.grant(ttl)

    def watch(self, path: str, notify: Callable[[], None], *, values: bool = True) -> Watch:
        self._lifetime.check()
        check_watches(self._guarantees, self._watches.count)
        return self._watches.add(path, notify, values=values)

    def history(self) -> str:
        self._connection.sync()
        self._connection.for_reading(self._deadline())
        return self._connection.timeline.history

    def close(self) -> None:
        if not self._lifetime.end():
            return
        self._watches.wake_all()  # First: the end of the connection may take seconds.
        self._connection.close()
        self._leases.close()
        self._watches.close()

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self._lifetime.on_close(callback)


def _guarantees(root: str) -> Guarantees:
    """Return the guarantees before connecting: the bounds of ZooKeeper's default settings."""
    largest_commit = 1_000_000
    # Bytes of an operation beyond the key, the value and the 64 bytes counted for each operation.
    beyond = max(1, len(root.encode()) + 52 - 64)
    return Guarantees(
        linearizable_writes=True,
        survives_failover=True,
        unique_versions=False,
        shortest_ttl=4.0 * RELIABLE_SHARE_OF_TTL,
        longest_ttl=40.0 * RELIABLE_SHARE_OF_TTL,
        ttl_step=0.0,
        largest_value=900_000,
        largest_commit=largest_commit,
        most_operations=min(4000, (_LARGEST_REQUEST_BYTES - largest_commit - 1024) // beyond),
    )
