"""Reads of the sqlite file: entries, names, the row of the clock, and the list of changed keys."""

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from smoothcluster.backend import Entry, Guarantees, check_directory
from smoothcluster.timeline import Mark
from smoothcluster_sqlite.transaction import BOOT_ID, CLOCK_STEP_CAP_SECONDS, COMMITS_KEPT, split_key

Changes = Iterable[tuple[str, bool]]
"""Keys, each with True if the key was created or deleted, and False if the key got a new value."""


class ClockRow(NamedTuple):
    """The row of the table ``clock``."""

    number: int
    """The number of the last commit."""
    store: str
    seen: float
    boot: str
    leased: bool
    """Whether there are leases."""


def read_clock(connection: sqlite3.Connection) -> ClockRow:
    """Return the row of the clock."""
    wanted = "SELECT number, store, seen, boot, EXISTS (SELECT 1 FROM leases) FROM clock"
    return ClockRow(*connection.execute(wanted).fetchone())


def read_changes(connection: sqlite3.Connection, since: int) -> tuple[ClockRow, Changes | None]:
    """Return the clock and the changes since commit *since*; no changes if the list is no longer complete."""
    clock = read_clock(connection)
    if since == clock.number:
        return clock, ()
    if not clock.number - COMMITS_KEPT <= since < clock.number:
        return clock, None
    wanted = "SELECT key, came_or_went FROM changes WHERE number > ?"
    return clock, connection.execute(wanted, (since,)).fetchall()


def read_entry(connection: sqlite3.Connection, key: str, since: Mark) -> Entry | None:
    """Return the entry at *key*, read after *since*."""
    row = connection.execute(
        "SELECT value, version, created, lease FROM entries WHERE directory = ? AND name = ?", split_key(key)
    ).fetchone()
    return None if row is None else Entry(key, row[0], since.version(row[1]), row[2], row[3])


def read_entries(connection: sqlite3.Connection, directory: str, since: Mark, guarantees: Guarantees) -> list[Entry]:
    """Return the entries of the keys directly in *directory*, sorted by key, read after *since*."""
    wanted = "SELECT name, value, version, created, lease FROM entries WHERE directory = ? ORDER BY name LIMIT ?"
    rows = connection.execute(wanted, (directory, guarantees.largest_directory + 1))
    entries = [Entry(f"{directory}/{row[0]}", row[1], since.version(row[2]), row[3], row[4]) for row in rows]
    check_directory(guarantees, directory, len(entries))
    return entries


def read_silent(connection: sqlite3.Connection, leases: Iterable[str], since_boot: float) -> frozenset[str]:
    """Return the ids among *leases* that were last renewed too long before *since_boot*, or in another boot."""
    silent: set[str] = set()
    for lease in leases:
        row = connection.execute("SELECT granted FROM leases WHERE id = ?", (lease,)).fetchone()
        match str(row[0]).split(" ") if row else ():
            case [granted, renewed, boot]:
                seconds = float(granted) - 2 * CLOCK_STEP_CAP_SECONDS
                if boot != BOOT_ID or since_boot - float(renewed) >= seconds:
                    silent.add(lease)
            case _:  # The lease has ended, or an older version, which records no renewals, has granted the lease.
                pass
    return frozenset(silent)


def read_names(connection: sqlite3.Connection, directory: str, guarantees: Guarantees) -> list[str]:
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
            check_directory(guarantees, directory, len(names))
            return sorted(names)
        name = f"{directory}/{found[len(directory) + 1 :].partition('/')[0]}"
        names.add(name)
        # The directories below `name` are contiguous, but come after names that continue with "-" or ".".
        after = name if found == name else f"{name}/\U0010ffff"
