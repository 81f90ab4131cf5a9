"""Retry a job: submit its failed tasks as a new job.

The outcome of a failed task holds the task. The name of the new job depends only on the failed tasks, so a retry that
was interrupted can be repeated: the second call completes or finds the same job.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from smoothcluster.errors import UsageError, add_hint
from smoothcluster.jobs.access import Access, read_job
from smoothcluster.jobs.chunks import digest
from smoothcluster.jobs.progress import mark_finished
from smoothcluster.jobs.submission import Submission
from smoothcluster.model import Outcome, State, Task
from smoothcluster.records.job import JOB_CANCELLED, JOB_DELETED, JOB_DELETING, JOB_FINISHED, JOB_OPEN, Job

log = logging.getLogger("smoothcluster")


@dataclass(slots=True)
class _Failed:
    """The failed tasks of a job, without the tasks themselves: there may be many."""

    tasks: int = 0
    without: int = 0
    """Failed outcomes that hold no task."""
    mark: int = 0
    """The same for the same tasks, in any order."""


def retry(access: Access, job: str, read: Callable[[], Iterable[Outcome]]) -> str:
    """Submit the failed tasks of *job*, of which *read* returns the outcomes; return the name of the new job.

    Raise UsageError if the job has not ended, or if no failed task can be submitted again.
    """
    record = _ended_record(access, job)
    failed = _look(read())
    if not failed.tasks:
        kept = f": none of the outcomes of its {failed.without} failed tasks holds the task" if failed.without else ""
        raise UsageError(f"job {job!r} has no failed tasks to retry{kept}")
    mark = hashlib.blake2b(f"{job} {failed.mark:x}".encode(), digest_size=6).hexdigest()
    name = f"{job[:80]}.{mark}"
    before = access.ask(lambda: read_job(access.store, name))
    if before is not None and before.record.state in (JOB_DELETING, JOB_DELETED):
        raise UsageError(f"the failed tasks of job {job!r} were retried as job {name!r}, which was deleted")
    if before is None or before.record.state == JOB_OPEN:
        _submit(access, name, record, read)
    if failed.without:
        log.warning("%d failed tasks of job %s are not retried: their outcomes hold no task", failed.without, job)
    return name


def _ended_record(access: Access, job: str) -> Job:
    spec = access.spec()
    access.until_known(lambda: mark_finished(access.store, job, spec))
    found = access.ask(lambda: read_job(access.store, job))
    if found is None:
        raise UsageError(f"group {access.group!r} has no job {job!r}")
    if found.record.state not in (JOB_FINISHED, JOB_CANCELLED):
        advice = "" if found.record.ended else ": wait until the job has ended, or cancel the job, and retry then"
        raise UsageError(f"job {job!r} is {found.record.state} and cannot be retried{advice}")
    return found.record


def _look(outcomes: Iterable[Outcome]) -> _Failed:
    found = _Failed()
    for each in outcomes:
        if each.state != State.FAILED:
            continue
        if each.task is None:
            found.without += 1
        else:
            found.tasks += 1
            found.mark ^= int.from_bytes(digest(each.task_id), "big")
    return found


def _submit(access: Access, name: str, record: Job, read: Callable[[], Iterable[Outcome]]) -> None:
    try:
        Submission(access.store, name, access.patience, record.max_tasks).run(_failed_tasks(read()))
    except BaseException as error:
        add_hint(error, "to complete the retry, call retry again")
        raise


def _failed_tasks(outcomes: Iterable[Outcome]) -> Iterator[Task]:
    for each in outcomes:
        if each.state == State.FAILED and each.task is not None:
            yield each.task
