"""etcd as a `CoordinationBackend`."""

# long: two signatures with an option of the driver each a line

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, final

from etcd3 import etcdrpc

from smoothcluster.backend import (
    Change,
    Committed,
    Condition,
    CoordinationBackend,
    Delete,
    Entry,
    Guarantees,
    HasHistory,
    Lease,
    Refused,
    StoreUsage,
    Watch,
    check_commit,
    check_directory,
    check_watches,
)
from smoothcluster.errors import (
    BackendError,
    CommitTooLargeError,
    LeaseLostError,
    OutcomeUnknownError,
    UnavailableError,
    UsageError,
)
from smoothcluster.lifetime import ClientLifetime
from smoothcluster.server_options import TlsOptions, format_server, warn_of_plain_password
from smoothcluster.timeline import Mark, numbered
from smoothcluster_etcd.address import DEFAULT_NAMESPACE, STORE_NAME, Pem, check_hosts, format_url, parse_url
from smoothcluster_etcd.connection import Connection, Credentials
from smoothcluster_etcd.layout import below, etcd_key, range_end
from smoothcluster_etcd.lease import EtcdLease, lease_id
from smoothcluster_etcd.limits import SERVER_OPTIONS_ADVICE, RequestLimits
from smoothcluster_etcd.listing import Listing
from smoothcluster_etcd.transaction import Message, Transaction
from smoothcluster_etcd.watches import Watches

_rpc: Any = etcdrpc

_ENTRIES_AFTER_COMMIT = 100
"""Most keys in the answer to a commit with a listing. A longer listing takes requests of its own."""

DEFAULT_QUOTA_BYTES = 2 * 1024**3
"""Bytes of a database beyond which etcd, with default settings, refuses writes."""


@final
class EtcdBackend(CoordinationBackend, HasHistory):
    """Backend on the servers *hosts*, such as ``h1:2379,h2:2379``; everything lies under *namespace* there.

    The backend connects on first use. No call blocks for longer than *timeout* seconds.
    *use_ssl*, *ca* and *certfile* each switch TLS on. Options of TLS: *ca* (default: the authorities of gRPC),
    *certfile* and *keyfile* for a client certificate.
    """

    def __init__(  # parameters: each option is a keyword, so that type checkers and the reference know the option
        self,  # long: the signature takes a third of the lines
        hosts: str,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        timeout: float = 5.0,
        username: str | None = None,
        password: str | None = None,
        use_ssl: bool = False,
        ca: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
    ) -> None:
        if (username is None) != (password is None):
            raise UsageError("etcd: username and password go together")
        if timeout <= 0:
            raise UsageError("etcd: timeout must be positive")
        servers = check_hosts(hosts, namespace)
        credentials = None if username is None or password is None else Credentials(username, password)
        tls = TlsOptions(use_ssl=use_ssl, ca=ca, certfile=certfile, keyfile=keyfile)
        pem = Pem.read(tls)
        if credentials is not None and not tls.on:
            warn_of_plain_password(STORE_NAME, [host for host, _ in servers])
        self._url = format_url(servers, namespace)
        self._namespace = namespace
        self._lifetime = ClientLifetime(self, self._url)
        addresses, probe = [format_server(*each) for each in servers], f"{namespace}/".encode()
        self._connection = Connection(addresses, timeout, credentials, pem, probe, self._lifetime)
        self._watches = Watches(self._connection)
        self._limits = RequestLimits()
        self._shortest_known = False

    @classmethod
    def from_url(  # parameters: `connect` checks the options of its caller against these names
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
    ) -> "EtcdBackend":
        """Return the backend at ``etcd://h1:2379,h2:2379``, with the constructor's options."""
        hosts, named = parse_url(url)
        return cls(
            hosts,
            namespace=namespace or named or DEFAULT_NAMESPACE,
            timeout=timeout,
            username=username,
            password=password,
            use_ssl=use_ssl,
            ca=ca,
            certfile=certfile,
            keyfile=keyfile,
        )

    @property
    def guarantees(self) -> Guarantees:
        # A granted lease shows the servers' shortest time. Not worth waiting for a connection.
        if not self._shortest_known and self._connection.timeline.position:
            self._shortest_known = True
            with suppress(BackendError):
                shortest = self.lease(self._limits.guarantees.ttl_step)
                self._limits.guarantees = replace(self._limits.guarantees, shortest_ttl=shortest.ttl)
                shortest.revoke()
        return self._limits.guarantees

    @property
    def url(self) -> str:
        return self._url

    @property
    def limits_advice(self) -> str:
        return SERVER_OPTIONS_ADVICE

    # Reading. etcd asks a majority before each answer, so reads are never behind and need no sync.

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        deadline, since = self._connection.deadline(), self._connection.timeline.mark()
        wanted: list[Message] = [{"key": etcd_key(self._namespace, key)} for key in keys]
        entries: list[Entry | None] = []
        while len(entries) < len(keys):
            for answer in self._read(wanted[len(entries) :][: self._limits.comparisons], deadline):
                entries.append(_entry(keys[len(entries)], answer.kvs[0], since) if answer.kvs else None)
        return entries

    def keys(self, directory: str) -> list[str]:
        found, _ = self._listing(directory, keys_only=True)
        return sorted(f"{directory}/{name}" for name in found)

    def list(self, directory: str) -> "list[Entry]":
        found, since = self._listing(directory, keys_only=False)
        entries = (_entry(f"{directory}/{name}", kv, since) for name, kv in found.items())
        return sorted(entries, key=lambda entry: entry.key)

    def _listing(self, directory: str, *, keys_only: bool) -> tuple[dict[str, Any], Mark]:
        """Return the names in *directory*, each with a key; and the moment before the first page.

        With *keys_only* also the names of directories. The names and keys are of one era: the listing begins again if
        any page shows a rollback of the store.
        """
        deadline, timeline = self._connection.deadline(), self._connection.timeline
        here = etcd_key(self._namespace, directory)
        while True:
            since, found = timeline.mark(), dict[str, Any]()
            listing = Listing(here, lambda wanted: next(self._read([wanted], deadline)), keys_only=keys_only)
            for name, direct, kv in listing.names():
                if direct or keys_only:
                    found[name] = kv
                    check_directory(self._limits.guarantees, directory, len(found))
            if not timeline.rolled_back_since(since):
                return found, since

    def _read(self, ranges: Sequence[Message], deadline: float) -> Iterator[Any]:
        """Return the answers to the first of *ranges*: to all, unless a server takes fewer in a request."""
        wanted = _rpc.TxnRequest(success=[{"request_range": each} for each in ranges])
        try:
            return (each.response_range for each in self._connection.call("txn", wanted, deadline).responses)
        except CommitTooLargeError as error:
            self._limits.lower(error, len(ranges))
            if len(ranges) <= self._limits.comparisons:
                raise UnavailableError(str(error)) from error
            return self._read(ranges[: self._limits.comparisons], deadline)

    # Changing.

    def commit(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        return self._commit(conditions, changes)[0]

    def commit_and_list(
        self, conditions: Sequence[Condition], changes: Sequence[Change], directory: str
    ) -> tuple[Committed | Refused, Sequence[Entry]]:
        here, since = etcd_key(self._namespace, directory), self._connection.timeline.mark()
        limit = min(_ENTRIES_AFTER_COMMIT, self._limits.guarantees.largest_directory)
        wanted = {"key": here + b"\0", "range_end": range_end(here), "limit": limit}
        outcome, page = self._commit(conditions, changes, wanted)
        if page is None:
            return outcome, self._list_after(directory)
        entries: list[Entry] = []
        for kv in page.kvs:
            name = below(here, kv.key)
            if page.more or not name or not name[1]:  # More than a page, or something deeper.
                return outcome, self._list_after(directory)
            entries.append(_entry(f"{directory}/{name[0]}", kv, since))
        return outcome, entries

    def _list_after(self, directory: str) -> Sequence[Entry]:
        try:
            return self.list(directory)
        except UnavailableError as error:
            raise OutcomeUnknownError(
                f"the store answered the commit, but the listing after the commit failed: {error}"
            ) from error

    def _commit(
        self, conditions: Sequence[Condition], changes: Sequence[Change], after: Message | None = None
    ) -> tuple[Committed | Refused, Any]:
        """Return the outcome and the result of the last range, *after*; no result if nothing was sent."""
        lease = self._own(check_commit(self._limits.guarantees, conditions, changes))
        deadline, timeline = self._connection.deadline(), self._connection.timeline
        # Before the check: the first answer shows whether the server holds an older store.
        self._connection.ready(deadline)
        since = timeline.mark()
        outdated = timeline.outdated((*conditions, *changes))
        if outdated is not None:
            return Refused(outdated), None
        conditions, changes = numbered(conditions), numbered(changes)
        most, number = self._limits.comparisons, lease.number if lease else 0
        transaction = Transaction(self._namespace, conditions, changes, number, most, after)
        while True:
            answer = self._apply(transaction, lease, deadline)
            if answer.succeeded:
                version = since.version(answer.header.revision)
                versions = {change.key: version for change in changes if not isinstance(change, Delete)}
                outcome: Committed | Refused | None = Committed(versions)
            else:
                # Another client may have removed the reason for the refusal: then the commit is tried again.
                answer = self._connection.call("txn", transaction.inspection(), deadline)
                outcome = transaction.refusal(answer)
            if outcome is not None:
                return outcome, answer.responses[-1].response_range if after is not None else None

    def _apply(self, transaction: Transaction, lease: EtcdLease | None, deadline: float) -> Any:
        try:
            return self._connection.call("txn", transaction.request, deadline, OutcomeUnknownError)
        except (LeaseLostError, CommitTooLargeError) as error:
            if isinstance(error, CommitTooLargeError):
                self._limits.lower(error, transaction.comparisons, transaction.size)
            elif lease:
                lease.gone = True
            raise

    def lease(self, ttl: float) -> Lease:
        if ttl <= 0:
            raise ValueError("the time of a lease must be positive")
        request = _rpc.LeaseGrantRequest(TTL=math.ceil(min(ttl, self._limits.guarantees.longest_ttl)))
        granted = self._connection.call("grant", request, unknown=OutcomeUnknownError)
        return EtcdLease(self._connection, granted.ID, float(granted.TTL))

    def watch(self, path: str, notify: Callable[[], None], *, values: bool = True) -> Watch:
        self._lifetime.check()
        check_watches(self._limits.guarantees, self._watches.count)
        return self._watches.add(etcd_key(self._namespace, path), notify, values=values)

    def usage(self) -> StoreUsage | None:
        """Return how full the database is, for etcd's default quota: the server does not tell another quota."""
        used = self._connection.database_bytes(self._connection.deadline())
        return StoreUsage(used, DEFAULT_QUOTA_BYTES, "etcd's default quota") if used <= DEFAULT_QUOTA_BYTES else None

    def history(self) -> str:
        self._connection.term(self._connection.deadline())
        return self._connection.timeline.history

    def close(self) -> None:
        if self._lifetime.end():
            self._watches.close()

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self._lifetime.on_close(callback)

    def _own(self, lease: Lease | None) -> EtcdLease | None:
        if lease is None:
            return None
        if not isinstance(lease, EtcdLease) or lease.connection is not self._connection:
            raise ValueError(f"lease {lease.id} was not granted by this backend")
        if lease.gone:
            raise LeaseLostError(f"lease {lease.id} is gone")
        return lease


def _entry(key: str, kv: Any, since: Mark) -> Entry:
    """Return the entry of *kv*, read in answer to a request sent at *since*."""
    version = since.version(kv.mod_revision)
    return Entry(key, kv.value, version, kv.create_revision, lease_id(kv.lease) if kv.lease else None)
