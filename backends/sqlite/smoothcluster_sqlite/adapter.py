"""A sqlite file as a `CoordinationBackend`, for all processes of a machine."""

import secrets
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import final

from smoothcluster.backend import (
    Change,
    Committed,
    Condition,
    CoordinationBackend,
    Delete,
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
from smoothcluster.clock import SYSTEM_CLOCK, Clock
from smoothcluster.errors import BackendError, LeaseLostError, MisplacedKeyError, UsageError
from smoothcluster_sqlite.address import parse_url
from smoothcluster_sqlite.connection import FileConnection
from smoothcluster_sqlite.file import LARGEST_VALUE, StoreFile
from smoothcluster_sqlite.transaction import (
    ACT_DONE,
    BOOT_ID,
    CLOCK_STEP_CAP_SECONDS,
    COMMITS_KEPT,
    LEASE_GONE,
    Act,
    Part,
    WriteResult,
    prepare_commit,
    run_write,
    split_key,
)
from smoothcluster_sqlite.wakeups import unpublish_sockets, wakeup_sockets
from smoothcluster_sqlite.watches import Changes, Watches

SQLITE_GUARANTEES = Guarantees(
    linearizable_writes=True,
    survives_failover=True,
    unique_versions=True,
    shortest_ttl=2 * CLOCK_STEP_CAP_SECONDS,
    longest_ttl=86_400.0,
    ttl_step=0.0,
    largest_value=LARGEST_VALUE,
    largest_commit=2_000_000,
    most_operations=512,
)


_CLOCK_REFRESH_SECONDS = 0.4 * CLOCK_STEP_CAP_SECONDS
"""Seconds after which a process that looks at the file advances the lease clock."""


@final
class SqliteBackend(CoordinationBackend):
    """A backend on the sqlite file at *path*. The default is a file of this user.

    The first use creates a missing file. No call waits longer than *timeout* seconds for other processes.
    *clock* measures the time of leases. All processes must use the same clock, so outside of tests only
    the machine's own clock makes sense.
    """

    def __init__(self, path: str | Path | None = None, *, timeout: float = 5.0, clock: Clock = SYSTEM_CLOCK) -> None:
        if timeout <= 0:
            raise UsageError("sqlite: timeout must be positive")
        if str(path) == ":memory:":
            raise UsageError("sqlite: processes cannot share ':memory:'; use memory:// within a single process")
        self._file = StoreFile(None if path is None else Path(path))
        self._timeout = timeout
        self._clock = clock
        self._reads = FileConnection(self._file)
        self._commits = FileConnection(self._file, durable=True)
        # A connection for leases alone, so that a renewal never waits for a commit. Renewals need not wait for the disk
        # either: a lease does not outlive the machine.
        self._leases = FileConnection(self._file)
        self._watches = Watches(self._read_changes, self._publish_socket)

    @classmethod
    def from_url(cls, url: str, *, timeout: float = 5.0) -> "SqliteBackend":
        """Return the backend at ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``sqlite://`` (default)."""
        return cls(parse_url(url), timeout=timeout)

    @property
    def guarantees(self) -> Guarantees:
        return SQLITE_GUARANTEES

    @property
    def url(self) -> str:
        return self._file.url

    # Reading.

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        wanted = [check_key(key) for key in keys]
        read = self._reads.read if len(wanted) > 1 else self._reads.peek
        return read(lambda connection: [_entry(connection, key) for key in wanted], self._deadline())

    def keys(self, directory: str) -> "list[str]":
        check_key(directory)
        names = self._reads.read(lambda connection: _names(connection, directory), self._deadline())
        check_directory(SQLITE_GUARANTEES, directory, len(names))
        return names

    def list(self, directory: str) -> "list[Entry]":
        check_key(directory)
        wanted = "SELECT name, value, version, created, lease FROM entries WHERE directory = ? ORDER BY name LIMIT ?"

        def read(connection: sqlite3.Connection) -> "list[Entry]":
            rows = connection.execute(wanted, (directory, SQLITE_GUARANTEES.largest_directory + 1))
            entries = [Entry(f"{directory}/{row[0]}", row[1], str(row[2]), row[3], row[4]) for row in rows]
            check_directory(SQLITE_GUARANTEES, directory, len(entries))
            return entries

        return self._reads.peek(read, self._deadline())

    # Changing.

    def commit(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        lease = check_commit(SQLITE_GUARANTEES, conditions, changes)
        parts: list[Part] = []
        result = self._write(
            self._commits,
            "commit",
            None if lease is None else lease.id,
            prepare=lambda connection: parts.extend(prepare_commit(connection, conditions, changes)),
        )
        if result.outcome == LEASE_GONE:
            raise LeaseLostError(f"lease {lease and lease.id} is gone")
        if result.outcome == ACT_DONE:
            return Committed({each.key: str(result.number) for each in changes if not isinstance(each, Delete)})
        act, key = parts[result.outcome - 1][:2]
        if act == "below":
            raise MisplacedKeyError(key, "is a directory and cannot hold bytes")
        if act == "above":
            raise MisplacedKeyError(key, "holds bytes and cannot be a directory")
        return Refused(key)

    def _write(
        self,
        connection: FileConnection,
        act: Act,
        lease: str | None = None,
        seconds: float | None = None,
        *,
        prepare: Callable[[sqlite3.Connection], object] | None = None,
        deadline: float | None = None,
    ) -> WriteResult:
        # Each attempt reads the clock anew: an old reading would make leases last longer.
        result = connection.write(
            lambda driver: run_write(driver, act, self._clock.monotonic(), lease, seconds),
            self._deadline() if deadline is None else deadline,
            prepare,
            lambda result: result.lasting,
        )
        # After the write: a process woken earlier would read the file as it was before.
        if result.number > self._file.number:
            self._file.number = result.number
            self._wake_others()
        return result

    # Leases and watches.

    def lease(self, ttl: float) -> Lease:
        if not ttl > 0:
            raise ValueError("the time of a lease must be positive")
        ttl = min(max(ttl, SQLITE_GUARANTEES.shortest_ttl), SQLITE_GUARANTEES.longest_ttl)
        lease = SqliteLease(self, secrets.token_hex(8), ttl)
        # Two jumps of the machine's clock, of a cap each, may fall into the time of the lease.
        self._write(self._leases, "grant", lease.id, ttl + 2 * CLOCK_STEP_CAP_SECONDS)
        return lease

    def renew(self, lease: str) -> bool:
        """Start a lease's full time again. Return False if the lease is gone."""
        return self._write(self._leases, "renew", lease).outcome == ACT_DONE

    def revoke(self, lease: str) -> None:
        """End a lease now, and delete the keys attached to the lease."""
        self._write(self._leases, "revoke", lease)

    def watch(self, path: str, notify: Callable[[], None], *, values: bool = True) -> Watch:
        check_watches(SQLITE_GUARANTEES, self._watches.count)
        # Registered before the caller reads: the thread meets a commit after that read only later than this line, and
        # finds the watch.
        watch = self._watches.add(check_key(path), notify, values=values)
        self._watches.start()
        return watch

    def _read_changes(self, since: int) -> tuple[int, Changes | None]:
        """Return the last commit's number and the changes since commit *since*. Advance the lease clock if need be."""

        def read(connection: sqlite3.Connection) -> tuple[int, Changes | None, bool]:
            number, seen, boot, leased = connection.execute(
                "SELECT number, seen, boot, EXISTS (SELECT 1 FROM leases) FROM clock"
            ).fetchone()
            behind = leased and (boot != BOOT_ID or not 0 <= self._clock.monotonic() - seen < _CLOCK_REFRESH_SECONDS)
            if since == number:
                return number, (), behind
            if not number - COMMITS_KEPT <= since < number:
                return number, None, behind
            wanted = "SELECT key, came_or_went FROM changes WHERE number > ?"
            return number, connection.execute(wanted, (since,)).fetchall(), behind

        number, changes, behind = self._reads.peek(read, SYSTEM_CLOCK.monotonic() + self._timeout)
        if behind:
            # A process that is writing now moves the clock, too. Watchers must not wait for its lock.
            with suppress(BackendError):
                self._write(self._leases, "move", deadline=SYSTEM_CLOCK.monotonic())
        return number, changes

    def _publish_socket(self) -> bool:
        """Publish the name of this backend's wake-up socket; return False if the file is locked.

        No renewal may wait for this write.
        """
        wakeup_socket = self._watches.wakeup_socket
        assert wakeup_socket is not None
        try:
            self._leases.write(wakeup_socket.publish, SYSTEM_CLOCK.monotonic())
        except BackendError:
            return False
        return True

    def _wake_others(self) -> None:
        """Wake the waiting processes after a change. Errors are ignored: the change itself has succeeded."""
        own, now = self._watches.wakeup_socket, SYSTEM_CLOCK.monotonic()
        with suppress(BackendError, OSError):
            gone = own.wake(self._reads.peek(wakeup_sockets, now + self._timeout)) if own else []
            if gone:
                self._leases.write(lambda connection: unpublish_sockets(connection, gone), now)

    def close(self) -> None:
        self._watches.close()
        for connection in (self._reads, self._leases, self._commits):
            connection.close(SYSTEM_CLOCK.monotonic() + self._timeout)

    def _deadline(self) -> float:
        # The caller may be waiting for a lease to expire, and the thread of the watches advances the lease clock.
        self._watches.start()
        return SYSTEM_CLOCK.monotonic() + self._timeout


@final
class SqliteLease(Lease):
    """A lease in the sqlite file."""

    def __init__(self, backend: SqliteBackend, lease: str, ttl: float) -> None:
        self._backend = backend
        self._id = lease
        self._ttl = ttl

    @property
    def id(self) -> str:
        return self._id

    @property
    def ttl(self) -> float:
        return self._ttl

    def renew(self) -> bool:
        return self._backend.renew(self._id)

    def revoke(self) -> None:
        self._backend.revoke(self._id)


def _entry(connection: sqlite3.Connection, key: str) -> Entry | None:
    row = connection.execute(
        "SELECT value, version, created, lease FROM entries WHERE directory = ? AND name = ?", split_key(key)
    ).fetchone()
    return None if row is None else Entry(key, row[0], str(row[1]), row[2], row[3])


def _names(connection: sqlite3.Connection, directory: str) -> list[str]:
    """Return the full names of the keys and of the directories that lie directly in *directory*, sorted."""
    rows = connection.execute("SELECT name FROM entries WHERE directory = ?", (directory,))
    names = {f"{directory}/{name}" for (name,) in rows}
    # Skip from each subdirectory to the next, without a walk through the keys inside.
    after, end = f"{directory}/", f"{directory}0"  # "0" is the character after "/".
    while True:
        (found,) = connection.execute(
            "SELECT min(directory) FROM entries WHERE directory > ? AND directory < ?", (after, end)
        ).fetchone()
        if found is None:
            return sorted(names)
        name = f"{directory}/{found[len(directory) + 1 :].partition('/')[0]}"
        names.add(name)
        # The directories below `name` are contiguous, but come after names that continue with "-" or ".".
        after = name if found == name else f"{name}/\U0010ffff"
