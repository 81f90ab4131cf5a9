"""Read keys and directories in steps, each a run of the script that the server can afford to wait for.

A step of a listing answers with about a thousand names, from the cursor in the answer to the step before (Redis's
SSCAN), and with values until they have about a megabyte; the other values of the step are read by name. Redis promises
for the steps together: a name present from the first step to the last is in an answer, perhaps in two. A name that
comes or goes meanwhile may or may not be. A cursor means nothing to another server process, so a listing begins again
if the history has changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, final

from smoothcluster.backend import Entry, Guarantees, check_directory
from smoothcluster.errors import UnavailableError
from smoothcluster_redis.servers import Servers

_KEYS_PER_STEP = 1000
"""Most keys to ask for by name in one run of the script."""

Answer = Sequence[bytes]
"""An answer of the script: a text, and values."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A step of a listing."""

    cursor: str
    """Where the next step begins; 0 after the last step."""
    history: str
    keys: list[str]
    marks: str
    values: Sequence[bytes]

    @classmethod
    def parse(cls, directory: str, answer: Answer) -> Self:
        """Decode *answer*."""
        cursor, names, history, *marks = answer[0].decode().split("\n")
        keys = [f"{directory}/{name}" for name in names.split()]
        return cls(cursor, history, keys, "".join(marks), answer[1:])


@final
class Reads:
    """The reads of a part of the store, each call until a *deadline*."""

    def __init__(self, servers: Servers, guarantees: Guarantees) -> None:
        self._servers, self._guarantees = servers, guarantees

    def entries(self, keys: Sequence[str], deadline: float) -> list[Entry | None]:
        """Return the entry of each of *keys*, None for an absent key."""
        return self._read(keys, deadline)[0]

    def _read(self, keys: Sequence[str], deadline: float) -> tuple[list[Entry | None], set[str]]:
        """Return the entry of each of *keys*, and all histories of the store in the answers."""
        entries: list[Entry | None] = []
        histories: set[str] = set()
        while len(entries) < len(keys):
            wanted = keys[len(entries) : len(entries) + _KEYS_PER_STEP]
            head, *values = self._servers.run("get", wanted, deadline=deadline)
            history, marks = head.decode().split("\n")
            entries += _entries(wanted, history, marks, values)
            histories.add(history)
        return entries, histories

    def names(self, directory: str, deadline: float) -> list[str]:
        """Return the full names in *directory*, sorted."""
        steps = self._steps("keys", directory, deadline)
        return sorted({key for step in steps for key in step.keys})

    def entries_in(self, directory: str, deadline: float, first: Answer = ()) -> list[Entry]:
        """Return the entries of the keys directly in *directory*, sorted by key. *first* answers the first step."""
        found: dict[str, Entry] = {}
        for step in self._steps("list", directory, deadline, first):
            entries = _entries(step.keys, step.history, step.marks, step.values)
            others, histories = self._read(step.keys[len(entries) :], deadline)
            if histories - {step.history}:
                return self.entries_in(directory, deadline)
            found |= {entry.key: entry for entry in (*entries, *others) if entry is not None}
        return [found[key] for key in sorted(found)]

    def silent_leases(self, leases: Sequence[str], deadline: float) -> frozenset[str]:
        """Return the ids among *leases* without a renewal for their time, by the server's clock."""
        parts = [leases[start : start + _KEYS_PER_STEP] for start in range(0, len(leases), _KEYS_PER_STEP)]
        answers = [self._servers.run("silent", part, deadline=deadline) for part in parts]
        return frozenset(lease.decode() for answer in answers for lease in answer)

    def _steps(self, act: str, directory: str, deadline: float, first: Answer = ()) -> list[_Step]:
        """Return all steps of a listing, in one history of the store."""
        steps: list[_Step] = []
        names: set[str] = set()
        while True:
            cursor = steps[-1].cursor if steps else "0"
            answer = first or self._servers.run(act, [directory, cursor], deadline=deadline)
            first = ()
            step = _Step.parse(directory, answer)
            if steps and step.history != steps[0].history:
                steps.clear()
                names.clear()
                continue
            steps.append(step)
            names.update(step.keys)
            check_directory(self._guarantees, directory, len(names))
            if step.cursor == "0":
                return steps


def _entries(keys: Sequence[str], history: str, marks: str, values: Sequence[bytes]) -> list[Entry | None]:
    """Decode a read of the first of *keys*, as many as there are values: a mark is empty for an absent key."""
    try:
        return [
            _entry(key, mark, value, history) if mark else None
            for key, mark, value in zip(keys[: len(values)], marks.split(",") if values else (), values, strict=True)
        ]
    except (TypeError, ValueError) as error:
        raise UnavailableError(f"the store holds data that smoothcluster did not write: {error}") from None


def _entry(key: str, mark: str, value: bytes | None, history: str) -> Entry:
    if value is None:
        raise UnavailableError(
            f"Redis has lost the value of {key}: the server evicted keys (set maxmemory-policy noeviction), or another"
            " program deleted them; delete the other keys of the group, too, and submit the jobs again"
        )
    number, created, lease = mark.split(" ")
    return Entry(key, value, f"{number}-{history}", int(created), lease or None)
