"""A client of a store in another process: see `smoothcluster.memory.server`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, final

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
    Watch,
    check_commit,
    check_directory,
    check_key,
    check_watches,
)
from smoothcluster.errors import (
    BackendError,
    LeaseLostError,
    MisplacedKeyError,
    OutcomeUnknownError,
    UnavailableError,
    UsageError,
)
from smoothcluster.lifetime import ClientLifetime
from smoothcluster.memory.connections import ConnectionPool, check_path
from smoothcluster.memory.remote_watches import RemoteWatches
from smoothcluster.memory.wire import SOCKET_GUARANTEES, Frame, decode_entries, encode_part, frame

Answer = TypeVar("Answer")

_MOST_KEYS_PER_REQUEST = 1000
"""Most keys in a request."""


@final
class SocketLease(Lease):
    """A lease from the store of *backend*."""

    def __init__(self, backend: "SocketBackend", name: str, ttl: float) -> None:
        self._backend, self._id, self._ttl = backend, name, ttl

    @property
    def id(self) -> str:
        return self._id

    @property
    def ttl(self) -> float:
        return self._ttl

    def renew(self) -> bool:
        return self._backend.ask(lambda got: bool(got.words[0]), ["renew", self._id], unknown=OutcomeUnknownError)

    def revoke(self) -> None:
        self._backend.ask(lambda got: None, ["end", self._id], unknown=OutcomeUnknownError)


@final
class SocketBackend(CoordinationBackend, HasHistory):
    """A client of an in-memory store served by another process of this machine at the socket *path*.

    The client connects at the first call. No call blocks for longer than *timeout* seconds.
    """

    def __init__(self, path: Path | str, *, timeout: float = 5.0) -> None:
        if not timeout > 0:
            raise UsageError("memory: timeout must be positive")
        self._path = check_path(path)
        self._lifetime = ClientLifetime(self, self.url)
        self._connections = ConnectionPool(self._path, timeout, self._lifetime)
        self._watches = RemoteWatches(self._path, timeout, self._lifetime)

    @property
    def guarantees(self) -> Guarantees:
        return SOCKET_GUARANTEES

    @property
    def one_machine(self) -> bool:
        return True

    @property
    def url(self) -> str:
        return f"memory://{self._path}"

    def ask(
        self,
        read: Callable[[Frame], Answer],
        words: Sequence[object],
        values: Sequence[bytes] = (),
        unknown: type[BackendError] = UnavailableError,
    ) -> Answer:
        """Send a request and return the result of *read* on the answer. Raise *unknown* without a sound answer."""
        answer = self._connections.request(frame(words, values), unknown)
        try:
            return read(answer)
        except BackendError:
            raise
        except (LookupError, TypeError, ValueError) as error:
            raise unknown(
                f"{self.url} gave a malformed answer; check that a MemoryServer of this version listens there"
            ) from error

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        for key in keys:
            check_key(key)
        found: list[Entry | None] = []
        while len(found) < len(keys):
            found += self.ask(_decode_page, ["get", keys[len(found) :][:_MOST_KEYS_PER_REQUEST]])
        return found

    def keys(self, directory: str) -> "list[str]":
        names = self.ask(lambda got: [str(name) for name in got.words[0]], ["keys", check_key(directory)])
        check_directory(self.guarantees, directory, len(names))
        return names

    def list(self, directory: str) -> "list[Entry]":
        listing = self.ask(lambda got: _decode_listing(got, *got.words), ["list", check_key(directory)])
        return list(self._complete(directory, *listing))

    def silent_leases(self, leases: Sequence[str]) -> frozenset[str]:
        return self.ask(lambda got: frozenset(map(str, got.words[0])), ["silent", *leases])

    def commit(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        return self._commit(conditions, changes, None)[0]

    def commit_and_list(
        self, conditions: Sequence[Condition], changes: Sequence[Change], directory: str
    ) -> tuple[Committed | Refused, Sequence[Entry]]:
        outcome, listing = self._commit(conditions, changes, check_key(directory))
        try:
            return outcome, self._complete(directory, *listing)
        except UnavailableError as error:
            raise OutcomeUnknownError(f"the store answered the commit, and then the listing failed: {error}") from error

    def lease(self, ttl: float) -> Lease:
        if not ttl > 0:
            raise ValueError(f"a lease needs a positive time, not {ttl}")
        return self.ask(self._granted, ["grant", ttl], unknown=OutcomeUnknownError)

    def watch(self, path: str, notify: Callable[[], None], *, values: bool = True) -> Watch:
        check_watches(self.guarantees, self._watches.count)
        return self._watches.add(path, notify, values=values)

    def history(self) -> str:
        return self.ask(lambda got: str(got.words[0]), ["history"])

    def close(self) -> None:
        if self._lifetime.end():
            self._connections.close()
            self._watches.close()

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self._lifetime.on_close(callback)

    def _granted(self, got: Frame) -> Lease:
        match got.words:
            case [str(name), int() | float() as ttl]:
                return SocketLease(self, name, ttl)
            case _:
                raise ValueError("the answer has no lease")

    def _commit(
        self, conditions: Sequence[Condition], changes: Sequence[Change], directory: str | None
    ) -> tuple[Committed | Refused, tuple[Sequence[Entry], Sequence[str]]]:
        lease = check_commit(SOCKET_GUARANTEES, conditions, changes)
        parts = [encode_part(part) for part in conditions], [encode_part(part) for part in changes]
        values = [change.value for change in changes if not isinstance(change, Delete)]
        words = ["commit", lease and lease.id, *parts, directory]
        return self.ask(
            lambda got: (_decode_outcome(got), _decode_listing(got, *got.words[2:])), words, values, OutcomeUnknownError
        )

    def _complete(self, directory: str, found: Sequence[Entry], others: Sequence[str]) -> Sequence[Entry]:
        """A complete listing: *found*, and the entries of *others*, which did not fit in the first frame."""
        check_directory(self.guarantees, directory, len(found) + len(others))
        return [*found, *(entry for entry in self.get_many(others) if entry is not None)] if others else found


def _decode_page(got: Frame) -> list[Entry | None]:
    found = decode_entries(got.words[0], got)
    if not found:
        raise ValueError("the answer has none of the requested entries")
    return found


def _decode_listing(got: Frame, rows: Sequence[Any], others: Sequence[str]) -> tuple[Sequence[Entry], Sequence[str]]:
    return [entry for entry in decode_entries(rows, got) if entry is not None], others


def _decode_outcome(got: Frame) -> Committed | Refused:
    match got.words[0], got.words[1]:
        case "done", versions:
            return Committed(dict(versions))
        case "refused", str(key):
            return Refused(key)
        case "lost", str(lease):
            raise LeaseLostError(f"{lease} is gone")
        case "misplaced", [str(key), str(what)]:
            raise MisplacedKeyError(key, what)
        case _:
            raise ValueError("the answer has an unknown outcome")
