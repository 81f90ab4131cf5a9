"""What a store must do for us, and nothing more: key-value, commits, leases, watches.

Keys are paths such as ``docs/seats/0``. A key holds bytes or is a directory, never both.
Directories need no making: they exist while something lies under them.

What callers rely on, and the conformance kit (`smoothcluster.testing`) checks:

* A commit applies wholly or not at all, and commits have one order that every reader sees.
* Reads through one backend object never go back in that order, and see what was acknowledged
  to it. They may lag behind other clients' commits unless `sync` is called first. They are made
  in the order they are asked for.
* A key whose lease has gone is gone, and a lease that has gone never comes back.
* A watch may merge wake-ups but never misses the last change.
* No driver's own exception escapes, and no driver retries behind our back: a call returns,
  or raises one of `smoothcluster.errors` within the backend's timeout.

The danger to know: a *version* only means something while its key lives. On some stores
(ZooKeeper) a key that is deleted and made again starts over with an old version, unless
`Guarantees.unique_versions` says otherwise. So a record that fences must never be deleted,
and keys that come and go must carry a name that is never used again.

A store that may lose what it acknowledged (`Guarantees.survives_failover` is false) lets no trace
of that pass for the present: whenever it may have gone back in its history, every version read or
acknowledged before is void. A commit that names one is refused, also where its key is unchanged,
since it may rest on something else that was read and is no more.
"""

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Protocol, runtime_checkable

from smoothcluster.errors import CommitTooLargeError, OutcomeUnknownError, UnavailableError

_SEGMENT = r"(?!\.\.?(?:/|\Z))[A-Za-z0-9_.:@+=-]+"
_KEY = re.compile(f"{_SEGMENT}(?:/{_SEGMENT})*")

_OVERHEAD = 64
"""Bytes reckoned for each operation's framing, whatever the store: generous on purpose."""


@lru_cache(65_536)
def check_key(key: str) -> str:
    """Return *key* if every store can hold it; raise ValueError saying what is wrong.

    A key is one or more segments of ``A-Z a-z 0-9 _ . : @ + = -`` joined by single slashes;
    ``.`` and ``..`` are not segments. At most 512 characters.
    """
    if not _KEY.fullmatch(key) or len(key) > 512:
        raise ValueError(f"not a valid key: {key!r}; use A-Z a-z 0-9 _ . : @ + = - in segments joined by '/'")
    return key


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as one read saw it."""

    key: str
    value: bytes
    version: str
    """Opaque; changes with every change of the value. Compare for equality only."""
    created: int
    """Orders creations across the whole store: a key created later has a larger one."""
    lease: str | None
    """Id of the lease the key was born on, or None if it outlives its maker."""


@dataclass(frozen=True, slots=True)
class Exists:
    """Condition: the key exists, whatever its value."""

    key: str


@dataclass(frozen=True, slots=True)
class AtVersion:
    """Condition: the key exists and its value has not changed since *version* was read."""

    key: str
    version: str


@dataclass(frozen=True, slots=True)
class Create:
    """Change: make the key. Refused if it exists. Born on *lease*, it goes when that goes."""

    key: str
    value: bytes
    lease: "Lease | None" = None


@dataclass(frozen=True, slots=True)
class Update:
    """Change: replace the value. Refused if the key is absent, or not at *version* if given.

    The key keeps the lease it was born on, or none.
    """

    key: str
    value: bytes
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Change: remove the key. Refused if it is absent, or not at *version* if given."""

    key: str
    version: str | None = None


Condition = Exists | AtVersion
Change = Create | Update | Delete


@dataclass(frozen=True, slots=True)
class Committed:
    """Every change was applied."""

    versions: Mapping[str, str]
    """The new version of every key created or updated."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was applied: somebody was faster, or had already."""

    key: str
    """A key whose condition, spoken or implied by the change, did not hold."""


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What a store promises, as data; each line is bound to a conformance test."""

    linearizable_writes: bool
    """Commits have one order, the same for all, that respects real time."""
    survives_failover: bool
    """What was acknowledged is never lost when the store's leader changes or restarts. Where this is
    false, versions from before such a moment no longer hold after it."""
    unique_versions: bool
    """A key made again after deletion never repeats an earlier version."""
    shortest_ttl: float
    """Seconds: a shorter lease is granted this long."""
    longest_ttl: float
    """Seconds: a longer lease is granted this long."""
    ttl_step: float
    """Seconds: granted times are multiples of this; 0 if any time can be granted."""
    largest_value: int
    """Bytes that one key can hold."""
    largest_commit: int
    """Bytes of one commit, as `commit_size` reckons them."""
    most_operations: int
    """Conditions and changes of one commit."""

    def lacks(self, required: Mapping[str, float]) -> list[str]:
        """What of *required* is not promised, each in words; empty if all is. Raise ValueError for an unknown name.

        `shortest_ttl` and `ttl_step` may be at most, all else must be at least, what is given.
        """
        known = {each.name for each in fields(self)}
        lacking: list[str] = []
        for name, wanted in required.items():
            if name not in known:
                raise ValueError(f"{name!r} is no guarantee; there are {', '.join(sorted(known))}")
            found: float = getattr(self, name)
            at_most = name in ("shortest_ttl", "ttl_step")
            if found > wanted if at_most else found < wanted:
                lacking.append(f"{name} is {found}, {'at most' if at_most else 'at least'} {wanted} is required")
        return lacking


class Lease(Protocol):
    """Time granted by the store to one holder, after which its keys go."""

    @property
    @abstractmethod
    def id(self) -> str:
        """Never used again for another lease."""

    @property
    @abstractmethod
    def ttl(self) -> float:
        """Seconds actually granted, read back from the store."""

    @abstractmethod
    def renew(self) -> bool:
        """Start the full time again. Return False if the lease is gone for good.

        True means that the store, at some moment after this call began, still had the lease
        and gave it at least `ttl` more seconds (less what a store with its own clock says it
        may be off by, which `ttl` already leaves out). Raise UnavailableError or
        OutcomeUnknownError if the store could not be asked: nothing is known then.
        """

    @abstractmethod
    def revoke(self) -> None:
        """Give the lease back now: its keys go at once. Repeating it, or after a loss, is harmless.

        Raise UnavailableError or OutcomeUnknownError if the store could not be told; the
        lease then runs out by itself.
        """


class Watch(Protocol):
    """A standing order to be woken."""

    @abstractmethod
    def close(self) -> None:
        """End it. At most one wake-up already under way may still arrive. Repeatable."""


class CoordinationBackend(Protocol):
    """A store that groups coordinate through. Inherit it; adapters are final.

    Every method may be called from any thread, and blocks until answered. None blocks for
    longer than the backend's own timeout.
    """

    @property
    @abstractmethod
    def guarantees(self) -> Guarantees:
        """What this store promises, as configured and as connected."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the store is, for people and for `connect`; never holds a secret."""

    @abstractmethod
    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        """Read each of *keys*, None where absent; in order, not as one moment's picture.

        Raise UnavailableError if the store could not be asked.
        """

    @abstractmethod
    def keys(self, directory: str) -> list[str]:
        """The full keys lying directly in *directory* that hold values or lead to some, sorted.

        A name that leads to deeper keys is listed too, once. Empty if there is no such directory.
        """

    @abstractmethod
    def commit(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        """Apply all *changes* if every condition holds, else none.

        A key may appear once among all conditions and changes. All created keys that name a
        lease name the same one. Return Refused, naming a key whose condition failed, if someone
        was faster. Raise LeaseLostError if a change hangs on a lease that is gone,
        OutcomeUnknownError if the commit may or may not have happened or may still happen,
        UnavailableError if it certainly was not and will not be applied,
        CommitTooLargeError before sending anything that exceeds the `guarantees`,
        MisplacedKeyError if a created key is a directory or lies below a key,
        ValueError for a malformed commit.
        """

    @abstractmethod
    def lease(self, ttl: float) -> Lease:
        """Ask for a lease of *ttl* seconds; what is granted may differ: read `Lease.ttl`.

        It is *not* renewed in the background: `smoothcluster.recipes.session` does that.
        Raise UnavailableError or OutcomeUnknownError; an unknown grant runs out by itself.
        """

    @abstractmethod
    def watch(self, path: str, notify: Callable[[], None], *, values: bool = True) -> Watch:
        """Call *notify* after changes of the key at *path*, or of any key directly under it.

        Wakes on creations, deletions and, unless *values* is false, changed values; may wake
        for nothing, may merge several changes into one call, never misses the last one, and
        lives through reconnects. Every change that a read made after this returned could still
        miss leads to a call, so arm first and read second. *notify* is called from the driver's
        thread: it must return at once and call nothing of the backend. While the store is away
        nothing is reported; on its return *notify* is called if anything may have been missed.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of connections and threads; leases not revoked run out. Repeatable."""

    def for_group(self, group: str) -> "CoordinationBackend":  # noqa: ARG002  # for those who override it
        """The part of the store in which *group* lies, named as the first segment of a key may be.

        No group touches another's keys, so a store that spreads over servers may keep each by itself. What is
        promised here holds in a part as it does in the whole, and nothing does across: keys, leases and versions
        of one part mean nothing in another, and hanging a key on a lease of another is ValueError. Whatever part
        one asks, and how often, a group's is the same object; they are clients all in one: closing any closes all.
        Stores that keep everything in one place need not override it.
        """
        return self

    def sync(self) -> None:
        """Make later reads through this object see every commit acknowledged before this call.

        Stores whose reads are never behind need not override it.
        """
        return

    def get(self, key: str) -> Entry | None:
        """Read one key; None if absent. Raise UnavailableError if the store could not be asked."""
        return self.get_many([key])[0]

    def list(self, directory: str) -> "list[Entry]":
        """Read the keys lying directly in *directory*, sorted by key.

        Keys that come or go meanwhile may or may not be among them. Stores that can do it in
        one step override it.
        """
        return [entry for entry in self.get_many(self.keys(directory)) if entry is not None]

    def commit_and_list(
        self, conditions: Sequence[Condition], changes: Sequence[Change], directory: str
    ) -> tuple[Committed | Refused, Sequence[Entry]]:
        """As `commit`, and whatever comes of it, then as `list` of *directory*, which sees it.

        Raise OutcomeUnknownError also if only the listing could not be had. Stores that can do
        both in one round trip override it.
        """
        outcome = self.commit(conditions, changes)
        try:
            return outcome, self.list(directory)
        except UnavailableError as error:
            raise OutcomeUnknownError(f"the commit was answered, and what lies there is not known: {error}") from error


@runtime_checkable
class HasHistory(Protocol):
    """The ability of a store that may lose its latest commits to say that it may just have."""

    @abstractmethod
    def history(self) -> str:
        """Which of its histories the store is in, in its own terms, for people and for comparing.

        It is another one whenever acknowledged commits may have been lost since it was asked last.
        Raise UnavailableError if the store could not be asked.
        """


@dataclass(frozen=True, slots=True)
class CommitSize:
    """How large a commit is, by one reckoning for all stores."""

    bytes: int
    operations: int


def commit_size(conditions: Sequence[Condition], changes: Sequence[Change]) -> CommitSize:
    """Reckon a commit: keys and values as they are, and a fixed sum for each operation."""
    size = sum(len(condition.key) + _OVERHEAD for condition in conditions)
    for change in changes:
        size += len(change.key) + _OVERHEAD
        if not isinstance(change, Delete):
            size += len(change.value)
    return CommitSize(size, len(conditions) + len(changes))


def check_commit(guarantees: Guarantees, conditions: Sequence[Condition], changes: Sequence[Change]) -> "Lease | None":
    """Refuse a commit that no store would take; return the one lease it hangs keys on, if any.

    Every adapter calls this first. Raise ValueError if it is malformed, CommitTooLargeError if
    it exceeds *guarantees*.
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
        raise CommitTooLargeError(f"commit of {size.bytes} bytes; the store takes {guarantees.largest_commit}")
    if size.operations > guarantees.most_operations:
        most = guarantees.most_operations
        raise CommitTooLargeError(f"commit of {size.operations} operations; the store takes {most}")
    leases: dict[str, Lease] = {}
    for change in changes:
        if not isinstance(change, Delete) and len(change.value) > guarantees.largest_value:
            largest = guarantees.largest_value
            raise CommitTooLargeError(f"{change.key!r}: value of {len(change.value)} bytes; the store takes {largest}")
        if isinstance(change, Create) and change.lease is not None:
            leases[change.lease.id] = change.lease
    if len(leases) > 1:
        raise ValueError("one commit can hang keys on one lease only")
    return next(iter(leases.values()), None)
