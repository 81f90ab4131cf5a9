"""Redis as a `CoordinationBackend`."""

import threading
from collections.abc import Callable, Sequence
from copy import copy
from typing import Final, final

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
    HasHistory,
    Lease,
    Refused,
    StoreUsage,
    Update,
    Watch,
    check_commit,
    check_key,
    check_watches,
)
from smoothcluster.errors import LeaseLostError, MisplacedKeyError, OutcomeUnknownError, UnavailableError
from smoothcluster.lifetime import ClientLifetime
from smoothcluster.server_options import TlsOptions
from smoothcluster_redis.address import DEFAULT_NAMESPACE, Address, parse_url
from smoothcluster_redis.lease import RedisLease
from smoothcluster_redis.reads import Reads
from smoothcluster_redis.servers import Servers
from smoothcluster_redis.settings import ClientState, Credentials, Settings
from smoothcluster_redis.watches import Watches

_REDIS_GUARANTEES: Final = Guarantees(
    linearizable_writes=True,
    survives_failover=False,
    unique_versions=True,
    shortest_ttl=0.1,
    longest_ttl=86_400.0,
    ttl_step=0.0,
    largest_value=900_000,
    largest_commit=1_000_000,
    most_operations=4000,
)


@final
class RedisBackend(CoordinationBackend, HasHistory):
    """A backend on the Redis server, or the nodes of the Redis Cluster, at *hosts*, such as ``h1:6379,h2:6379``.

    With *service*, *hosts* are Sentinels, and *service* is the name of the primary there. All keys lie under
    *namespace* in the database *db*, each group in a separate slot. The first use opens a
    connection. No call blocks for longer than *timeout* seconds. *username* (default: Redis's ``default``)
    and *password* are for the server, *sentinel_username* and *sentinel_password* for Sentinels. The
    options *use_ssl*, *ca* and *certfile* each switch TLS on. Options of TLS: *ca* (default: the system's
    authorities), *certfile* and *keyfile* for a client's certificate, *verify_certs* and *check_hostname* (both on).
    """

    def __init__(  # parameters: each option is a keyword, so that type checkers and the reference know the option
        self,  # long: more than half of the lines are the signature
        hosts: str,
        *,
        service: str | None = None,
        db: int = 0,
        namespace: str = DEFAULT_NAMESPACE,
        timeout: float = 5.0,
        username: str | None = None,
        password: str | None = None,
        sentinel_username: str | None = None,
        sentinel_password: str | None = None,
        use_ssl: bool = False,
        ca: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        keyfile_password: str | None = None,
        verify_certs: bool | None = None,
        check_hostname: bool | None = None,
    ) -> None:
        credentials = Credentials(username, password)
        sentinel_credentials = Credentials(sentinel_username, sentinel_password)
        tls = TlsOptions(
            use_ssl=use_ssl, ca=ca, certfile=certfile, keyfile=keyfile, keyfile_password=keyfile_password,
            verify_certs=verify_certs, check_hostname=check_hostname,
        )  # fmt: skip
        self._address = Address.of(hosts, db, service, namespace, tls=tls.on)
        settings = Settings(self._address, timeout, tls.context(), credentials, sentinel_credentials)
        self._lifetime = ClientLifetime(self, self.url)
        self.servers = Servers(settings, ClientState(self._lifetime))
        self.servers.warn_of_hosts()
        """The connections of this part of the store; like `watches` and `reads`, not for users."""
        self.watches = Watches(self.servers)
        self.reads = Reads(self.servers, _REDIS_GUARANTEES)
        self._parts_lock = threading.Lock()
        self._parts: dict[str | None, RedisBackend] = {None: self}
        """The parts of this client by group, each with separate servers and watches; None is for keys of no group."""

    @classmethod
    def from_url(  # parameters: `connect` checks the options of its caller against these names
        cls,  # long: passes every option on by name, so that no option can get lost unnoticed
        url: str,
        *,
        namespace: str | None = None,
        timeout: float = 5.0,
        username: str | None = None,
        password: str | None = None,
        sentinel_username: str | None = None,
        sentinel_password: str | None = None,
        ca: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        keyfile_password: str | None = None,
        verify_certs: bool | None = None,
        check_hostname: bool | None = None,
    ) -> "RedisBackend":
        """Return the backend at ``redis://h:6379/0``, ``rediss://h:6379/0`` or ``redis+sentinel://s1,s2/service/0``."""
        hosts, address = parse_url(url, namespace)
        return cls(
            hosts,
            service=address.service,
            db=address.db,
            namespace=address.namespace,
            timeout=timeout,
            username=username,
            password=password,
            sentinel_username=sentinel_username,
            sentinel_password=sentinel_password,
            use_ssl=address.tls,
            ca=ca,
            certfile=certfile,
            keyfile=keyfile,
            keyfile_password=keyfile_password,
            verify_certs=verify_certs,
            check_hostname=check_hostname,
        )

    @property
    def guarantees(self) -> Guarantees:
        return _REDIS_GUARANTEES

    @property
    def url(self) -> str:
        return self._address.url

    def for_group(self, group: str) -> "RedisBackend":
        if "/" in check_key(group):
            raise ValueError(f"{group!r} is not a valid name of a group: a slash is not allowed")
        self._lifetime.check_process()  # Before the lock.
        with self._parts_lock:
            if group not in self._parts:
                part = copy(self)  # The copy shares all other attributes.
                part.servers = Servers(self.servers.settings, self.servers.state, group)
                part.watches = Watches(part.servers)
                part.reads = Reads(part.servers, _REDIS_GUARANTEES)
                self._parts[group] = part
            return self._parts[group]

    # Reading: the primary, which takes all commits, answers every read, after all commits so far.

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        for key in keys:
            check_key(key)
        return self.reads.entries(keys, self.servers.deadline())

    def keys(self, directory: str) -> list[str]:
        return self.reads.names(check_key(directory), self.servers.deadline())

    def list(self, directory: str) -> "list[Entry]":
        return self.reads.entries_in(check_key(directory), self.servers.deadline())

    def silent_leases(self, leases: Sequence[str]) -> frozenset[str]:
        return self.reads.silent_leases(leases, self.servers.deadline())

    def usage(self) -> StoreUsage | None:
        return self.servers.usage()

    # Changing.

    def commit(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        words = _commit(self.servers, conditions, changes)
        return _outcome(self.servers.run("commit", words, OutcomeUnknownError).decode(), changes)

    def commit_and_list(
        self, conditions: Sequence[Condition], changes: Sequence[Change], directory: str
    ) -> tuple[Committed | Refused, Sequence[Entry]]:
        words, deadline = _commit(self.servers, conditions, changes), self.servers.deadline()
        answered = self.servers.run("commit", [*words, check_key(directory)], OutcomeUnknownError, deadline)
        answer, step = answered[0].split(b"\n", 1)
        outcome = _outcome(answer.decode(), changes)
        try:
            return outcome, self.reads.entries_in(directory, deadline, [step, *answered[1:]])
        except UnavailableError as error:
            raise OutcomeUnknownError(
                f"the store answered the commit, but the listing after the commit failed: {error}"
            ) from error

    def lease(self, ttl: float) -> Lease:
        if not ttl > 0:
            raise ValueError("the time of a lease must be positive")
        return RedisLease(self.servers, min(max(ttl, _REDIS_GUARANTEES.shortest_ttl), _REDIS_GUARANTEES.longest_ttl))

    def watch(self, path: str, notify: Callable[[], None], *, values: bool = True) -> Watch:
        self._lifetime.check()
        check_watches(_REDIS_GUARANTEES, self.watches.count)
        return self.watches.add(path, notify, values=values)

    def history(self) -> str:
        return self.servers.history()

    def close(self) -> None:
        if not self._lifetime.end():
            return
        with self._parts_lock:
            # Before the list of parts is taken: a part made later finds the client closed.
            self.servers.state.closed.set()
            parts = [*self._parts.values()]
        # All servers first: then the threads of all parts end at the same time while the second loop waits for each.
        for part in parts:
            part.servers.close()
        for part in parts:
            part.watches.close()

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self._lifetime.on_close(callback)


def _commit(servers: Servers, conditions: Sequence[Condition], changes: Sequence[Change]) -> "list[str | bytes]":
    """Encode a commit for the script: the lease, and four words for each part."""
    lease = check_commit(_REDIS_GUARANTEES, conditions, changes)
    if lease is not None and not (isinstance(lease, RedisLease) and lease.servers is servers):
        raise ValueError(f"lease {lease.id} was not granted by this backend, or belongs to another part of the store")
    words: list[str | bytes] = [lease.id if lease else ""]
    for part in (*conditions, *changes):
        words += _words(part)
    return words


def _outcome(answer: str, changes: Sequence[Change]) -> Committed | Refused:
    """Decode the script's answer to a commit; raise an error unless the commit was done or refused."""
    kind, detail = answer.split(" ")
    match kind:
        case "done":
            return Committed({change.key: detail for change in changes if not isinstance(change, Delete)})
        case "refused":
            return Refused(detail)
        case "lost":
            raise LeaseLostError(f"lease {detail} is gone")
        case "directory":
            raise MisplacedKeyError(detail, "is a directory and cannot hold bytes")
        case _:
            raise MisplacedKeyError(detail, "holds bytes and cannot be a directory")


def _words(part: Condition | Change) -> tuple[str, str, str, bytes]:
    """Encode a condition or change for the script."""
    match part:
        case Exists():
            return "if", part.key, "", b""
        case AtVersion():
            return "if", part.key, part.version or "none", b""
        case Create():
            return "attach" if part.lease else "create", part.key, "", part.value
        case Update():
            return "update", part.key, "" if part.version is None else part.version or "none", part.value
        case Delete():
            return "delete", part.key, "" if part.version is None else part.version or "none", b""
