"""The tables of a results sink in a database.

``smoothcluster_outcomes`` is for users, too: a row for each task, with the value as JSON text.
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, cast

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from smoothcluster.errors import GarbageError
from smoothcluster.model import Outcome, State
from smoothcluster.sinks.blocks import from_line, to_line
from smoothcluster.sinks.protocol import NumberedOutcome, Part

SINK_METADATA = MetaData()

_JOB_TYPE = String(200)
_DIGEST_TYPE = String(32)

PARTS_TABLE = Table(
    "smoothcluster_parts",
    SINK_METADATA,
    Column("job", _JOB_TYPE, primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    Column("deleted", Boolean, nullable=False),
)
"""A row for each part. A writer locks the row, so writers of the same part take turns."""

OUTCOMES_TABLE = Table(
    "smoothcluster_outcomes",
    SINK_METADATA,
    Column("job", _JOB_TYPE, primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("id_digest", _DIGEST_TYPE, primary_key=True),
    Column("task_id", Text, nullable=False),
    Column("state", String(20), nullable=False),
    Column("value", Text, nullable=False),
    Column("error", Text),
    Column("attempts", Integer, nullable=False),
    Column("runner", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("exact", Text),
    Index("smoothcluster_outcomes_part", "job", "shard", "seq", "id_digest"),
)
"""The key is a digest of the task's id: an id can be longer than a database's index takes.

``exact``: id, error and runner as a JSON array, if the database cannot hold one of the texts, and otherwise null.
"""

REFUSED_TABLE = Table(
    "smoothcluster_refused",
    SINK_METADATA,
    Column("job", _JOB_TYPE, primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("id_digest", _DIGEST_TYPE, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("outcome", LargeBinary, nullable=False),
    Index("smoothcluster_refused_part", "job", "shard", "seq", "id_digest"),
)
"""Outcomes that the table of outcomes refuses for good, for example by a constraint that a user added."""

MARKS_TABLE = Table("smoothcluster_marks", SINK_METADATA, Column("name", String(200), primary_key=True))


def storable(text: str) -> str:
    """Return *text* with the characters replaced that a database cannot hold: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode() if _unstorable(text) else text


def _unstorable(text: str | None) -> bool:
    return text is not None and ("\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text))


def outcome_row(part: Part, each: NumberedOutcome) -> dict[str, Any]:
    """Return the row of an outcome."""
    outcome = each.outcome
    texts = (outcome.task_id, outcome.error, outcome.runner)
    return {
        "job": part.job,
        "shard": part.shard,
        "id_digest": _digest(outcome.task_id),
        "seq": each.seq,
        "task_id": storable(outcome.task_id),
        "state": str(outcome.state),
        "value": json.dumps(outcome.value),  # In ASCII: so NUL and half pairs are no problem here.
        "error": None if outcome.error is None else storable(outcome.error),
        "attempts": outcome.attempts,
        "runner": storable(outcome.runner),
        "epoch": outcome.epoch,
        "exact": json.dumps(texts) if any(map(_unstorable, texts)) else None,
    }


def refused_row(part: Part, each: NumberedOutcome, reason: str) -> dict[str, Any]:
    """Return the row of an outcome that the table of outcomes refuses."""
    return {
        "job": part.job,
        "shard": part.shard,
        "id_digest": _digest(each.outcome.task_id),
        "seq": each.seq,
        "reason": storable(reason),
        "outcome": to_line(each).encode(),
    }


def read_outcome_row(row: Sequence[Any]) -> NumberedOutcome:
    """Return the outcome in a row with the columns of `OUTCOME_COLUMNS`."""
    seq, _, task_id, state, value, error, attempts, runner, epoch, exact = row
    try:
        if exact is not None:
            task_id, error, runner = cast("list[Any]", json.loads(exact))
        outcome = Outcome(task_id, State(state), json.loads(value), error, attempts, runner, epoch)
    except (ValueError, TypeError, RecursionError) as reason:
        raise GarbageError(f"the row of task {task_id!r:.80} is not an outcome: {reason!r:.80}") from None
    return NumberedOutcome(seq, outcome)


def read_refused_row(row: Sequence[Any]) -> NumberedOutcome:
    """Return the outcome in a row with the columns of `REFUSED_COLUMNS`."""
    return from_line(bytes(row[2]))


OUTCOME_COLUMNS = [
    OUTCOMES_TABLE.c[name]
    for name in ("seq", "id_digest", "task_id", "state", "value", "error", "attempts", "runner", "epoch", "exact")
]
REFUSED_COLUMNS = [REFUSED_TABLE.c[name] for name in ("seq", "id_digest", "outcome")]


def _digest(task_id: str) -> str:
    return sha256(task_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
