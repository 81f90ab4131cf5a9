"""Outcomes of unreadable tasks: each of them fails, so that the job can finish."""

from json.encoder import encode_basestring_ascii as quote
from typing import cast

from smoothcluster.jobs.chunk_reading import UnreadableTask
from smoothcluster.jobs.chunks import job_of
from smoothcluster.model import State
from smoothcluster.records.shard import Shard
from smoothcluster.work.backlog import Backlog
from smoothcluster.work.commit import CommitBuilder


def fail_unreadable(draft: CommitBuilder, record: Shard, backlog: Backlog) -> None:
    """Record a failed outcome for each admitted task that nobody can read, while the commit has room."""
    waiting = backlog.unreadable
    while waiting:
        name, index = place = waiting[0]
        chunk, task = record.open[name], cast("UnreadableTask", backlog.tasks[name][index])
        if not draft.reserve_outcome(place, len(quote(task.error)) + len(quote(task.id))):
            break
        waiting.popleft()
        draft.unreadable.setdefault(name, []).append(task.id)
        record.count(job_of(name), "unreadable")
        draft.record_outcome(place, task.id, State.FAILED, "null", task.error, chunk.attempts(index))
