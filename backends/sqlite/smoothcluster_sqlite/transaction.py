"""Writes: every write is a single SQL statement that runs wholly inside sqlite, in a transaction of its own.

The file keeps a clock for leases. The lease clock follows the machine's monotonic clock, which all
processes share and which stands still while the machine sleeps. Between two writes the lease clock advances by
at most `CLOCK_STEP_CAP_SECONDS`. So the lease clock never runs ahead of a holder's clock, and time in which no process
could write, because of a process paused during a write or a blocked disk, hardly counts. After a reboot, or
another reset of the machine's clock, every lease gets its full time again.

Keys attached to leases end with the machine, as do all processes that saw them. So a commit that changes only such
keys is acknowledged before the disk has the data. Outside the machine, at most the commit's number is known, as a
fencing token. So after a reboot the numbers continue beyond all numbers that may have been lost.

A write is a row inserted into the temporary table ``request`` of the connection. The trigger of the table advances the
clock, ends the leases that are due, and performs the act. The danger this avoids: if Python went from
statement to statement, the file would stay locked while other threads have the interpreter. A paused
process would most likely pause with the lock held, and stop all other processes.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from smoothcluster.backend import AtVersion, Change, Condition, Create, Delete, Exists, Update
from smoothcluster.errors import MisplacedKeyError

CLOCK_STEP_CAP_SECONDS = 0.25
"""Seconds by which the lease clock advances at most between two writes."""

COMMITS_KEPT = 1000
"""The number of commits for which the file keeps the list of changed keys, for watchers."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

Act = Literal["commit", "grant", "renew", "revoke", "move"]
"""``move`` only advances the clock and ends due leases, as every write does first."""

ACT_DONE, LEASE_GONE = 0, -1
"""Outcomes: done; the lease is gone. Any other outcome is the place of a part of the commit that does not hold."""

_REBOOT_NUMBER_STEP = 1_000_000_000
"""The jump of the commit number after a reboot: larger than the number of commits that the disk can lack."""

_OTHER_CLOCK = "(boot <> new.boot OR new.now < seen - 1)"
"""A reading may be a little older than the last reading, because a process reads the clock before the write."""

_RENEWAL_SQL = "(' ' || new.since_boot || ' ' || new.boot)"
"""When and in which boot a lease was last renewed: follows the granted seconds in the column ``granted``.

sqlite calculates with the number at the beginning of such a text, and so do older versions, which know no renewal.
"""

TRANSACTION_SCRIPT = f"""
CREATE TEMP TABLE part (place INTEGER PRIMARY KEY, act TEXT, key TEXT, directory TEXT, name TEXT, version TEXT,
                        value BLOB, lease TEXT);
CREATE TEMP TABLE request (act TEXT, now REAL, boot TEXT, lease TEXT, seconds REAL, since_boot REAL,
                        number INTEGER, outcome INTEGER, lasting INTEGER NOT NULL DEFAULT 0);

CREATE TEMP TRIGGER run_request AFTER INSERT ON request BEGIN
    UPDATE leases SET expires = granted + (SELECT time FROM clock) WHERE (SELECT {_OTHER_CLOCK} FROM clock);
    UPDATE clock SET
        number = number + CASE WHEN boot IN (new.boot, '') THEN 0 ELSE {_REBOOT_NUMBER_STEP} END,
        time = time + CASE WHEN {_OTHER_CLOCK} THEN 0 ELSE min(max(new.now - seen, 0), {CLOCK_STEP_CAP_SECONDS}) END,
        seen = CASE WHEN {_OTHER_CLOCK} THEN new.now ELSE max(new.now, seen) END,
        boot = new.boot;
    -- Before the end of due leases: a holder that renews a due lease, not yet ended by another write, is alive.
    UPDATE leases SET expires = granted + (SELECT time FROM clock),
        granted = CAST(granted AS REAL) || {_RENEWAL_SQL} WHERE new.act = 'renew' AND id = new.lease;
    UPDATE leases SET expires = -1 WHERE new.act = 'revoke' AND id = new.lease;

    UPDATE clock SET number = number + 1
        WHERE new.act = 'commit' OR EXISTS (SELECT 1 FROM leases WHERE expires <= clock.time);
    INSERT INTO changes
        SELECT number, CASE directory WHEN '' THEN name ELSE directory || '/' || name END, 1
        FROM clock, leases, entries WHERE expires <= time AND lease IS NOT NULL AND lease = id;
    DELETE FROM entries
        WHERE lease IS NOT NULL AND lease IN (SELECT id FROM leases, clock WHERE expires <= time);
    DELETE FROM leases WHERE expires <= (SELECT time FROM clock);

    INSERT INTO leases SELECT new.lease, new.seconds || {_RENEWAL_SQL}, time + new.seconds FROM clock
        WHERE new.act = 'grant';
    UPDATE request SET number = (SELECT number FROM clock), outcome = CASE
        WHEN new.act IN ('commit', 'renew') AND new.lease IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM leases WHERE id = new.lease) THEN {LEASE_GONE}
        WHEN new.act = 'commit' THEN coalesce((
            SELECT min(place) FROM part LEFT JOIN entries USING (directory, name) WHERE CASE act
                WHEN 'create' THEN created IS NOT NULL
                WHEN 'above' THEN created IS NOT NULL
                -- What lies below "a" begins with "a/", and "0" is the character after "/".
                WHEN 'below' THEN EXISTS (SELECT 1 FROM entries AS deep WHERE deep.directory = part.key
                    OR (deep.directory > part.key || '/' AND deep.directory < part.key || '0'))
                ELSE created IS NULL OR CAST(entries.version AS TEXT) <> coalesce(part.version, entries.version)
            END), {ACT_DONE})
        ELSE {ACT_DONE} END;
END;

CREATE TEMP TRIGGER apply_commit AFTER UPDATE OF outcome ON request
    WHEN new.act = 'commit' AND new.outcome = {ACT_DONE} BEGIN
    UPDATE request SET lasting = EXISTS (
        SELECT 1 FROM part LEFT JOIN entries USING (directory, name) WHERE CASE act
            WHEN 'create' THEN part.lease IS NULL
            ELSE act IN ('update', 'delete') AND entries.lease IS NULL END);
    DELETE FROM entries WHERE rowid IN
        (SELECT entries.rowid FROM part JOIN entries USING (directory, name) WHERE act = 'delete');
    UPDATE entries SET value = part.value, version = new.number FROM part
        WHERE act = 'update' AND entries.directory = part.directory AND entries.name = part.name;
    INSERT INTO entries SELECT directory, name, value, new.number, new.number, lease FROM part WHERE act = 'create';
    DELETE FROM changes WHERE number <= new.number - {COMMITS_KEPT};
    INSERT OR REPLACE INTO changes
        SELECT new.number, key, act <> 'update' FROM part WHERE act IN ('create', 'update', 'delete');
END;
"""  # noqa: S608  # made of constants

Part = tuple[str, str, str | None, bytes | None, str | None]


class WriteResult(NamedTuple):
    """The result of a write."""

    number: int
    """The number of the last commit."""
    outcome: int
    lasting: int
    """Whether the write changed a key that is attached to no lease."""


def split_key(key: str) -> tuple[str, str]:
    """Split *key* into the directory, empty if there is none, and the name there."""
    directory, _, name = key.rpartition("/")
    return directory, name


def prepare_commit(
    connection: sqlite3.Connection, conditions: Sequence[Condition], changes: Sequence[Change]
) -> list[Part]:
    """Prepare a commit for the next write. Return the parts of the commit: the first part has place 1.

    After the conditions and changes come checks for each key to be created. "above": no key exists at the path
    of a directory above. "below": the key is not itself a directory of existing keys.
    """
    parts = [_part(part) for part in (*conditions, *changes)]
    created = [change.key for change in changes if isinstance(change, Create)]
    above: dict[str, None] = {}
    for key in created:
        directory = split_key(key)[0]
        while directory and directory not in above:
            above[directory] = None
            directory = split_key(directory)[0]
    for key in created:
        if key in above:
            raise MisplacedKeyError(key, "cannot hold bytes and be a directory")
    parts += [("above", key, None, None, None) for key in above]
    parts += [("below", key, None, None, None) for key in created]
    connection.execute("DELETE FROM part")
    connection.executemany(
        "INSERT INTO part (act, key, directory, name, version, value, lease) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(act, key, *split_key(key), version, value, lease) for act, key, version, value, lease in parts],
    )
    return parts


def _part(part: Condition | Change) -> Part:
    match part:
        case Create():
            return "create", part.key, None, part.value, None if part.lease is None else part.lease.id
        case Update():
            return "update", part.key, part.version, part.value, None
        case Delete():
            return "delete", part.key, part.version, None, None
        case Exists():
            return "exists", part.key, None, None, None
        case AtVersion():
            return "at version", part.key, part.version, None, None


class Reading(NamedTuple):
    """A reading of the machine's clocks."""

    monotonic: float
    """Moves the lease clock."""
    since_boot: float
    """The time of a renewal, for people."""


def run_write(
    connection: sqlite3.Connection, act: Act, now: Reading, lease: str | None = None, seconds: float | None = None
) -> WriteResult:
    """Perform *act* at *now*, and return the result."""
    connection.execute("DELETE FROM request")
    connection.execute(
        "INSERT INTO request (act, now, boot, lease, seconds, since_boot) VALUES (?, ?, ?, ?, ?, ?)",
        (act, now.monotonic, BOOT_ID, lease, seconds, now.since_boot),
    )
    return WriteResult(*connection.execute("SELECT number, outcome, lasting FROM request").fetchone())
