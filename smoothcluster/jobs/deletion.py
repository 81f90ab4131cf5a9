"""Delete a job: remove all that the job has left in the store, but for a tombstone.

The steps, each of which a second call takes up where the first stopped::

    cancel --counts add up--> ended --mark--> deleting --every shard tidied--> parts removed, results last --> deleted

- A job that has ended has no writer left: every task has its outcome or is counted as cancelled, so no member's commit
  can hold anything of the job, and late commits of former owners are refused by the shards' fences.
- Each shard's owner drops the counts and the digests of ids. Shards without a living owner are tidied by the client, in
  commits that compare the shard's record.
- Each commit that removes other parts compares the job's record. So a late commit is refused once the job is in another
  state, for example after a rollback of the store.
- The tombstone is the job's record with the state *deleted* and the sums: a late resend of a submit finds it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import final

from smoothcluster.backend import AtVersion, Change, Delete, Refused, Update
from smoothcluster.errors import CommitTooLargeError, OutcomeUnknownError, UnavailableError
from smoothcluster.group.view import Versioned
from smoothcluster.jobs.access import Access, read_job
from smoothcluster.jobs.cancelling import cancel, change_state, end_without_lost
from smoothcluster.jobs.progress import LossCheck, mark_finished, read_progress
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.job import JOB_DELETED, JOB_DELETING, Job
from smoothcluster.records.quarantine import QuarantinedTask
from smoothcluster.records.shard import Shard
from smoothcluster.records.tail import TailRecord

KEY_BYTES = 640
"""Bytes counted for the deletion of a key in a commit: the longest key, and the framing."""

MOST_KEYS_PER_COMMIT = 256
"""Most keys that one commit removes: other clients wait no longer than for a commit of a member."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a deletion, for a progress display."""

    what: str
    """What the deletion does now, in words."""
    left: int
    """Tasks, shards or records that are left of this part."""
    wait: bool
    """Whether members must act first: pause before the next step."""


class _ChangedError(Exception):
    """The job is not being deleted any more."""


@final
class Deletion:
    """Deletes one job. `steps` does the work, and may be begun anew at any time, also by another client."""

    def __init__(self, access: Access, job: str) -> None:
        self._access, self._store, self._job = access, access.store, job
        self._spec = access.spec()
        self._share = 1
        """Commits remove this part of the usual number of keys: less after a server has refused a commit."""
        self._alone_since: float | None = None
        """Time since when the group has no member; None if there was one at the last look."""

    def steps(self) -> Iterator[Step]:
        """Take the next steps; pause after each step with `Step.wait`.

        Raise UsageError if there is no such job, UnavailableError if the job has work left for members, and the group
        has none for as long as the client retries, or any other BackendError.
        """
        while True:
            try:
                yield from self._steps()
            except _ChangedError:  # The store was rolled back to before the job's end.
                continue
            return

    def _steps(self) -> Iterator[Step]:
        if cancel(self._access, self._job).state == JOB_DELETED:
            return
        yield from self._end()
        state = change_state(self._access, self._job, _deleting).record.state
        if state == JOB_DELETED:
            return  # Another client was faster.
        if state != JOB_DELETING:
            raise _ChangedError
        yield from self._tidy()
        keys = self._store.keys
        yield from self._remove_all("tasks in quarantine to remove", self._quarantined)
        yield from self._remove_all("records of ids to remove", lambda: self._parts(keys.all_seen(self._job)))
        yield from self._remove_all("records of outcomes to remove", lambda: self._parts(keys.all_results(self._job)))
        yield from self._empty_sinks()
        yield from self._remove_all("records of results sinks to remove", self._tails)
        if change_state(self._access, self._job, _deleted, marked=False).record.state != JOB_DELETED:
            raise _ChangedError

    # The job ends

    def _end(self) -> Iterator[Step]:
        """Wait until all tasks have an outcome or are cancelled, and mark the job."""
        access, store, check = self._access, self._store, LossCheck(self._store.clock)
        while not access.until_known(lambda: mark_finished(store, self._job, self._spec)):
            progress = access.ask(lambda: read_progress(store, self._job, self._spec))
            if check.due(progress) and end_without_lost(access, self._job, self._spec):
                return
            if not progress.finished:
                self._expect_members(progress.pending)
            yield Step("tasks to end", progress.pending, wait=True)

    def _expect_members(self, tasks: int) -> None:
        """Raise UnavailableError if *tasks* wait for members, and there has been none for too long."""
        now = self._store.clock.monotonic()
        if self._access.ask(self._store.read_members):
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        elif now > self._alone_since + self._access.patience:
            raise UnavailableError(
                f"{tasks} tasks of job {self._job!r} wait for members, and group {self._access.group!r} has none: the"
                " job is cancelled, so no task starts any more; start a member, and delete the job again"
            )

    # What the shards know

    def _tidy(self) -> Iterator[Step]:
        """Wait until no shard has counts of the job; tidy the shards without a living owner."""
        while True:
            shards = self._access.ask(lambda: self._store.read_shards(range(self._spec.shards)))
            left = [
                number for number, read in enumerate(shards) if read is not None and self._job in read.record.counts
            ]
            if not left:
                return
            members = self._access.ask(self._store.read_members)
            tidied = 0
            for number in left:
                read = shards[number]
                if read is not None and read.record.owner not in members:
                    tidied += self._tidy_shard(number, read)
            yield Step("shards to tidy", len(left) - tidied, wait=not tidied)

    def _tidy_shard(self, number: int, read: Versioned[Shard]) -> bool:
        """Drop the counts and digests of the job on a shard without an owner; return whether nothing changed before."""
        store = self._store
        keys = self._access.ask(lambda: store.backend.keys(store.keys.seen(self._job, number)))
        version = read.version
        for last in range(0, len(keys) + 1, self._batch):
            record = replace(read.record.copy(), id=store.new_id())
            if last + self._batch > len(keys):
                record.counts.pop(self._job, None)
                record.queues.pop(self._job, None)
            changes: list[Change] = [Update(store.keys.shard(number), record.to_json(), version)]
            changes += [Delete(key) for key in keys[last : last + self._batch]]
            try:
                done = self._access.ask(lambda changes=changes: store.backend.commit([], changes))  # type: ignore[misc]  # mypy cannot infer a lambda's default
            except OutcomeUnknownError:
                return False
            if isinstance(done, Refused):
                return False  # A member has claimed the shard.
            version = done.versions[store.keys.shard(number)]
        return True

    # Everything else

    @property
    def _batch(self) -> int:
        limits = self._store.backend.guarantees
        most = min(MOST_KEYS_PER_COMMIT, limits.most_operations - 1, limits.largest_commit // KEY_BYTES - 1)
        return max(1, most // self._share)

    def _quarantined(self) -> list[str]:
        """Keys of the job's tasks in quarantine."""
        store = self._store
        found = store.read_records(store.keys.quarantine, lambda entry: QuarantinedTask.from_json(entry.value))
        return [store.keys.quarantined(name) for name, each in found.items() if each.job == self._job]

    def _tails(self) -> list[str]:
        return self._store.backend.keys(self._store.keys.tails(self._job))

    def _empty_sinks(self) -> Iterator[Step]:
        """Delete the job from the results sinks that its shards name. Raise SinkUnavailableError if a sink is away.

        No owner writes to a sink any more: owners drop the counts of a job only when no outcome of the job is on its
        way. A replaced owner may leave a block of files that nobody reads.
        """
        keys = self._access.ask(self._tails)
        while keys:
            entry = self._access.ask(partial(self._store.backend.get, keys.pop()))
            if entry is None:
                continue
            try:
                record = TailRecord.from_json(entry.value)
            except GarbageError as error:
                self._access.report(entry.key, str(error))
                continue
            self._access.sinks.get(record.sink).delete(record.part)
            yield Step("parts in results sinks to delete", len(keys), wait=False)

    def _parts(self, directory: str) -> list[str]:
        """Keys in the first of the shards' directories in *directory*; none if there is nothing left."""
        for part in self._store.backend.keys(directory):
            keys = self._store.backend.keys(part)
            if keys:
                return keys
        return []

    def _remove_all(self, what: str, find: Callable[[], list[str]]) -> Iterator[Step]:
        """Remove the keys that *find* returns, until there are none."""
        while keys := self._access.ask(find):
            read = self._access.ask(lambda: read_job(self._store, self._job))
            if read is None or read.record.state != JOB_DELETING:
                raise _ChangedError
            while keys and self._remove(keys[-self._batch :], read.version):
                del keys[-self._batch :]
                yield Step(what, len(keys), wait=False)

    def _remove(self, keys: list[str], version: str | None) -> bool:
        """Remove *keys* if the job's record is at *version*; return False if the keys must be listed again."""
        store = self._store
        conditions = [AtVersion(store.keys.job(self._job), version or "")]
        try:
            done = self._access.ask(lambda: store.backend.commit(conditions, [Delete(key) for key in keys]))
        except OutcomeUnknownError:
            self._access.ask(store.backend.sync)
            return False
        except CommitTooLargeError:
            if len(keys) == 1:
                raise
            self._share *= 2
            return False
        return not isinstance(done, Refused)


def _deleting(job: Job) -> str | None:
    return JOB_DELETING if job.ended and job.state not in (JOB_DELETING, JOB_DELETED) else None


def _deleted(job: Job) -> str | None:
    return JOB_DELETED if job.state == JOB_DELETING else None
