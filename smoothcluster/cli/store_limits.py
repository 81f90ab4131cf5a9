"""Probe the real limits of a store: the largest value, the largest commit, and the most operations in a commit.

The configuration of a server may be smaller than the `guarantees`, which adapters cannot read from every server. So
commits of the promised size are tried. Where the store takes none, the largest accepted size is searched.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from smoothcluster.backend import Change, Committed, CoordinationBackend, Create, Delete, Guarantees, commit_size
from smoothcluster.cli.common import STORE_RETRY_SECONDS
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import BackendClosedError, BackendError, CommitTooLargeError
from smoothcluster.retry import patiently

ATTEMPTS_PER_SIZE = 2
"""Attempts at a commit until the store counts as refusing the size: an attempt may meet a failure of the network."""

SEARCH_STEPS = 64
"""The search for the largest accepted size ends at this part of the promised size."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of a store."""

    name: str
    """The name in `Guarantees`."""
    promised: int
    found: int
    """The largest accepted size: the promised size, if accepted."""
    said: str | None = None
    """The error of the store at the promised size; None if accepted."""

    @property
    def lower(self) -> bool:
        """Whether the store takes less than promised."""
        return self.found < self.promised


def probe_limits(backend: CoordinationBackend, promised: Guarantees) -> list[Limit]:
    """Try commits of each promised size under keys unknown to other clients, and remove the keys again."""
    probe = _Probe(backend, promised)
    return [
        probe.limit("largest_value", promised.largest_value, probe.value),
        probe.limit("largest_commit", promised.largest_commit, probe.values),
        probe.limit("most_operations", promised.most_operations, probe.operations),
    ]


@final
class _Probe:
    def __init__(self, backend: CoordinationBackend, promised: Guarantees) -> None:
        self._backend, self._promised = backend, promised
        self._said: str | None = None

    def limit(self, name: str, promised: int, changes: Callable[[str, int], list[Change]]) -> Limit:
        """Find the limit called *name*; *changes* makes the changes of a commit of a size, in a directory."""
        self._said = None
        if self._accepts(changes, promised):
            return Limit(name, promised, promised)
        said, least, most = self._said, 0, promised
        while most - least > max(1, promised // SEARCH_STEPS):
            middle = (least + most) // 2
            least, most = (middle, most) if self._accepts(changes, middle) else (least, middle)
        return Limit(name, promised, least, said)

    def value(self, directory: str, size: int) -> list[Change]:
        """One value of so many bytes, or as many as fit into a commit."""
        key = f"{directory}/0"
        return [Create(key, b"x" * max(0, min(size, self._promised.largest_commit - _overhead(key))))]

    def values(self, directory: str, size: int) -> list[Change]:
        """A commit of so many bytes, with as few values as possible."""
        changes: list[Change] = []
        while size > 0 or not changes:
            key = f"{directory}/{len(changes)}"
            value = b"x" * max(0, min(size - _overhead(key), self._promised.largest_value))
            changes.append(Create(key, value))
            size -= _overhead(key) + len(value)
        # A rest smaller than an operation: the last value becomes smaller.
        return changes[:-1] if size < 0 and len(changes) > 1 else changes

    def operations(self, directory: str, size: int) -> list[Change]:
        """A commit of so many operations."""
        return [Create(f"{directory}/{number}", b"") for number in range(max(1, size))]

    def _accepts(self, changes: Callable[[str, int], list[Change]], size: int) -> bool:
        for _ in range(ATTEMPTS_PER_SIZE):
            directory = f"doctor-{secrets.token_hex(8)}"
            try:
                if self._takes(directory, changes(directory, size)):
                    return True
            except CommitTooLargeError as error:  # For certain; a second attempt would find the adapter's own limits.
                self._said = self._said or str(error)
                break
        return False

    def _takes(self, directory: str, changes: Sequence[Change]) -> bool:
        try:
            taken = isinstance(self._backend.commit([], changes), Committed)
        except (BackendClosedError, CommitTooLargeError):
            raise
        except BackendError as error:
            self._said = self._said or str(error)
            taken = False
        # The store must answer, or there is an outage. A commit without an answer may have arrived nevertheless.
        keys = patiently(SYSTEM_CLOCK, STORE_RETRY_SECONDS, lambda: self._synced_keys(directory))
        portion = max(1, len(changes) // 2)  # Half of what the store has taken.
        for start in range(0, len(keys), portion):
            self._backend.commit([], [Delete(key) for key in keys[start : start + portion]])
        return taken

    def _synced_keys(self, directory: str) -> list[str]:
        self._backend.sync()
        return self._backend.keys(directory)


def _overhead(key: str) -> int:
    return commit_size([], [Delete(key)]).bytes
