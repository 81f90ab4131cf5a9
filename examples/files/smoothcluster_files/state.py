"""Everything that the store holds at one moment, and how it changes. Knows of no file, lock or thread."""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from smoothcluster.backend import Change, Condition, Create, Delete, Entry, Exists, Update
from smoothcluster.errors import MisplacedKeyError

CAP = 0.5
"""Seconds by which the store's clock advances at most between two changes."""


@dataclass(slots=True)
class State:
    """All keys and leases, and the clock by which leases end.

    That clock follows the machine's, but by a cap at most: where everybody stood still for an hour,
    or nobody could write, no lease has lost more than that.
    """

    number: int = 0
    """Of the last change. The versions and `created` of what it made."""
    clock: float = 0.0
    machine: float = 0.0
    """What the machine's clock said when `clock` was set."""
    boot: str = ""
    """Which boot of the machine that clock counts from."""
    keys: dict[str, Entry] = field(default_factory=dict[str, Entry])
    leases: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    """When each ends, on `clock`, and its full time."""

    def copy(self) -> "State":
        """One that can be changed without changing this one."""
        return replace(self, keys=dict(self.keys), leases=dict(self.leases))

    # Reading.

    def is_directory(self, name: str) -> bool:
        """Whether keys lie under it."""
        return any(key.startswith(f"{name}/") for key in self.keys)

    def names(self, directory: str) -> list[str]:
        """The full names directly in it, of keys and of directories, sorted."""
        below = (key.removeprefix(f"{directory}/") for key in self.keys if key.startswith(f"{directory}/"))
        return sorted({f"{directory}/{rest.partition('/')[0]}" for rest in below})

    def print_of(self, path: str, *, values: bool) -> object:
        """What tells whether a watch of *path* is to wake: it differs if the key or one directly under it does."""
        found = (self.keys.get(name) for name in (path, *self.names(path)))
        marks = [(each.key, each.created, each.version if values else "") for each in found if each is not None]
        return (marks, self.names(path))

    # Changing.

    def pass_time(self, machine: float, boot: str) -> None:
        """Move the clock on, and end the leases that are due."""
        if boot != self.boot or machine < self.machine - 1.0:
            # Another boot: nobody can say how long ago. Every lease gets its full time again.
            self.leases = {each: (self.clock + full, full) for each, (_, full) in self.leases.items()}
        else:
            self.clock += min(max(0.0, machine - self.machine), CAP)
        self.machine, self.boot = machine, boot
        for lease in [each for each, (end, _) in self.leases.items() if end <= self.clock]:
            self.end(lease)

    def end(self, lease: str) -> None:
        """End a lease and its keys."""
        if self.leases.pop(lease, None) is not None:
            self.number += 1
            self.keys = {key: entry for key, entry in self.keys.items() if entry.lease != lease}

    def grant(self, lease: str, full: float) -> None:
        """Give it, or give it again, its full time."""
        self.leases[lease] = (self.clock + full, full)

    def refusal(self, parts: Iterable[Condition | Change]) -> str | None:
        """A key whose condition, spoken or implied by its change, does not hold; None if all do."""
        for part in parts:
            entry = self.keys.get(part.key)
            if isinstance(part, Create):
                holds = entry is None
            else:
                holds = entry is not None and (isinstance(part, Exists) or part.version in (None, entry.version))
            if not holds:
                return part.key
        return None

    def check_places(self, changes: Sequence[Change]) -> None:
        """Raise MisplacedKeyError if a created key would be a directory too, or lie under bytes."""
        created = {change.key for change in changes if isinstance(change, Create)}
        for key in created:
            if self.is_directory(key):
                raise MisplacedKeyError(key, "is a directory and cannot hold bytes")
            above = key.rpartition("/")[0]
            while above:
                if above in self.keys or above in created:
                    raise MisplacedKeyError(above, f"holds bytes and cannot be the directory of {key!r}")
                above = above.rpartition("/")[0]

    def apply(self, changes: Sequence[Change]) -> dict[str, str]:
        """Make the changes, whose conditions hold; the new versions."""
        self.number += 1
        version = str(self.number)
        for change in changes:
            match change:
                case Delete():
                    del self.keys[change.key]
                case Create():
                    lease = change.lease.id if change.lease else None
                    self.keys[change.key] = Entry(change.key, change.value, version, self.number, lease)
                case Update():
                    self.keys[change.key] = replace(self.keys[change.key], value=change.value, version=version)
        return {change.key: version for change in changes if not isinstance(change, Delete)}

    # As bytes.

    def to_bytes(self) -> bytes:
        """JSON, in which values are base64."""
        keys = {e.key: [base64.b64encode(e.value).decode(), e.version, e.created, e.lease] for e in self.keys.values()}
        head = {"number": self.number, "clock": self.clock, "machine": self.machine, "boot": self.boot}
        return json.dumps({**head, "keys": keys, "leases": self.leases}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "State":
        """Raise ValueError if that is not what `to_bytes` gives."""
        try:
            all_of_it: dict[str, Any] = json.loads(data)
            keys = {
                key: Entry(key, base64.b64decode(value), str(version), int(created), lease)
                for key, (value, version, created, lease) in all_of_it.pop("keys").items()
            }
            leases = {lease: (float(end), float(full)) for lease, (end, full) in all_of_it.pop("leases").items()}
            return cls(**all_of_it, keys=keys, leases=leases)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not a store's: {error!r:.80}") from None
