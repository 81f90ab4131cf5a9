"""The client: hand in work, watch it, collect what came of it. Joins nothing, holds no lease."""

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from smoothcluster.backend import CoordinationBackend, Delete
from smoothcluster.clock import SYSTEM_CLOCK, Clock
from smoothcluster.errors import DuplicateTaskError, JobClosedError, OutcomeUnknownError, UsageError
from smoothcluster.group.election import role_of
from smoothcluster.group.events import read_events
from smoothcluster.group.joining import ENOUGH
from smoothcluster.group.resizing import Respec, try_change
from smoothcluster.group.view import View, parse_spec, read_view
from smoothcluster.jobs.submission import FINISHED, Progress, Submission, read_progress
from smoothcluster.model import Outcome, State, Task, check_name
from smoothcluster.records.group import COUNTS, GarbageError, Job, Keys, Spec, last_part, load
from smoothcluster.records.quarantine import Condemned, name_of_release
from smoothcluster.retry import patiently

log = logging.getLogger("smoothcluster")

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds for which a client goes on asking a store that is away."""

BATCH = 32
"""Results records read in one step."""


class Access:
    """How a client gets at its group: patiently, and with an eye for garbage."""

    def __init__(self, backend: CoordinationBackend, group: str, clock: Clock, patience: float) -> None:
        self.backend, self.group, self.clock, self.patience = backend.for_group(group), group, clock, patience
        self.keys = Keys(group)
        self.garbage: dict[str, str] = {}

    def ask(self, question: Callable[[], T]) -> T:
        """Ask the store, again and again while it is away and patience lasts."""
        return patiently(self.clock, self.patience, question)

    def report(self, key: str, what: str) -> None:
        """Note that something under *key* does not belong there."""
        if key not in self.garbage:
            log.warning("garbage at %s: %s", key, what)
        self.garbage[key] = what

    def spec(self) -> Spec:
        """The group's numbers; raise UsageError if there is no group."""
        spec = self.ask(lambda: parse_spec(self.backend.get(self.keys.spec)))
        if spec is None:
            raise UsageError(f"there is no group {self.group!r} at {self.backend.url}")
        return spec.record


class JobHandle:
    """One job of a group."""

    def __init__(self, access: Access, job_id: str) -> None:
        self.id = job_id
        self._access = access

    def __repr__(self) -> str:
        return f"<job {self.id} of group {self._access.group}>"

    def progress(self) -> Progress:
        """How far it is, in tasks. `Progress.finished` is exact, not a guess."""
        access, spec = self._access, self._access.spec()
        return access.ask(lambda: read_progress(access.backend, access.keys, self.id, spec, access.report))

    def wait(self, timeout: float | None = None) -> Progress:
        """Wait until every task has its outcome; raise TimeoutError after *timeout* seconds."""
        clock = self._access.clock
        deadline = None if timeout is None else clock.monotonic() + timeout
        pause = 0.01
        while not (progress := self.progress()).finished:
            if deadline is not None and clock.monotonic() >= deadline:
                raise TimeoutError(f"job {self.id!r} is not finished after {timeout} s: {progress}")
            clock.sleep(pause)
            pause = min(pause * 1.5, 0.25)
        return progress

    def results(self) -> Iterator[Outcome]:
        """The outcomes recorded so far, shard by shard, read as they are asked for."""
        for shard in range(self._access.spec().shards):
            yield from self._results_of(self._access.keys.results(self.id, shard))

    def _results_of(self, directory: str) -> Iterator[Outcome]:
        access = self._access
        keys = access.ask(lambda: access.backend.keys(directory))
        for start in range(0, len(keys), BATCH):
            for entry in access.ask(lambda part=keys[start : start + BATCH]: access.backend.get_many(part)):  # type: ignore[misc]  # mypy cannot infer a lambda's default
                if entry is None:
                    continue
                try:
                    yield from outcomes(entry.value)
                except GarbageError as error:
                    access.report(entry.key, str(error))


class Cluster:
    """A group, seen from outside.

    Args:
        backend: where the group lives.
        group: its name.
        clock: where time comes from.
        patience: seconds for which to go on asking a store that is away, before its error escapes.
    """

    def __init__(
        self,
        backend: CoordinationBackend,
        group: str = "default",
        *,
        clock: Clock = SYSTEM_CLOCK,
        patience: float = PATIENCE,
    ) -> None:
        self.group = check_name("group", group)
        self._access = Access(backend, group, clock, patience)

    @property
    def garbage(self) -> Mapping[str, str]:
        """Keys under which something was found that does not belong there, and what is wrong with it."""
        return self._access.garbage

    def submit(self, tasks: Iterable[Task], job: str | None = None) -> JobHandle:
        """Hand in *tasks* as one job; return when they are in the store.

        *job* names it; without, it gets a new id. Naming one that has not finished adds to it:
        tasks it has already are skipped, so a submit that was cut short can simply be repeated.

        Raise DuplicateTaskError if two tasks have the same id (for a list, before anything is
        written), JobClosedError if the job has finished, UnavailableError if the store stays away.
        """
        name = check_name("job", job) if job is not None else secrets.token_hex(6)
        if isinstance(tasks, list | tuple):
            _check_ids(tasks)
        access = self._access
        new_id: Callable[[], str] = lambda: secrets.token_hex(8)  # noqa: E731  # a name for its type
        Submission(access.backend, access.keys, access.clock, name, new_id, access.patience).run(tasks)
        return JobHandle(access, name)

    def job(self, job: str) -> JobHandle:
        """A job by its id; raise UsageError if the group has none of that name."""
        key = self._access.keys.job(check_name("job", job))
        if self._access.ask(lambda: self._access.backend.get(key)) is None:
            raise UsageError(f"group {self.group!r} has no job {job!r}")
        return JobHandle(self._access, job)

    def jobs(self) -> dict[str, str]:
        """The group's jobs by id, and the state of each: open, sealed, finished or deleted."""
        return {name: job.state for name, job in self._jobs().items()}

    def _jobs(self) -> dict[str, Job]:
        found: dict[str, Job] = {}
        for entry in self._access.ask(lambda: self._access.backend.list(self._access.keys.jobs)):
            try:
                found[last_part(entry.key)] = Job.from_json(entry.value)
            except GarbageError as error:
                self._access.report(entry.key, str(error))
        return found

    def absent(self) -> bool:
        """Whether nobody has ever joined the group, nor submitted to it."""
        return self._access.ask(lambda: self._access.backend.get(self._access.keys.spec)) is None

    def spec(self) -> dict[str, int | None]:
        """The group's numbers: runner, backup and shards; runner is None until a member has joined."""
        return _numbers(self._access.spec())

    def change_spec(self, *, runner: int | None = None, backup: int | None = None) -> dict[str, int | None]:
        """Change the numbers of a living group; return them as they are now.

        With more Runners, Backup Runners take the new seats at once. With fewer, the holders of the
        highest seats become Backup Runners, in the very commit that sets the number: they start nothing
        more, and hand their shards over as those fall quiet, or, after their grace period, as they are.
        The number of shards stays. Members that join later must say the new numbers, or none.

        Raise UsageError for numbers that make no sense, or a backup where all are Runners.
        """
        access, wanted = self._access, Respec(runner, backup).check()
        access.spec()  # Raises if there is no such group.
        new_id: Callable[[], str] = lambda: secrets.token_hex(8)  # noqa: E731  # a name for its type
        step: Callable[[], Spec | None] = lambda: try_change(  # noqa: E731  # as above
            access.backend, access.keys, wanted, new_id, access.report
        )
        until = access.clock.monotonic() + access.patience
        while (spec := access.ask(step)) is None:
            if access.clock.monotonic() > until:
                raise OutcomeUnknownError("the store does not take the change, or others were faster again and again")
        if spec.shards < ENOUGH * (spec.runner or 0):
            log.warning(
                "%d shards for %s Runners: shares differ, or some have none; their number stays",
                spec.shards,
                spec.runner,
            )
        return _numbers(spec)

    def status(self) -> dict[str, Any]:
        """The group as it is now: numbers, members, tasks, what nobody owns. As ``status --json`` prints it."""
        access = self._access
        view = access.ask(lambda: read_view(access.backend, access.keys, {}, access.report))
        if view is None:
            raise UsageError(f"there is no group {self.group!r} at {access.backend.url}")
        spec, jobs = view.spec.record, self._jobs()
        return {
            "group": self.group,
            "spec": _numbers(spec),
            "members": _members(view),
            "tasks": _tasks(view, jobs),
            "jobs": {name: job.state for name, job in jobs.items()},
            "unassigned": _unassigned(view),
            "breaker": "open" if view.breaker.record.open else "closed",
            "garbage": dict(access.garbage),
        }

    def quarantine(self) -> list[Condemned]:
        """The tasks that are known to kill, and the evidence, oldest first."""
        found: list[Condemned] = []
        for entry in self._access.ask(lambda: self._access.backend.list(self._access.keys.quarantine)):
            try:
                found.append(Condemned.from_json(entry.value))
            except GarbageError as error:
                self._access.report(entry.key, str(error))
        return sorted(found, key=lambda each: (each.at, each.id))

    def release(self, *numbers: str) -> list[JobHandle]:
        """Let tasks out of quarantine: submit copies of them, as a new job for each that they were of.

        Take them by the ids that `quarantine` gives. Raise UsageError for one that is not there. Should
        it fail half-way, do it again: what was submitted is not submitted twice.
        """
        jobs: dict[str, list[Condemned]] = {}
        for each in self._condemned(numbers):
            jobs.setdefault(each.job, []).append(each)
        handles: list[JobHandle] = []
        for job, condemned in jobs.items():
            name = name_of_release(job, condemned)
            try:
                handles.append(self.submit([each.task for each in condemned], name))
            except JobClosedError:
                handles.append(self.job(name))  # It was cut short after that, and they have run since.
            self._remove(condemned)
        return handles

    def drop(self, *numbers: str) -> None:
        """Forget tasks in quarantine; their outcomes stay. Raise UsageError for one that is not there."""
        self._remove(self._condemned(numbers))

    def _condemned(self, numbers: Iterable[str]) -> list[Condemned]:
        found = {each.id: each for each in self.quarantine()}
        missing = [number for number in numbers if number not in found]
        if missing:
            raise UsageError(f"group {self.group!r} has no task {missing[0]!r:.100} in quarantine")
        return [found[number] for number in dict.fromkeys(numbers)]

    def _remove(self, condemned: Iterable[Condemned]) -> None:
        for each in condemned:
            change = Delete(self._access.keys.quarantined(each.id))
            self._access.ask(lambda change=change: _remove(self._access.backend, change))  # type: ignore[misc]  # mypy cannot infer a lambda's default

    def events(self) -> list[Mapping[str, object]]:
        """What the members noted, oldest first by their wall clocks; a bounded number for each."""
        return self._access.ask(lambda: read_events(self._access.backend, self._access.keys))


def _remove(backend: CoordinationBackend, change: Delete) -> None:
    """Delete a record; if somebody else has, or it is not known whether we have, that is as well."""
    try:
        backend.commit([], [change])
    except OutcomeUnknownError:
        backend.sync()
        if backend.get(change.key) is not None:
            _remove(backend, change)


def _check_ids(tasks: Iterable[Task]) -> None:
    twice = [name for name, count in Counter(getattr(task, "id", None) for task in tasks).items() if name and count > 1]
    if twice:
        raise DuplicateTaskError(f"task {twice[0]!r:.100} appears twice in one submit; nothing was written")


def outcomes(value: bytes) -> Iterator[Outcome]:
    """The outcomes in one results record; raise GarbageError if it is none."""
    data = load(value)
    try:
        runner, epoch = str(data["runner"]), int(data["epoch"])
        for task_id, state, result, error, attempts in data["outcomes"]:
            yield Outcome(str(task_id), State(state), result, error, int(attempts), runner, epoch)
    except (KeyError, ValueError, TypeError) as error:
        raise GarbageError(f"not a result: {error!r:.80}") from None


def _tasks(view: View, jobs: Mapping[str, Job]) -> dict[str, int]:
    """Sums over all jobs, from the counts alone: of the shards, or of the job once it is finished."""
    total: Counter[str] = Counter(written=sum(job.tasks for job in jobs.values()))
    finished = {name: job for name, job in jobs.items() if job.state == FINISHED}
    for job in finished.values():
        total.update({what: getattr(job, what) for what in COUNTS})
    for shard in (read.record for read in view.shards if read is not None):
        for name, tally in shard.counts.items():
            total.update(tally if name not in finished else {})
        total["running"] += sum(chunk.run.bit_count() for chunk in shard.open.values())
    ended = total["skipped"] + total["done"] + total["failed"] + total["quarantined"]
    pending = total["written"] + total["added"] - ended - total["running"]
    return {"pending": max(0, pending)} | {what: total[what] for what in ("running", "done", "failed", "quarantined")}


def _numbers(spec: Spec) -> dict[str, int | None]:
    return {"runner": spec.runner, "backup": spec.backup, "shards": spec.shards}


def _members(view: View) -> list[dict[str, object]]:
    seated = view.seated()
    return [
        {
            "name": member.name,
            "role": str(role_of(view, member.incarnation)),
            "seat": seated.get(member.incarnation),
            "shards": len(view.owned(member.incarnation)),
            "host": member.host,
            "pid": member.pid,
            "running": member.running,
            "suspects": "apart" if member.apart else "alone",
            "capacity": member.capacity,
            "unfit": member.unfit,
            "checked": member.checked,
        }
        for member in sorted(view.living().values(), key=lambda member: member.join)
    ]


def _unassigned(view: View) -> list[int]:
    """The shards whose owner is not among the living."""
    living = view.living()
    return [n for n, read in enumerate(view.shards) if read is None or read.record.owner not in living]
