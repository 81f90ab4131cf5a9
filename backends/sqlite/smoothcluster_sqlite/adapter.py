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
    HasHistory,
    Lease,
    Refused,
    StoreUsage,
    Watch,
    check_commit,
    check_key,
    check_watches,
)
from smoothcluster.clock import SYSTEM_CLOCK, Clock
from smoothcluster.errors import BackendError, LeaseLostError, MisplacedKeyError, UsageError
from smoothcluster.lifetime import SPAWN_ADVICE, ClientLifetime
from smoothcluster.timeline import numbered
from smoothcluster_sqlite.address import parse_url
from smoothcluster_sqlite.connection import FileConnection
from smoothcluster_sqlite.file import LARGEST_VALUE, StoreFile
from smoothcluster_sqlite.lease import SqliteLease
from smoothcluster_sqlite.reads import (
    Changes,
    ClockRow,
    read_changes,
    read_entries,
    read_entry,
    read_names,
    read_silent,
)
from smoothcluster_sqlite.transaction import (
    ACT_DONE,
    BOOT_ID,
    CLOCK_STEP_CAP_SECONDS,
    LEASE_GONE,
    Act,
    Part,
    Reading,
    WriteResult,
    prepare_commit,
    run_write,
)
from smoothcluster_sqlite.wakeups import unpublish_sockets, wakeup_sockets
from smoothcluster_sqlite.watches import Watches

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


class _OutdatedError(Exception):
    """The commit names a version from before a rollback."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


@final
class SqliteBackend(CoordinationBackend, HasHistory):
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
        self._lifetime = ClientLifetime(self, self.url, SPAWN_ADVICE)  # Also for new clients: see `StoreFile`.
        self._timeout = timeout
        self._clock = clock
        self._reads = FileConnection(self._file)
        self._commits = FileConnection(self._file, durable=True)
        # A connection for leases alone, so that a renewal never waits for a commit. Renewals need not wait for the disk
        # either: a lease does not outlive the machine.
        self._leases = FileConnection(self._file)
        self._watches = Watches(self._read_changes, self._publish_socket, self._lifetime)
        self._watched_era = 0
        """The era in which the watch thread last read the file: after a rollback every watch wakes."""

    @classmethod
    def from_url(cls, url: str, *, timeout: float = 5.0) -> "SqliteBackend":
        """Return the backend at ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``sqlite://`` (default)."""
        return cls(parse_url(url), timeout=timeout)

    @property
    def guarantees(self) -> Guarantees:
        return SQLITE_GUARANTEES

    @property
    def one_machine(self) -> bool:
        return True

    @property
    def url(self) -> str:
        return self._file.url

    # Reading.

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        wanted, since = [check_key(key) for key in keys], self._file.timeline.mark()
        read = self._reads.read if len(wanted) > 1 else self._reads.peek
        return read(lambda connection: [read_entry(connection, key, since) for key in wanted], self._deadline())

    def keys(self, directory: str) -> "list[str]":
        check_key(directory)
        read = self._reads.read
        return read(lambda connection: read_names(connection, directory, SQLITE_GUARANTEES), self._deadline())

    def list(self, directory: str) -> "list[Entry]":
        check_key(directory)
        since, read = self._file.timeline.mark(), self._reads.peek
        return read(lambda connection: read_entries(connection, directory, since, SQLITE_GUARANTEES), self._deadline())

    def silent_leases(self, leases: Sequence[str]) -> frozenset[str]:
        now = self._clock.since_boot()  # Before the read: a renewal after this line is no older than its time.
        return self._reads.read(lambda connection: read_silent(connection, leases, now), self._deadline())

    def usage(self) -> StoreUsage | None:
        return self._file.usage()

    # Changing.

    def commit(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        lease = check_commit(SQLITE_GUARANTEES, conditions, changes)
        since, parts = self._file.timeline.mark(), list[Part]()

        def prepare(connection: sqlite3.Connection) -> None:
            # Here, not earlier: another file at the path is noticed when the connection opens the file.
            outdated = self._file.timeline.outdated((*conditions, *changes))
            if outdated is not None:
                raise _OutdatedError(outdated)
            parts.extend(prepare_commit(connection, numbered(conditions), numbered(changes)))

        try:
            result = self._write(self._commits, "commit", None if lease is None else lease.id, prepare=prepare)
        except _OutdatedError as error:
            return Refused(error.key)
        if result.outcome == LEASE_GONE:
            raise LeaseLostError(f"lease {lease and lease.id} is gone")
        if result.outcome == ACT_DONE:
            version = since.version(result.number)
            return Committed({each.key: version for each in changes if not isinstance(each, Delete)})
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
        since = self._file.timeline.mark()
        # Each attempt reads the clocks anew: an old reading would make leases last longer.
        result = connection.write(
            lambda driver: run_write(driver, act, self._now(), lease, seconds),
            self._deadline() if deadline is None else deadline,
            prepare,
            lambda result: result.lasting,
        )
        # After the write: a process woken earlier would read the file as it was before.
        if result.number > since.position:
            self._wake_others()
        self._file.timeline.advance(result.number, since)
        return result

    def _now(self) -> Reading:
        return Reading(self._clock.monotonic(), self._clock.since_boot())

    # Leases and watches.

    def lease(self, ttl: float) -> Lease:
        if not ttl > 0:
            raise ValueError("the time of a lease must be positive")
        ttl = min(max(ttl, SQLITE_GUARANTEES.shortest_ttl), SQLITE_GUARANTEES.longest_ttl)
        lease = SqliteLease(secrets.token_hex(8), ttl, self.renew, self.revoke)
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
        self._lifetime.check()
        check_watches(SQLITE_GUARANTEES, self._watches.count)
        # Registered before the caller reads: the thread meets a commit after that read only later than this line, and
        # finds the watch.
        watch = self._watches.add(check_key(path), notify, values=values)
        self._watches.start()
        return watch

    def _look(self, since: int) -> tuple[ClockRow, Changes | None]:
        """Return the clock and the changes since commit *since*, and notice a rollback."""
        before, deadline = self._file.timeline.mark(), SYSTEM_CLOCK.monotonic() + self._timeout
        clock, changes = self._reads.peek(lambda connection: read_changes(connection, since), deadline)
        self._file.note_number(clock.number, clock.store, before)
        return clock, changes

    def _read_changes(self, since: int) -> tuple[int, Changes | None]:
        """Return the last commit's number and the changes since commit *since*. Advance the lease clock if need be."""
        clock, changes = self._look(since)
        # After a rollback the numbers have another meaning, and every watch wakes.
        era = self._file.timeline.mark().era
        if era != self._watched_era:
            self._watched_era, changes = era, None
        elapsed = self._clock.monotonic() - clock.seen
        if clock.leased and (clock.boot != BOOT_ID or not 0 <= elapsed < _CLOCK_REFRESH_SECONDS):
            # A process that is writing now moves the clock, too. Watchers must not wait for its lock.
            with suppress(BackendError):
                self._write(self._leases, "move", deadline=SYSTEM_CLOCK.monotonic())
        return clock.number, changes

    def _publish_socket(self) -> bool:
        """Publish the name of this backend's wake-up socket; return False if the file is locked.

        No renewal may wait for this write.
        """
        wakeup_socket = self._watches.wakeup_socket
        assert wakeup_socket is not None
        with suppress(BackendError):
            self._leases.write(wakeup_socket.publish, SYSTEM_CLOCK.monotonic())
            return True
        return False

    def _wake_others(self) -> None:
        """Wake the waiting processes after a change. Errors are ignored: the change itself has succeeded."""
        own, now = self._watches.wakeup_socket, SYSTEM_CLOCK.monotonic()
        with suppress(BackendError, OSError):
            gone = own.wake(self._reads.peek(wakeup_sockets, now + self._timeout)) if own else []
            if gone:
                self._leases.write(lambda connection: unpublish_sockets(connection, gone), now)

    def history(self) -> str:
        self._lifetime.check()
        self._look(self._file.timeline.position)
        return self._file.timeline.history

    def close(self) -> None:
        if self._lifetime.end():
            self._watches.close()
            for connection in (self._reads, self._leases, self._commits):
                connection.close(SYSTEM_CLOCK.monotonic() + self._timeout)

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self._lifetime.on_close(callback)

    def _deadline(self) -> float:
        """Return the deadline of a call that begins now; raise UsageError or BackendClosedError if none may begin."""
        self._lifetime.check()
        # The caller may be waiting for a lease to expire, and the thread of the watches advances the lease clock.
        self._watches.start()
        return SYSTEM_CLOCK.monotonic() + self._timeout
