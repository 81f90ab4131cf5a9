"""One write transaction: the lease clock is moved on first, then something is done in its time.

The file keeps a clock of its own for leases. It follows the machine's monotonic one, which all
processes share and which stands still while the machine sleeps, but advances by at most `CAP`
between two transactions. So it never runs ahead of any holder's, and time in which nobody
could write, because a process was paused in the middle of it or the disk stood still, hardly counts.
If the machine's clock is another one than before, after a reboot, every lease gets its full time again.
"""

import sqlite3
from pathlib import Path
from typing import final

from smoothcluster.backend import AtVersion, Change, Condition, Create, Delete, Entry, Exists, Update

CAP = 0.25
"""Seconds by which the lease clock advances at most between two transactions."""

KEPT = 1000
"""Of how many commits it is kept which keys they changed, for watchers."""

BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def split(key: str) -> tuple[str, str]:
    """The directory that *key* lies in, empty if in none, and its name there."""
    directory, _, name = key.rpartition("/")
    return directory, name


def read_entry(connection: sqlite3.Connection, key: str) -> Entry | None:
    """The key as it is."""
    row = connection.execute(
        "SELECT value, version, created, lease FROM entries WHERE directory = ? AND name = ?", split(key)
    ).fetchone()
    return None if row is None else Entry(key, row[0], str(row[1]), row[2], row[3])


@final
class Turn:
    """What one write transaction does, at *now* on the machine's clock. End it with `finish`."""

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self._sql = connection.execute
        number, self._time, seen, boot = self._sql("SELECT number, time, seen, boot FROM clock").fetchone()
        self.number: int = number + 1
        """Of this commit, if it turns out to change anything."""
        self._changed: dict[str, bool] = {}
        if boot != BOOT or now < seen:
            self._sql("UPDATE leases SET expires = granted + ?", (self._time,))
        else:
            self._time += min(now - seen, CAP)
        self._now = now

    def finish(self) -> None:
        """Keep the time, and what was changed."""
        number = self.number - (not self._changed)
        self._sql("UPDATE clock SET number = ?, time = ?, seen = ?, boot = ?", (number, self._time, self._now, BOOT))
        if self._changed:
            self._sql("DELETE FROM changes WHERE number <= ?", (number - KEPT,))
            for key, came_or_went in self._changed.items():
                self._sql("INSERT INTO changes VALUES (?, ?, ?)", (number, key, came_or_went))

    # Leases

    def grant(self, lease: str, seconds: float) -> None:
        """Make a lease."""
        self._sql("INSERT INTO leases VALUES (?, ?, ?)", (lease, seconds, self._time + seconds))

    def renew(self, lease: str) -> bool:
        """Start its full time again; False if it is gone. One that is due and still there is renewed."""
        return self._sql("UPDATE leases SET expires = granted + ? WHERE id = ?", (self._time, lease)).rowcount == 1

    def lives(self, lease: str) -> bool:
        """Whether a lease is there."""
        return self._sql("SELECT 1 FROM leases WHERE id = ?", (lease,)).fetchone() is not None

    def expire(self) -> None:
        """End the leases that are due."""
        for (lease,) in self._sql("SELECT id FROM leases WHERE expires <= ?", (self._time,)).fetchall():
            self.end(lease)

    def end(self, lease: str) -> None:
        """End a lease and its keys; nothing if it is gone."""
        for directory, name in self._sql("SELECT directory, name FROM entries WHERE lease = ?", (lease,)):
            self._changed[f"{directory}/{name}" if directory else name] = True
        self._sql("DELETE FROM entries WHERE lease = ?", (lease,))
        self._sql("DELETE FROM leases WHERE id = ?", (lease,))

    # Keys

    def holds(self, part: Condition | Change) -> bool:
        """Whether a condition holds, spoken or implied by a change."""
        row = self._sql("SELECT version FROM entries WHERE directory = ? AND name = ?", split(part.key)).fetchone()
        match part:
            case Create():
                return row is None
            case Exists():
                return row is not None
            case AtVersion():
                return row is not None and str(row[0]) == part.version
            case _:
                return row is not None and part.version in (None, str(row[0]))

    def change(self, part: Change) -> None:
        """Make a change whose condition holds. Raise ValueError if a key would be a directory, too."""
        directory, name = split(part.key)
        if isinstance(part, Create):
            self._check_place(part.key, directory)
            lease = None if part.lease is None else part.lease.id
            values = (directory, name, part.value, self.number, self.number, lease)
            self._sql("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", values)
        elif isinstance(part, Delete):
            self._sql("DELETE FROM entries WHERE directory = ? AND name = ?", (directory, name))
        else:
            values = (part.value, self.number, directory, name)
            self._sql("UPDATE entries SET value = ?, version = ? WHERE directory = ? AND name = ?", values)
        self._changed[part.key] = not isinstance(part, Update)

    def _check_place(self, key: str, directory: str) -> None:
        below = "SELECT 1 FROM entries WHERE directory = ? OR (directory > ? AND directory < ?) LIMIT 1"
        # What lies below "a" begins with "a/", and "0" is the character after "/".
        if self._sql(below, (key, f"{key}/", f"{key}0")).fetchone():
            raise ValueError(f"{key!r} is a directory and cannot hold bytes")
        # A directory that something lies in was looked at when that was made.
        if self._sql("SELECT 1 FROM entries WHERE directory = ? LIMIT 1", (directory,)).fetchone():
            return
        while directory:
            if self._sql("SELECT 1 FROM entries WHERE directory = ? AND name = ?", split(directory)).fetchone():
                raise ValueError(f"{directory!r} holds bytes and cannot be the directory of {key!r}")
            directory = split(directory)[0]
