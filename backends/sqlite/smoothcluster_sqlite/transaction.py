"""Everything that writes: one statement, and all of it inside sqlite.

The file keeps a clock of its own for leases. It follows the machine's monotonic one, which all
processes share and which stands still while the machine sleeps, but advances by at most `CAP`
between two turns. So it never runs ahead of any holder's, and time in which nobody could write, because a
process was paused in the middle of it or the disk stood still, hardly counts. If the machine's clock
is another one than before, after a reboot for instance, every lease gets its full time again.

What hangs on leases ends with the machine, as do all who saw it: a turn that changes nothing else need not
be on the disk before it is acknowledged. What is known elsewhere is its number at most, as a token that
fences; so after a reboot the numbers go on beyond all that may have been lost.

A turn is a row put into a table of the connection's own, whose trigger does the rest: it moves the
clock, ends what is due, and then does what was asked for. The danger it avoids: were it Python that goes from
statement to statement, the file would be locked while other threads have the interpreter, and a
process that is paused would most likely be paused there, and everybody with it.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from smoothcluster.backend import AtVersion, Change, Condition, Create, Delete, Exists, Update
from smoothcluster.errors import MisplacedKeyError

CAP = 0.25
"""Seconds by which the lease clock advances at most between two turns."""

KEPT = 1000
"""Of how many commits it is kept which keys they changed, for watchers."""

BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

Act = Literal["commit", "grant", "renew", "revoke", "move"]
"""The last does nothing but what every turn does first."""

DONE, GONE = 0, -1
"""Outcomes: done; the lease is gone. Any other is the place of a part that does not hold."""

_LEAP = 1_000_000_000
"""By how much the number of commits rises when the machine was started anew: by more than the disk can be behind."""

_OTHER_CLOCK = "(boot <> new.boot OR new.now < seen - 1)"
"""A reading may be a little older than the last one: it was taken before the turn began."""

SCRIPT = f"""
CREATE TEMP TABLE part (place INTEGER PRIMARY KEY, act TEXT, key TEXT, directory TEXT, name TEXT, version TEXT,
                        value BLOB, lease TEXT);
CREATE TEMP TABLE turn (act TEXT, now REAL, boot TEXT, lease TEXT, seconds REAL, number INTEGER, outcome INTEGER,
                        lasting INTEGER NOT NULL DEFAULT 0);

CREATE TEMP TRIGGER taken AFTER INSERT ON turn BEGIN
    UPDATE leases SET expires = granted + (SELECT time FROM clock) WHERE (SELECT {_OTHER_CLOCK} FROM clock);
    UPDATE clock SET
        number = number + CASE WHEN boot IN (new.boot, '') THEN 0 ELSE {_LEAP} END,
        time = time + CASE WHEN {_OTHER_CLOCK} THEN 0 ELSE min(max(new.now - seen, 0), {CAP}) END,
        seen = CASE WHEN {_OTHER_CLOCK} THEN new.now ELSE max(new.now, seen) END,
        boot = new.boot;
    -- One that is due, and that nobody has ended yet, is renewed: its holder is there.
    UPDATE leases SET expires = granted + (SELECT time FROM clock) WHERE new.act = 'renew' AND id = new.lease;
    UPDATE leases SET expires = -1 WHERE new.act = 'revoke' AND id = new.lease;

    UPDATE clock SET number = number + 1
        WHERE new.act = 'commit' OR EXISTS (SELECT 1 FROM leases WHERE expires <= clock.time);
    INSERT INTO changes
        SELECT number, CASE directory WHEN '' THEN name ELSE directory || '/' || name END, 1
        FROM clock, leases, entries WHERE expires <= time AND lease IS NOT NULL AND lease = id;
    DELETE FROM entries
        WHERE lease IS NOT NULL AND lease IN (SELECT id FROM leases, clock WHERE expires <= time);
    DELETE FROM leases WHERE expires <= (SELECT time FROM clock);

    INSERT INTO leases SELECT new.lease, new.seconds, time + new.seconds FROM clock WHERE new.act = 'grant';
    UPDATE turn SET number = (SELECT number FROM clock), outcome = CASE
        WHEN new.act IN ('commit', 'renew') AND new.lease IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM leases WHERE id = new.lease) THEN {GONE}
        WHEN new.act = 'commit' THEN coalesce((
            SELECT min(place) FROM part LEFT JOIN entries USING (directory, name) WHERE CASE act
                WHEN 'create' THEN created IS NOT NULL
                WHEN 'above' THEN created IS NOT NULL
                -- What lies below "a" begins with "a/", and "0" is the character after "/".
                WHEN 'below' THEN EXISTS (SELECT 1 FROM entries AS deep WHERE deep.directory = part.key
                    OR (deep.directory > part.key || '/' AND deep.directory < part.key || '0'))
                ELSE created IS NULL OR CAST(entries.version AS TEXT) <> coalesce(part.version, entries.version)
            END), {DONE})
        ELSE {DONE} END;
END;

CREATE TEMP TRIGGER allowed AFTER UPDATE OF outcome ON turn WHEN new.act = 'commit' AND new.outcome = {DONE} BEGIN
    UPDATE turn SET lasting = EXISTS (
        SELECT 1 FROM part LEFT JOIN entries USING (directory, name) WHERE CASE act
            WHEN 'create' THEN part.lease IS NULL
            ELSE act IN ('update', 'delete') AND entries.lease IS NULL END);
    DELETE FROM entries WHERE rowid IN
        (SELECT entries.rowid FROM part JOIN entries USING (directory, name) WHERE act = 'delete');
    UPDATE entries SET value = part.value, version = new.number FROM part
        WHERE act = 'update' AND entries.directory = part.directory AND entries.name = part.name;
    INSERT INTO entries SELECT directory, name, value, new.number, new.number, lease FROM part WHERE act = 'create';
    DELETE FROM changes WHERE number <= new.number - {KEPT};
    INSERT OR REPLACE INTO changes
        SELECT new.number, key, act <> 'update' FROM part WHERE act IN ('create', 'update', 'delete');
END;
"""  # noqa: S608  # made of constants

Part = tuple[str, str, str | None, bytes | None, str | None]


class Turn(NamedTuple):
    """What came of one."""

    number: int
    """Of the last commit."""
    outcome: int
    lasting: int
    """Whether it changed anything that does not end with a lease."""


def split(key: str) -> tuple[str, str]:
    """The directory that *key* lies in, empty if in none, and its name there."""
    directory, _, name = key.rpartition("/")
    return directory, name


def prepare(connection: sqlite3.Connection, conditions: Sequence[Condition], changes: Sequence[Change]) -> list[Part]:
    """Have a commit ready for the next turn. Return its parts: the first has place 1.

    Behind the conditions and changes stand the keys that must not be there if those that are created
    are to be: "above" them a key that would be a directory, "below" them keys of which they would be one.
    """
    parts = [_part(part) for part in (*conditions, *changes)]
    created = [change.key for change in changes if isinstance(change, Create)]
    above: dict[str, None] = {}
    for key in created:
        directory = split(key)[0]
        while directory and directory not in above:
            above[directory] = None
            directory = split(directory)[0]
    for key in created:
        if key in above:
            raise MisplacedKeyError(key, "cannot hold bytes and be a directory")
    parts += [("above", key, None, None, None) for key in above]
    parts += [("below", key, None, None, None) for key in created]
    connection.execute("DELETE FROM part")
    connection.executemany(
        "INSERT INTO part (act, key, directory, name, version, value, lease) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(act, key, *split(key), version, value, lease) for act, key, version, value, lease in parts],
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


def take(
    connection: sqlite3.Connection, act: Act, now: float, lease: str | None = None, seconds: float | None = None
) -> Turn:
    """Take a turn at *now* on the machine's clock."""
    connection.execute("DELETE FROM turn")
    connection.execute(
        "INSERT INTO turn (act, now, boot, lease, seconds) VALUES (?, ?, ?, ?, ?)", (act, now, BOOT, lease, seconds)
    )
    return Turn(*connection.execute("SELECT number, outcome, lasting FROM turn").fetchone())
