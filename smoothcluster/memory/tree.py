"""Keys and directories in memory: no leases, no time, no locks.

The tree knows which commits the contract allows. A key holds bytes or is a directory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from smoothcluster.backend import Change, Condition, Create, Entry, Exists
from smoothcluster.errors import MisplacedKeyError


def parent(key: str) -> str:
    """The directory directly above *key*; the empty string if there is none."""
    return key.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Applied:
    """A step of a store's history: a commit, or the end of a lease with the lease's keys."""

    number: int
    """The number of the step, in order; `Entry.created` of the keys created in the step."""
    changes: tuple[Change, ...]
    """Changes of the commit; empty if a lease ended."""
    before: Mapping[str, Entry | None]
    """Every changed key, as before the step."""
    after: Mapping[str, Entry | None]
    """The same keys, as after the step."""
    lease: str | None
    """Id of the lease that ran out or was given back; None for a commit."""


@final
class Tree:
    """The keys of a store at one moment of the store's history."""

    __slots__ = ("_directories", "entries")

    def __init__(self, entries: Mapping[str, Entry] | None = None) -> None:
        self.entries: dict[str, Entry] = {}
        """Every key, for reading: only `set` changes the entries."""
        self._directories: dict[str, dict[str, None]] = {}
        for key, entry in (entries or {}).items():
            self.set(key, entry)

    def names(self, directory: str) -> list[str]:
        """The full names directly in *directory*, of keys and of directories, sorted."""
        return sorted(self._directories.get(directory, ()))

    def list(self, directory: str) -> "list[Entry]":
        """The keys directly in *directory*, sorted."""
        return [self.entries[name] for name in self.names(directory) if name in self.entries]

    def set(self, key: str, entry: Entry | None) -> None:
        """Put *entry* at *key*, or remove the present entry if *entry* is None."""
        if entry is None:
            del self.entries[key]
            self._unlink(key)
        else:
            if key not in self.entries:
                self._link(key)
            self.entries[key] = entry

    def refusal(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> str | None:
        """A key with a failed condition, explicit or implied by a change; None if all conditions hold."""
        for part in (*conditions, *changes):
            entry = self.entries.get(part.key)
            if isinstance(part, Create):
                holds = entry is None
            elif isinstance(part, Exists):
                holds = entry is not None
            else:
                holds = entry is not None and part.version in (None, entry.version)
            if not holds:
                return part.key
        return None

    def check_places(self, changes: Sequence[Change]) -> None:
        """Raise MisplacedKeyError if a created key would be a directory too, or lie under bytes."""
        created = {change.key for change in changes if isinstance(change, Create)}
        for key in created:
            if key in self._directories:
                raise MisplacedKeyError(key, "is a directory and cannot hold bytes")
            above = parent(key)
            while above and above not in self._directories:
                if above in self.entries or above in created:
                    raise MisplacedKeyError(above, f"holds bytes and cannot be the directory of {key!r}")
                above = parent(above)

    def _link(self, name: str) -> None:
        while name:
            above = parent(name)
            siblings = self._directories.get(above)
            if siblings is not None:
                siblings[name] = None
                return
            self._directories[above] = {name: None}
            name = above

    def _unlink(self, name: str) -> None:
        while name:
            above = parent(name)
            siblings = self._directories[above]
            del siblings[name]
            if siblings:
                return
            del self._directories[above]
            name = above
