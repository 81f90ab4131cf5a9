"""The contract between smoothcluster and a store: keys and values, commits, leases and watches.

Keys are paths such as ``docs/seats/0``. A key holds bytes or is a directory, never both.
Nobody creates directories: a directory exists while a key lies under it.

Callers rely on these promises, and the conformance kit (`smoothcluster.testing`) checks them:

* A commit applies all its changes or none. Every reader sees commits in the same order.
* Reads through a backend object never go back in this order, and see every commit acknowledged to
  the object. Reads may lag behind commits of other clients unless the caller calls `sync` first.
  The store makes reads in the order of the calls.
* When a lease ends, the store deletes the keys on the lease. An ended lease never comes back.
* A watch may merge wake-ups but never misses the last change.
* No driver's own exception escapes, and no driver retries on its own: a call returns,
  or raises an error of `smoothcluster.errors` within the backend's timeout.
* `close` tells all waiting threads: every later call raises BackendClosedError, and every watch wakes.
* A client belongs to the process that made the client. After a fork, every call in the child returns a right answer
  or raises UsageError at once. No act of the child disturbs the parent: no call, no `close`, no garbage collection.

Beware: a *version* has a meaning only while its key lives. On some stores (ZooKeeper) a key
that is deleted and created again starts over with an old version, unless
`Guarantees.unique_versions` is true. So never delete a record that fences, and give keys
that come and go a name that is never used again.

After a possible loss of acknowledged commits, a store with a false `Guarantees.survives_failover`
must invalidate every version that the store handed out before. The store refuses a commit that names
such a version, even where the key is unchanged: the caller may have decided on other records that are lost.

The same holds on every store after a rollback by hand, when somebody empties the store or restores a backup: a client
that has seen a later state refuses the versions from before, reports another history, and wakes all watches.
"""

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Protocol, runtime_checkable

from smoothcluster.errors import CommitTooLargeError, OutcomeUnknownError, StoreLimitError, UnavailableError

_SEGMENT_PATTERN = r"(?!\.\.?(?:/|\Z))[A-Za-z0-9_.:@+=-]+"
_KEY_PATTERN = re.compile(f"{_SEGMENT_PATTERN}(?:/{_SEGMENT_PATTERN})*")

MOST_KEY_SEGMENTS = 32
"""Most segments of a key. On some stores each level of directories costs a request, or a check in the transaction."""

_OPERATION_OVERHEAD_BYTES = 64
"""Bytes counted for the framing of each operation, for every store: generous on purpose."""


@lru_cache(65_536)
def check_key(key: str) -> str:
    """Return *key* if every store can hold the key; raise ValueError with the reason if not.

    A key is one or more segments of ``A-Z a-z 0-9 _ . : @ + = -`` joined by single slashes;
    ``.`` and ``..`` are not segments. A key has at most 512 characters and `MOST_KEY_SEGMENTS` segments.
    """
    if not _KEY_PATTERN.fullmatch(key) or len(key) > 512:
        raise ValueError(f"key {key!r} is not valid: use A-Z a-z 0-9 _ . : @ + = - in segments joined by '/'")
    if key.count("/") >= MOST_KEY_SEGMENTS:
        raise ValueError(f"key {key!r} is not valid: use at most {MOST_KEY_SEGMENTS} segments")
    return key


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its value, version and lease at the time of a read."""

    key: str
    value: bytes
    version: str
    """Opaque; changes with every change of the value. Compare for equality only."""
    created: int
    """Orders creations across the whole store: a key created later has a larger number."""
    lease: str | None
    """Id of the lease of the key, given at creation; None if the key belongs to no lease."""


@dataclass(frozen=True, slots=True)
class Exists:
    """Condition: the key exists, with any value."""

    key: str


@dataclass(frozen=True, slots=True)
class AtVersion:
    """Condition: the key exists and the value has not changed since the caller read *version*."""

    key: str
    version: str


@dataclass(frozen=True, slots=True)
class Create:
    """Change: create the key. Refused if the key exists. The key goes when *lease* ends."""

    key: str
    value: bytes
    lease: "Lease | None" = None


@dataclass(frozen=True, slots=True)
class Update:
    """Change: replace the value. Refused if the key is absent, or not at *version* if given.

    The key stays on the lease given at creation, if any.
    """

    key: str
    value: bytes
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Change: remove the key. Refused if the key is absent, or not at *version* if given."""

    key: str
    version: str | None = None


Condition = Exists | AtVersion
Change = Create | Update | Delete


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """How full a store is."""

    used: int
    """Bytes in use."""
    limit: int
    """Bytes at which the store refuses writes."""
    what: str
    """The limit in words, such as "maxmemory of the Redis server"."""


@dataclass(frozen=True, slots=True)
class Committed:
    """Result of a commit: the store applied every change."""

    versions: Mapping[str, str]
    """The new version of every key created or updated."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Result of a commit: the store applied nothing, because a condition did not hold.

    Another client was faster, or had made the change already.
    """

    key: str
    """A key with a failed condition, explicit or implied by the change."""


@dataclass(frozen=True, slots=True)
class Guarantees:
    """The promises of a store, as data; a conformance test checks each line."""

    linearizable_writes: bool
    """Commits have one order, the same for all clients, and the order respects real time."""
    survives_failover: bool
    """The store never loses an acknowledged commit at a failover or restart. Where this is
    false, versions from before such a moment no longer hold afterwards."""
    unique_versions: bool
    """A key created again after deletion never repeats an earlier version."""
    shortest_ttl: float
    """Seconds: the store grants this time to a shorter lease."""
    longest_ttl: float
    """Seconds: the store grants this time to a longer lease."""
    ttl_step: float
    """Seconds: granted times are multiples of this step; 0 if the store can grant any time."""
    largest_value: int
    """Most bytes in the value of a key."""
    largest_commit: int
    """Most bytes in a commit, as counted by `commit_size`."""
    most_operations: int
    """Most conditions and changes in a commit."""
    largest_directory: int = 200_000
    """Most names directly in a directory that `keys`, `list` and `commit_and_list` return."""
    most_watches: int = 10_000
    """Most watches open at the same time on a backend object, or on a part of the store from `for_group`."""

    def lacks(self, required: Mapping[str, float]) -> list[str]:
        """List the parts of *required* that the store does not promise, in words; empty if none.

        The store's `shortest_ttl` and `ttl_step` may be at most the required number, every other guarantee at least.
        Raise ValueError for an unknown name.
        """
        known = {each.name for each in fields(self)}
        lacking: list[str] = []
        for name, wanted in required.items():
            if name not in known:
                raise ValueError(f"{name!r} is no guarantee; the guarantees are {', '.join(sorted(known))}")
            found: float = getattr(self, name)
            at_most = name in ("shortest_ttl", "ttl_step")
            if found > wanted if at_most else found < wanted:
                lacking.append(f"{name} is {found}, {'at most' if at_most else 'at least'} {wanted} is required")
        return lacking


class Lease(Protocol):
    """Time granted by the store to one holder. When the time is over, the store deletes the lease's keys."""

    @property
    @abstractmethod
    def id(self) -> str:
        """Id of the lease, never used again for another lease."""

    @property
    @abstractmethod
    def ttl(self) -> float:
        """Seconds actually granted, read back from the store."""

    @abstractmethod
    def renew(self) -> bool:
        """Start the full time again. Return False if the lease is gone for good.

        True means: at some moment after this call began, the store still had the lease and gave the
        lease at least `ttl` more seconds. (`ttl` already leaves out the possible error of a store with a
        clock of its own.) Raise UnavailableError or OutcomeUnknownError if the call did not reach the
        store or got no answer: the state of the lease is then unknown.
        """

    @abstractmethod
    def revoke(self) -> None:
        """Give the lease back now: the store deletes the lease's keys at once.

        Repeating the call is harmless, also after a loss. Raise UnavailableError or OutcomeUnknownError
        if the store did not confirm the call; the lease then runs out without further calls.
        """


class Watch(Protocol):
    """A subscription to changes at a path."""

    @abstractmethod
    def close(self) -> None:
        """End the watch. At most one wake-up already under way may still arrive. Repeatable."""


class CoordinationBackend(Protocol):
    """A store through which groups coordinate. Adapters inherit this class and are final.

    Every method may be called from any thread, and blocks until the store answers, but never
    longer than the backend's own timeout.
    """

    @property
    @abstractmethod
    def guarantees(self) -> Guarantees:
        """The promises of this store, as configured and as connected.

        The limits may become lower while connected, if a server turns out to take less.
        """

    @property
    @abstractmethod
    def url(self) -> str:
        """The address of the store, for people and for `connect`; never contains a secret."""

    @property
    def one_machine(self) -> bool:
        """Whether all clients of this store run on one machine, so members need to listen on loopback only."""
        return False

    @property
    def limits_advice(self) -> str:
        """What to do about a server with limits below the `guarantees`, for people; empty if servers have no such."""
        return ""

    @abstractmethod
    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        """Read each of *keys*, None where absent; in order, not as a snapshot of one moment.

        Raise UnavailableError if the call did not reach the store.
        """

    @abstractmethod
    def keys(self, directory: str) -> list[str]:
        """The full names directly in *directory*, of keys with a value and of directories, sorted.

        A name with deeper keys below is listed too, once. Empty if there is no such directory. A name present
        throughout the call is listed; a name that comes or goes meanwhile may or may not be. The time is linear in the
        number of names, and the store does the work in bounded steps. Raise UnavailableError if the call did not reach
        the store, and its StoreLimitError if the directory exceeds the `guarantees`.
        """

    @abstractmethod
    def commit(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        """Apply all *changes* if every condition holds, else none.

        A key may appear once among all conditions and changes. All created keys with a lease
        name the same lease. If another client was faster, return Refused with a key whose condition
        failed. Raise LeaseLostError if a change belongs to a lease that is gone,
        OutcomeUnknownError if the commit may or may not have happened or may still happen,
        UnavailableError if the commit certainly was not and will not be applied,
        CommitTooLargeError, before sending, if the commit exceeds the `guarantees`, or if the server certainly refused
        the commit for its size (the adapter then lowers the `guarantees`),
        MisplacedKeyError if a created key is a directory or lies below a key,
        ValueError for a malformed commit.
        """

    @abstractmethod
    def lease(self, ttl: float) -> Lease:
        """Ask for a lease of *ttl* seconds. The store may grant another time: read `Lease.ttl`.

        The backend does *not* renew the lease in the background: `smoothcluster.recipes.session` does.
        Raise UnavailableError or OutcomeUnknownError; an unknown grant runs out without further calls.
        """

    @abstractmethod
    def watch(self, path: str, notify: Callable[[], None], *, values: bool = True) -> Watch:
        """Call *notify* after changes of the key at *path*, or of any key directly under *path*.

        The watch wakes on creations, deletions and, unless *values* is false, changed values. A watch may wake
        without a change and may merge several changes into one call, but never misses the last change, and
        survives reconnects. Every change that a read after the return of this method could still
        miss leads to a call, so arm first and read second. The driver's thread calls *notify*, so *notify*
        must return at once and call no method of the backend. While the store is away the watch reports
        nothing; on the store's return the watch calls *notify* if any change may have been missed. The number of keys
        in a directory is no limit. Raise StoreLimitError if more watches are open than the `guarantees` allow.
        """

    @abstractmethod
    def close(self) -> None:
        """Close connections and end threads; leases not revoked run out. Repeatable.

        From the beginning of `close` on, every call through any part raises BackendClosedError, also `Lease.renew` and
        `Lease.revoke`. Then `close` calls every callback of `on_close`, and *notify* of every open watch. In a forked
        child of the client's process, `close` does nothing.
        """

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:  # noqa: ARG002  # for adapters
        """Call *callback* once when any part of this client is closed, at once if already closed.

        Return a function that cancels the callback. The thread that closes the client makes the call, so *callback*
        must return at once. Every adapter overrides this method (`smoothcluster.lifetime` has an implementation). This
        default, for older adapters, never calls.
        """
        return lambda: None

    def for_group(self, group: str) -> "CoordinationBackend":  # noqa: ARG002  # for those who override it
        """The part of the store for *group*, named as the first segment of a key may be.

        No group touches another group's keys, so a store of several servers may keep each group apart.
        All promises of this class hold inside a part, and none holds across parts: keys, leases and versions
        of one part mean nothing in another, and a key on a lease of another part raises ValueError.
        `for_group` of any part always returns the same object for a group. Closing any part closes the whole client.
        Stores with a single place for all groups need not override this method.
        """
        return self

    def sync(self) -> None:
        """Make later reads through this object see every commit acknowledged before this call.

        Stores whose reads are never behind need not override this method.
        """
        return

    def silent_leases(self, leases: Sequence[str]) -> frozenset[str]:  # noqa: ARG002  # for those who override it
        """Return the ids among *leases* of leases that have not ended, and were last renewed `Lease.ttl` ago or more.

        The answer is for people. No decision may depend on the answer: a holder keeps a silent lease until the store
        ends the lease. Two seconds after the time of a lease, every client finds the lease in the answer, or ended,
        even a new client that is the only client. So the age of a renewal also grows while no client sends requests,
        by a clock that may jump; each adapter documents the clock. A lease whose last renewal is unknown is not in the
        answer. A renewal records its time without a further request or write.
        Raise UnavailableError if the call did not reach the store. Stores that end leases on time while no client sends
        requests need not override this method.
        """
        return frozenset()

    def usage(self) -> StoreUsage | None:
        """Return how full the store is, for people; None if the store does not tell.

        Raise UnavailableError if the call did not reach the store.
        """
        return None

    def get(self, key: str) -> Entry | None:
        """Read one key; None if absent. Raise UnavailableError if the call did not reach the store."""
        return self.get_many([key])[0]

    def list(self, directory: str) -> "list[Entry]":
        """Read the keys directly in *directory*, sorted by key.

        A key present throughout the call is in the result; a key that comes or goes meanwhile may or may not be. Time
        and errors are those of `keys`. Stores that can read names and values together override this method.
        """
        return [entry for entry in self.get_many(self.keys(directory)) if entry is not None]

    def commit_and_list(
        self, conditions: Sequence[Condition], changes: Sequence[Change], directory: str
    ) -> tuple[Committed | Refused, Sequence[Entry]]:
        """Commit, then list *directory* whatever the outcome; the listing sees the commit.

        Errors are those of `commit`. Raise OutcomeUnknownError also if only the listing failed. Stores that can
        do both in one round trip override this method.
        """
        outcome = self.commit(conditions, changes)
        try:
            return outcome, self.list(directory)
        except UnavailableError as error:
            raise OutcomeUnknownError(f"the store answered the commit, and then the listing failed: {error}") from error


@runtime_checkable
class HasHistory(Protocol):
    """A store that may lose its latest commits, or be set back by hand, and reports when a loss is possible."""

    @abstractmethod
    def history(self) -> str:
        """The store's present history, in the store's own terms, for people and for comparison.

        The answer changes whenever the store may have lost acknowledged commits since the last call.
        Raise UnavailableError if the call did not reach the store.
        """


@dataclass(frozen=True, slots=True)
class CommitSize:
    """The size of a commit, counted in the same way for all stores."""

    bytes: int
    operations: int


def commit_size(conditions: Sequence[Condition], changes: Sequence[Change]) -> CommitSize:
    """Measure a commit: the bytes of keys and values, and a fixed sum for each operation."""
    size = sum(len(condition.key) + _OPERATION_OVERHEAD_BYTES for condition in conditions)
    for change in changes:
        size += len(change.key) + _OPERATION_OVERHEAD_BYTES
        if not isinstance(change, Delete):
            size += len(change.value)
    return CommitSize(size, len(conditions) + len(changes))


def check_commit(guarantees: Guarantees, conditions: Sequence[Condition], changes: Sequence[Change]) -> "Lease | None":
    """Refuse a commit that no store would take; return the one lease of the created keys, if any.

    Every adapter calls this function first. Raise ValueError if the commit is malformed,
    CommitTooLargeError if the commit exceeds *guarantees*.
    """
    seen: set[str] = set()
    for part in (*conditions, *changes):
        if check_key(part.key) in seen:
            raise ValueError(f"{part.key!r} appears twice in one commit")
        seen.add(part.key)
    if not changes:
        raise ValueError("a commit needs at least one change")
    size = commit_size(conditions, changes)
    if size.bytes > guarantees.largest_commit:
        raise CommitTooLargeError(
            f"the commit has {size.bytes} bytes, and the store takes {guarantees.largest_commit} at most"
        )
    if size.operations > guarantees.most_operations:
        most = guarantees.most_operations
        raise CommitTooLargeError(f"the commit has {size.operations} operations, and the store takes {most} at most")
    leases: dict[str, Lease] = {}
    for change in changes:
        if not isinstance(change, Delete) and len(change.value) > guarantees.largest_value:
            largest = guarantees.largest_value
            raise CommitTooLargeError(
                f"the value of {change.key!r} has {len(change.value)} bytes, and the store takes {largest} at most"
            )
        if isinstance(change, Create) and change.lease is not None:
            leases[change.lease.id] = change.lease
    if len(leases) > 1:
        raise ValueError("a commit can put keys on a single lease only")
    return next(iter(leases.values()), None)


def check_directory(guarantees: Guarantees, directory: str, names: int) -> None:
    """Raise StoreLimitError if *directory* has more *names* than *guarantees* allow. Every listing calls this."""
    if names > guarantees.largest_directory:
        most = guarantees.largest_directory
        raise StoreLimitError(f"{directory!r} has {names} names or more, and the store lists {most} at most")


def check_watches(guarantees: Guarantees, there: int) -> None:
    """Raise StoreLimitError if no watch may be added to those *there*; every adapter's `watch` calls this first."""
    if there >= guarantees.most_watches:
        raise StoreLimitError(f"{there} watches are open, and the store takes {guarantees.most_watches} at most")
