"""The client of a group: submit tasks, follow jobs, read outcomes. A client joins no group and holds no lease."""

import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from smoothcluster.arguments import check_backend, check_count, check_name, check_seconds, check_text
from smoothcluster.backend import CoordinationBackend, Delete, Entry
from smoothcluster.clock import SYSTEM_CLOCK, Clock
from smoothcluster.errors import AccessDeniedError, JobClosedError, OutcomeUnknownError, UsageError, add_hint
from smoothcluster.group.events import read_events
from smoothcluster.group.resizing import Resize, try_change
from smoothcluster.group.spec import SHARDS_PER_RUNNER
from smoothcluster.group.status import group_status, numbers_of
from smoothcluster.group.view import Versioned, View
from smoothcluster.jobs.access import CLIENT_RETRY_SECONDS, Access, read_jobs
from smoothcluster.jobs.handle import JobHandle
from smoothcluster.jobs.progress import Loss, Progress, count_job, find_loss, sum_counts
from smoothcluster.jobs.submission import Submission
from smoothcluster.model import Task
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.job import Job
from smoothcluster.records.keys import last_part
from smoothcluster.records.quarantine import QuarantinedTask, name_of_release

log = logging.getLogger("smoothcluster")


class Cluster:
    """A client for a group.

    Args:
        backend: where the group lives.
        group: the name of the group.
        clock: the source of time.
        patience: seconds to retry while the store is unavailable, before the error is raised.
    """

    def __init__(
        self,
        backend: CoordinationBackend,
        group: str = "default",
        *,
        clock: Clock = SYSTEM_CLOCK,
        patience: float = CLIENT_RETRY_SECONDS,
    ) -> None:
        check_backend(backend)
        check_seconds("patience", patience, endless=True)
        self.group = check_name("group", group)
        self._access = Access(backend, group, clock, patience)

    @property
    def garbage(self) -> Mapping[str, str]:
        """Keys with unreadable or misplaced records, and the error for each."""
        return self._access.garbage

    def submit(self, tasks: Iterable[Task], job: str | None = None, *, max_tasks: int | None = None) -> JobHandle:
        """Submit *tasks* as one job; return when they are in the store.

        *job* is the id of the job; without this argument, the job gets a new id. If the job exists and has not
        finished, the tasks are added. Tasks already in the job are skipped, so an interrupted submit can simply be
        repeated.

        A collection, such as a list, is checked as a whole: two tasks with the same id are an error. Tasks of an
        iterator are written as they come, in bounded memory: the group skips repeats, and counts them in
        ``progress().skipped``.

        *max_tasks* bounds the job from its first submit on: once the job has so many tasks, further tasks added by
        handlers are refused, and `Progress.refused` counts them. Tasks of `submit` are never refused. Without this
        argument, the members' bound is in force (10,000,000 unless given).

        Raise UsageError for anything but tasks, DuplicateTaskError if two tasks of a collection have the same id
        (before anything is written), JobClosedError if the job has finished, UnavailableError if the store stays
        unavailable. After any error, also of the iterator *tasks*, the text of the error or a note says if the job is
        open, and how to complete the job.
        """
        name = check_name("job", job) if job is not None else secrets.token_hex(6)
        if max_tasks is not None:
            check_count("max_tasks", max_tasks)
        access = self._access
        submission = Submission(access.store, name, access.patience, max_tasks)
        try:
            submission.run(tasks)
        except BaseException as error:
            add_hint(error, submission.left_behind(error))
            raise
        return JobHandle(access, name)

    def job(self, job: str) -> JobHandle:
        """Return a handle on the job with this id; raise UsageError if the group has no such job."""
        key = self._access.store.keys.job(check_name("job", job))
        if self._access.ask(lambda: self._access.store.backend.get(key)) is None:
            raise UsageError(f"group {self.group!r} has no job {job!r}")
        return JobHandle(self._access, job)

    def jobs(self) -> dict[str, str]:
        """Return the state of each job by id, as in `Progress.state`."""
        return {name: job.state for name, job in self._jobs().items()}

    def progress_of_jobs(self) -> dict[str, Progress]:
        """Return the progress of each job by id, all from one reading of the shards, so without `Progress.lost`."""
        shards = self._access.ask(lambda: self._access.store.read_ownership(None))
        read = shards.shards if shards is not None else []
        return {
            name: count_job(name, Versioned(job, None), read).progress(finished=job.ended)
            for name, job in self._jobs().items()
        }

    def _jobs(self) -> dict[str, Job]:
        return self._access.ask(lambda: read_jobs(self._access.store))

    def absent(self) -> bool:
        """Whether the group does not exist: no member has ever joined, and no client has submitted."""
        return self._access.ask(lambda: self._access.store.backend.get(self._access.store.keys.spec)) is None

    def spec(self) -> dict[str, int | None]:
        """Return the group's numbers: runner, backup and shards; runner is None until a member has joined."""
        return numbers_of(self._access.spec())

    def change_spec(self, *, runner: int | None = None, backup: int | None = None) -> dict[str, int | None]:
        """Change the numbers of a living group; return the new numbers.

        If the number of Runners grows, Backup Runners take the new seats at once. If the number shrinks, the holders
        of the highest seats become Backup Runners in the same commit. They start no more tasks. They release each
        shard when all running tasks of the shard have finished, at the latest after their grace period. The number of
        shards stays. Members joining later must give the new numbers, or none.

        Raise UsageError for impossible numbers, or for *backup* in a group where all members are Runners.
        """
        access, wanted = self._access, Resize(runner, backup).check()
        access.spec()  # Raises UsageError if there is no such group.
        clock = access.store.clock
        until = clock.monotonic() + access.patience
        while (spec := access.ask(lambda: try_change(access.store, wanted))) is None:
            if clock.monotonic() > until:
                raise OutcomeUnknownError("the store did not accept the change, or other changes came first; try again")
        if spec.shards < SHARDS_PER_RUNNER * (spec.runner or 0):
            log.warning(
                "the group has %d shards for %s Runners, so some Runners get fewer or none; this number stays",
                spec.shards,
                spec.runner,
            )
        return numbers_of(spec)

    def status(self) -> dict[str, Any]:
        """Return the state of the group, as in ``status --json``: numbers, members, tasks, unassigned shards.

        If the store has lost tasks, the jobs that cannot finish have the state *lost*, with numbers under ``lost``.
        """
        access = self._access
        # Before the view: a member of the view that joined in between is not silent.
        silent = access.ask(access.store.read_silent)
        view = access.ask(lambda: access.store.read_view({}))
        if view is None:
            raise UsageError(f"there is no group {self.group!r} at {access.store.backend.url}")
        jobs = self._jobs()
        losses = {name: loss for name, job in jobs.items() if (loss := self._loss(name, job, view)) is not None}
        found = group_status(self.group, view, silent, jobs, access.garbage)
        found["store"] = self._usage()
        if losses:
            found["jobs"] |= dict.fromkeys(losses, "lost")
            found["lost"] = {name: loss.numbers() for name, loss in losses.items()}
        return found

    def _usage(self) -> dict[str, int | str] | None:
        """Return how full the store is; None if the store does not tell."""
        try:
            usage = self._access.ask(self._access.store.backend.usage)
        except AccessDeniedError:  # The user may use the keys of the group, but may not ask this question.
            return None
        return None if usage is None else asdict(usage)

    def _loss(self, name: str, job: Job, view: View) -> Loss | None:
        """Return the loss of a job that *view* shows without an open chunk, if the store has lost tasks."""
        access = self._access
        if sum_counts(name, Versioned(job, None), view.shards).loss() is None:
            return None
        try:
            return access.ask(lambda: find_loss(access.store, name, view.spec.record))
        except UsageError:
            return None  # The record of the job was deleted meanwhile.

    def quarantine(self) -> list[QuarantinedTask]:
        """Return the quarantined tasks with the evidence for each, oldest first."""
        found, _ = self._read_quarantine()
        return sorted(found.values(), key=lambda each: (each.at, each.id))

    def release(self, *numbers: str) -> list[JobHandle]:
        """Release tasks from quarantine: submit copies of them, in a new job for each of their former jobs.

        The arguments are ids from `quarantine`. Raise UsageError for an id not in quarantine. After a failure
        half-way, call `release` again: no task is submitted twice.
        """
        jobs: dict[str, list[QuarantinedTask]] = {}
        for each in self._quarantined(numbers):
            jobs.setdefault(each.job, []).append(each)
        handles: list[JobHandle] = []
        for job, quarantined in jobs.items():
            name = name_of_release(job, quarantined)
            try:
                handles.append(self.submit([each.task for each in quarantined], name))
            except JobClosedError:
                handles.append(self.job(name))  # An earlier, interrupted release submitted them, and they have run.
            except BaseException as error:
                add_hint(error, "to complete the release, call release with the same ids again")
                raise
            self._remove(each.id for each in quarantined)
        return handles

    def drop(self, *numbers: str) -> None:
        """Drop tasks from quarantine; their outcomes stay. Raise UsageError for an id not in quarantine.

        An unreadable record can be dropped, too: by its key, as in `garbage`, or by the last part of the key.
        """
        found, unreadable = self._read_quarantine()
        names = self._names(numbers, {*found, *unreadable})
        self._remove(names)
        for name in names:
            self._access.garbage.pop(self._access.store.keys.quarantined(name), None)

    def _quarantined(self, numbers: Iterable[str]) -> list[QuarantinedTask]:
        found, unreadable = self._read_quarantine()
        names = self._names(numbers, {*found, *unreadable})
        for name in names:
            if name in unreadable:
                raise UsageError(
                    f"the record {name!r:.100} in quarantine is unreadable, so it cannot be released; drop the record"
                    f" instead ({unreadable[name]})"
                )
        return [found[name] for name in names]

    def _read_quarantine(self) -> tuple[dict[str, QuarantinedTask], dict[str, str]]:
        """Return the tasks in quarantine, and the errors of unreadable records, by the last part of the key."""
        store = self._access.store
        found: dict[str, QuarantinedTask] = {}
        unreadable: dict[str, str] = {}
        for entry in self._access.ask(lambda: store.backend.list(store.keys.quarantine)):
            try:
                found[last_part(entry.key)] = _decode_quarantined(entry)
            except GarbageError as error:
                unreadable[last_part(entry.key)] = str(error)
                store.report(entry.key, str(error))
        return found, unreadable

    def _names(self, numbers: Iterable[str], known: set[str]) -> list[str]:
        """Return the last parts of the keys that *numbers* name, each once. Raise UsageError for an unknown number."""
        names: dict[str, None] = {}
        for number in numbers:
            check_text("the id of a task in quarantine", number)
            name = number.removeprefix(self._access.store.keys.quarantined(""))
            if name not in known:
                raise UsageError(f"group {self.group!r} has no task {number!r:.100} in quarantine")
            names[name] = None
        return list(names)

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            change = Delete(self._access.store.keys.quarantined(name))
            self._access.ask(lambda change=change: _remove(self._access.store.backend, change))  # type: ignore[misc]  # mypy cannot infer a lambda's default

    def events(self) -> list[Mapping[str, object]]:
        """Return the events noted by members, oldest first by their wall clocks; a bounded number for each member."""
        return self._access.ask(lambda: read_events(self._access.store))


def _decode_quarantined(entry: Entry) -> QuarantinedTask:
    found = QuarantinedTask.from_json(entry.value)
    if found.id != last_part(entry.key):  # Otherwise `drop` would delete another record.
        raise GarbageError(f"the record names another task in quarantine: {found.id!r:.40}")
    return found


def _remove(backend: CoordinationBackend, change: Delete) -> None:
    """Delete a record; do nothing if the record is gone. If the outcome is unknown, try until the record is gone."""
    try:
        backend.commit([], [change])
    except OutcomeUnknownError:
        backend.sync()
        if backend.get(change.key) is not None:
            _remove(backend, change)
