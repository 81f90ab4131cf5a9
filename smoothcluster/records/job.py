"""The record of a job: the state, and counts of tasks."""

from dataclasses import dataclass

from smoothcluster.records.codec import Record

JOB_OPEN, JOB_SEALED, JOB_FINISHED = "open", "sealed", "finished"
"""States of a job: being written; complete on the submitters' side; every task has an outcome."""

JOB_CANCELLING, JOB_CANCELLED = "cancelling", "cancelled"
"""States of a job that a client has cancelled: tasks are left; every task has an outcome or is counted as cancelled."""

JOB_DELETING, JOB_DELETED = "deleting", "deleted"
"""States of an ended job: a client removes what the job has left; only the record is left, the tombstone."""

ENDED_JOB_STATES = frozenset({JOB_FINISHED, JOB_CANCELLED, JOB_DELETING, JOB_DELETED})
"""States without a way back to work: no task waits or runs, and the job takes no more tasks."""


@dataclass(frozen=True, slots=True)
class Job(Record):
    """The tasks of a submit, and the tasks added by their handlers."""

    state: str
    """One of the states above."""
    tasks: int
    """How many tasks the submitters have written."""
    chunks: int
    at: str
    id: str
    added: int = 0
    """This and the next four fields: sums over all shards once the job has ended. The shards then drop the counts."""
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
    cancelled: int = 0
    """Tasks that never ran to an outcome, because the job was cancelled: summed up with the others."""

    @property
    def ended(self) -> bool:
        """Whether no task waits or runs, for good."""
        return self.state in ENDED_JOB_STATES
