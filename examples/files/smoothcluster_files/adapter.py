"""A folder as a `CoordinationBackend`."""

import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, final
from urllib.parse import unquote

from smoothcluster.backend import (
    Change,
    Committed,
    Condition,
    CoordinationBackend,
    Entry,
    Guarantees,
    Lease,
    Refused,
    Watch,
    check_commit,
    check_directory,
    check_key,
    check_watches,
)
from smoothcluster.errors import LeaseLostError, OutcomeUnknownError, UsageError
from smoothcluster.lifetime import ClientLifetime
from smoothcluster_files.folder import Folder
from smoothcluster_files.state import CLOCK_STEP_CAP_SECONDS, State
from smoothcluster_files.watches import Watches

_FILES_GUARANTEES: Final = Guarantees(
    linearizable_writes=True,
    survives_failover=True,
    unique_versions=True,
    shortest_ttl=0.5,
    longest_ttl=86_400.0,
    ttl_step=0.0,
    largest_value=900_000,
    largest_commit=1_000_000,
    most_operations=1000,
)


@final
class FilesLease(Lease):
    """A lease, kept in the store two caps longer than the time told to the holder: see `state`."""

    def __init__(self, folder: Folder, ttl: float) -> None:
        self._folder, self._ttl, self._id = folder, ttl, uuid.uuid4().hex
        folder.change(lambda state: state.grant(self._id, ttl + 2 * CLOCK_STEP_CAP_SECONDS), OutcomeUnknownError)

    @property
    def id(self) -> str:
        return self._id

    @property
    def ttl(self) -> float:
        return self._ttl

    def renew(self) -> bool:
        def act(state: State) -> bool:
            lives = self._id in state.leases
            if lives:
                state.grant(self._id, self._ttl + 2 * CLOCK_STEP_CAP_SECONDS)
            return lives

        return self._folder.change(act, OutcomeUnknownError)

    def revoke(self) -> None:
        self._folder.change(lambda state: state.end(self._id), OutcomeUnknownError)


@final
class FilesBackend(CoordinationBackend):
    """A backend on *folder*, created on first use. No call blocks for longer than *timeout* seconds."""

    def __init__(self, folder: str | os.PathLike[str], *, timeout: float = 5.0) -> None:
        if not timeout > 0:
            raise UsageError("files: timeout must be positive")
        path = Path(folder).absolute()
        self._lifetime = ClientLifetime(self, str(path))
        self._folder = Folder(path, timeout, self._lifetime)
        self._watches = Watches(self._folder)

    @classmethod
    def from_url(cls, url: str, *, timeout: float = 5.0) -> "FilesBackend":
        """Return the backend at ``files:///absolute/folder``."""
        path = url.removeprefix("files://")
        # The error does not repeat the URL, which may hold a password meant for another store.
        if not path.startswith("/") or not path.strip("/") or "?" in path or "#" in path:
            raise UsageError("the URL names no folder: use files:///absolute/folder")
        return cls(unquote(path), timeout=timeout)

    @property
    def guarantees(self) -> Guarantees:
        return _FILES_GUARANTEES

    @property
    def one_machine(self) -> bool:
        return True

    @property
    def url(self) -> str:
        return self._folder.path.as_uri().replace("file:", "files:", 1)

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        state = self._folder.read()
        return [state.keys.get(check_key(key)) for key in keys]

    def keys(self, directory: str) -> list[str]:
        names = self._folder.read().names(check_key(directory))
        check_directory(_FILES_GUARANTEES, directory, len(names))
        return names

    def silent_leases(self, leases: Sequence[str]) -> frozenset[str]:
        return self._folder.silent(leases)

    def commit(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        lease = check_commit(_FILES_GUARANTEES, conditions, changes)

        def act(state: State) -> Committed | Refused:
            if lease is not None and lease.id not in state.leases:
                raise LeaseLostError(f"lease {lease.id} is gone")
            failed = state.refusal([*conditions, *changes])
            if failed is not None:
                return Refused(failed)
            state.check_places(changes)
            return Committed(state.apply(changes))

        return self._folder.change(act, OutcomeUnknownError)

    def lease(self, ttl: float) -> Lease:
        if not ttl > 0:
            raise ValueError("a lease takes a positive time")
        return FilesLease(self._folder, min(max(ttl, _FILES_GUARANTEES.shortest_ttl), _FILES_GUARANTEES.longest_ttl))

    def watch(self, path: str, notify: Callable[[], None], *, values: bool = True) -> Watch:
        check_watches(_FILES_GUARANTEES, self._watches.count)
        return self._watches.add(path, notify, values=values)

    def close(self) -> None:
        if self._lifetime.end():
            self._watches.close()

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self._lifetime.on_close(callback)
