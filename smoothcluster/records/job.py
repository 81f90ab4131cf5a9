"""The record of a job: the state, and counts of tasks."""

from dataclasses import dataclass

from smoothcluster.records.codec import Record

JOB_OPEN, JOB_SEALED, JOB_FINISHED, JOB_DELETED = "open", "sealed", "finished", "deleted"
"""States of a job: being written; complete on the submitters' side; nothing left to run; given up."""


@dataclass(frozen=True, slots=True)
class Job(Record):
    """The tasks of a submit, and the tasks added by their handlers."""

    state: str
    """open, sealed, finished or deleted."""
    tasks: int
    """How many tasks the submitters have written."""
    chunks: int
    at: str
    id: str
    added: int = 0
    """This and the next four fields: sums over all shards once the job is finished. The shards then drop the counts."""
    skipped: int = 0
    done: int = 0
    failed: int = 0
    quarantined: int = 0
    unreadable: int = 0
    """This and the next field: counts for people, summed up with the others."""
    refused: int = 0
    submitted: str = ""
    """The id of the latest commit of a submitter. The end of the job changes `id`, and keeps this field."""
    max_tasks: int | None = None
    """Most tasks of the job: beyond it, tasks added by handlers are refused. None stands for the member's default."""
