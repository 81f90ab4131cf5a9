"""Change the state of a job on behalf of a client: mark the job as cancelled or as to be deleted.

The first phase of both is a mark: one commit changes the state in the job's record and creates ``control/<job>``, which
every member watches. The commit compares the record, so a late commit of a submitter is refused, and a repeated mark
changes nothing. The second phase is the work of the shards' owners (`smoothcluster.work.closing`): the job has ended
once all counts add up.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from smoothcluster.backend import Change, Create, Delete, Refused, Update
from smoothcluster.errors import UsageError
from smoothcluster.group.view import Versioned
from smoothcluster.jobs.access import Access, read_job
from smoothcluster.jobs.progress import find_loss, mark_cancelled, mark_finished
from smoothcluster.records.group import Spec
from smoothcluster.records.job import JOB_CANCELLING, Job


def cancel(access: Access, job: str) -> Job:
    """Mark a job as cancelled, unless the job has ended; return the record.

    Raise UsageError if there is no such job.
    """
    spec = access.spec()
    access.until_known(lambda: mark_finished(access.store, job, spec))  # A job whose tasks have all ended is finished.
    return change_state(access, job, _cancelling).record


def _cancelling(job: Job) -> str | None:
    return None if job.ended or job.state == JOB_CANCELLING else JOB_CANCELLING


def change_state(
    access: Access, job: str, decide: Callable[[Job], str | None], *, marked: bool = True
) -> Versioned[Job]:
    """Set the state that *decide* returns for the job's record, with a mark, or without unless *marked*.

    Return the record after the change; or as it is if *decide* returns None. Raise UsageError if there is no such job,
    OutcomeUnknownError if the store answers and takes no commit, for example because of a full disk.
    """
    while True:
        read = access.ask(lambda: read_job(access.store, job))
        if read is None:
            raise UsageError(f"group {access.group!r} has no job {job!r}")
        state = decide(read.record)
        if state is None:
            return read
        access.until_known(partial(_change, access, job, read, state, marked=marked))


def _change(access: Access, job: str, read: Versioned[Job], state: str, *, marked: bool) -> bool:
    store = access.store
    after = replace(read.record, state=state, id=store.new_id())
    key, mark = store.keys.job(job), store.backend.get(store.keys.mark(job))
    changes: list[Change] = [Update(key, after.to_json(), read.version)]
    if marked and mark is None:
        changes.append(Create(store.keys.mark(job), state.encode()))
    elif not marked and mark is not None:
        changes.append(Delete(store.keys.mark(job)))
    return not isinstance(store.backend.commit([], changes), Refused)


def end_without_lost(access: Access, job: str, spec: Spec) -> bool:
    """End a job that is being cancelled, and that cannot end otherwise because the store has lost tasks.

    Return whether the job was ended.
    """
    loss = access.ask(lambda: find_loss(access.store, job, spec))
    return loss is not None and access.until_known(lambda: mark_cancelled(access.store, job, spec, loss))
