"""Clients of an in-memory store."""

from collections.abc import Callable, Sequence
from typing import ClassVar, final

from smoothcluster.backend import (
    Change,
    Committed,
    Condition,
    CoordinationBackend,
    Entry,
    Guarantees,
    HasHistory,
    Lease,
    Refused,
    Watch,
    check_key,
    check_watches,
)
from smoothcluster.clock import SYSTEM_CLOCK, Clock
from smoothcluster.errors import UsageError
from smoothcluster.lifetime import ClientLifetime, current_process
from smoothcluster.memory.remote import SocketBackend
from smoothcluster.memory.store import WEAKEST, LeaseRecord, MemoryStore


@final
class MemoryLease(Lease):
    """A lease of a `MemoryStore`."""

    def __init__(self, backend: "MemoryBackend", granted: LeaseRecord) -> None:
        self._backend = backend
        self._granted = granted

    @property
    def id(self) -> str:
        return self._granted.id

    @property
    def ttl(self) -> float:
        return self._granted.ttl

    def renew(self) -> bool:
        return self._backend.reach().renew(self.id)

    def revoke(self) -> None:
        self._backend.reach().end(self.id)


@final
class MemoryBackend(CoordinationBackend, HasHistory):
    """A client of *store*, or of a new `MemoryStore`."""

    _named: ClassVar[dict[tuple[object, str], MemoryStore]] = {}
    """The stores with a name, by process and name: a forked child has stores of its own, empty at first."""

    def __init__(
        self, store: MemoryStore | None = None, *, clock: Clock = SYSTEM_CLOCK, guarantees: Guarantees = WEAKEST
    ) -> None:
        self.store = store or MemoryStore(clock=clock, guarantees=guarantees)
        self.store.process.check()
        self._lifetime = ClientLifetime(self, self.url)

    @classmethod
    def from_url(cls, url: str, *, timeout: float = 5.0) -> "MemoryBackend | SocketBackend":
        """A client of this process's store ``memory://`` or ``memory://NAME``, which need no *timeout*.

        ``memory:///path`` is a store that some process serves at this socket.
        """
        name = url.removeprefix("memory://")
        if name.startswith("/"):
            return SocketBackend(name, timeout=timeout)
        try:
            known = not name or not {"/", "@"} & set(check_key(name))  # An @ may be the end of a password.
        except ValueError:
            known = False
        if name == url or not known:  # The message does not repeat the URL, which may contain a password by mistake.
            raise UsageError(
                "a URL of a store in memory has no host, username or password: use memory://, memory://NAME or"
                " memory:///path/to/socket"
            )
        # Without a lock, which a forked child might find held: `setdefault` of a dictionary is a single step.
        return cls(cls._named.setdefault((current_process(), name), MemoryStore(name=name)))

    @property
    def guarantees(self) -> Guarantees:
        return self.store.guarantees

    @property
    def one_machine(self) -> bool:
        return True

    @property
    def url(self) -> str:
        return f"memory://{self.store.name}"

    def reach(self) -> MemoryStore:
        """The store; raise BackendClosedError once this client is closed, UsageError in a forked child."""
        self._lifetime.check()
        return self.store

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        return self.reach().get_many(keys)

    def keys(self, directory: str) -> "list[str]":
        return self.reach().keys(directory)

    def list(self, directory: str) -> "list[Entry]":
        return self.reach().list(directory)

    def silent_leases(self, leases: Sequence[str]) -> frozenset[str]:
        return self.reach().silent_leases(leases)

    def commit(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        return self.reach().commit(conditions, changes)

    def lease(self, ttl: float) -> Lease:
        return MemoryLease(self, self.reach().grant(ttl))

    def watch(self, path: str, notify: Callable[[], None], *, values: bool = True) -> Watch:
        store = self.reach()
        check_watches(store.guarantees, store.watches.count(self))
        watch = store.watches.add(self, path, notify, values=values)
        if self._lifetime.closed:  # `close` may have ended all watches before this watch was added.
            watch.close()
        self._lifetime.check()
        return watch

    def history(self) -> str:
        return self.reach().history

    def close(self) -> None:
        if self._lifetime.end():
            self.store.watches.remove_all(self)

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self._lifetime.on_close(callback)
