"""The state of the store and the changes of the state, without any file, lock or thread."""

import base64
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from smoothcluster.backend import Change, Condition, Create, Delete, Entry, Exists, Update
from smoothcluster.errors import MisplacedKeyError

CLOCK_STEP_CAP_SECONDS = 0.5
"""The most seconds by which the store's clock advances between two changes."""


@dataclass(slots=True)
class State:
    """All keys and leases, and the clock by which leases end.

    The store's clock follows the machine's clock, but advances by at most a cap per change. If all processes were
    paused for an hour, or no process could write, no lease loses more time than a cap.
    """

    number: int = 0
    """The number of the last change, which is also the version and `created` of the entries made there."""
    clock: float = 0.0
    machine: float = 0.0
    """The reading of the machine's clock when `clock` was set."""
    boot: str = ""
    """The id of the boot from which the machine's clock counts."""
    keys: dict[str, Entry] = field(default_factory=dict[str, Entry])
    leases: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    """For each lease, the end on `clock` and the full time."""
    renewed: dict[str, float] = field(default_factory=dict[str, float])
    """For each lease, the reading of the machine's clock at the last renewal, for people."""

    def copy(self) -> "State":
        """Return a copy, so that changes of the copy leave this state as before."""
        return replace(self, keys=dict(self.keys), leases=dict(self.leases), renewed=dict(self.renewed))

    # Reading.

    def is_directory(self, name: str) -> bool:
        """Whether keys lie under *name*."""
        return any(key.startswith(f"{name}/") for key in self.keys)

    def names(self, directory: str) -> list[str]:
        """Return the full names of the keys and directories directly in *directory*, sorted."""
        below = (key.removeprefix(f"{directory}/") for key in self.keys if key.startswith(f"{directory}/"))
        return sorted({f"{directory}/{rest.partition('/')[0]}" for rest in below})

    def print_of(self, path: str, *, values: bool) -> object:
        """Return a fingerprint for a watch of *path*, different after a change of the key or a key directly below."""
        found = (self.keys.get(name) for name in (path, *self.names(path)))
        marks = [(each.key, each.created, each.version if values else "") for each in found if each is not None]
        return (marks, self.names(path))

    def silent(self, leases: Iterable[str], machine: float, boot: str) -> frozenset[str]:
        """Return the ids among *leases* that were last renewed a lease's time before *machine*, or in another boot."""
        ages = {each: machine - self.renewed[each] for each in leases if each in self.leases}
        times = {each: self.leases[each][1] - 2 * CLOCK_STEP_CAP_SECONDS for each in ages}
        return frozenset(each for each, age in ages.items() if boot != self.boot or age >= times[each])

    # Changing.

    def pass_time(self, machine: float, boot: str) -> None:
        """Advance the clock, and end the leases that are due."""
        if boot != self.boot or machine < self.machine - 1.0:
            # Another boot: the time between is unknown. Every lease gets its full time again.
            self.leases = {each: (self.clock + full, full) for each, (_, full) in self.leases.items()}
            self.renewed = dict.fromkeys(self.leases, -math.inf)
        else:
            self.clock += min(max(0.0, machine - self.machine), CLOCK_STEP_CAP_SECONDS)
        self.machine, self.boot = machine, boot
        for lease in [each for each, (end, _) in self.leases.items() if end <= self.clock]:
            self.end(lease)

    def end(self, lease: str) -> None:
        """End a lease and delete the keys attached to the lease."""
        if self.leases.pop(lease, None) is not None:
            del self.renewed[lease]
            self.number += 1
            self.keys = {key: entry for key, entry in self.keys.items() if entry.lease != lease}

    def grant(self, lease: str, full: float) -> None:
        """Create a lease, or renew a lease, with the full time."""
        self.leases[lease] = (self.clock + full, full)
        self.renewed[lease] = self.machine

    def refusal(self, parts: Iterable[Condition | Change]) -> str | None:
        """Return a key with a condition, given or implied by a change, that does not hold; None if all hold."""
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
        """Raise MisplacedKeyError if a created key would also be a directory, or lie under a key with bytes."""
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
        """Make the changes, whose conditions must hold. Return the new versions by key."""
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
        """Return the state as JSON, with values in base64."""
        keys = {e.key: [base64.b64encode(e.value).decode(), e.version, e.created, e.lease] for e in self.keys.values()}
        head = {"number": self.number, "clock": self.clock, "machine": self.machine, "boot": self.boot}
        return json.dumps({**head, "keys": keys, "leases": self.leases, "renewed": self.renewed}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "State":
        """Read the state from the output of `to_bytes`. Raise ValueError if *data* is something else."""
        try:
            all_of_it: dict[str, Any] = json.loads(data)
            keys = {
                key: Entry(key, base64.b64decode(value), str(version), int(created), lease)
                for key, (value, version, created, lease) in all_of_it.pop("keys").items()
            }
            leases = {lease: (float(end), float(full)) for lease, (end, full) in all_of_it.pop("leases").items()}
            known = all_of_it.pop("renewed", {})  # An older version leaves none.
            renewed = {lease: float(known.get(lease, math.inf)) for lease in leases}
            return cls(**all_of_it, keys=keys, leases=leases, renewed=renewed)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not a store's: {error!r:.80}") from None
