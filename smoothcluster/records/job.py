"""The record of a job: its state and the number of its tasks."""

from dataclasses import dataclass

from smoothcluster.records.codec import Record

OPEN, SEALED, FINISHED, DELETED = "open", "sealed", "finished", "deleted"
"""States of a job: being written; complete as far as its submitters go; nothing left to run; given up."""


@dataclass(frozen=True, slots=True)
class Job(Record):
    """The tasks of one submit and those that their handlers add."""

    state: str
    """open, sealed, finished or deleted."""
    tasks: int
    """How many its submitters have written."""
    chunks: int
    at: str
    id: str
    added: int = 0
    """This and what follows: sums over all shards, once it is finished. The shards forget them then."""
    skipped: int = 0
    done: int = 0
    failed: int = 0
    quarantined: int = 0
