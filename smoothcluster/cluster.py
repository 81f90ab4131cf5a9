"""The client: hand in work, watch it, collect what came of it. Joins nothing, holds no lease."""

import json
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from smoothcluster.backend import CoordinationBackend
from smoothcluster.clock import SYSTEM_CLOCK, Clock
from smoothcluster.election import role_of
from smoothcluster.errors import DuplicateTaskError, UsageError
from smoothcluster.events import read_events
from smoothcluster.jobs import FINISHED, Progress, Submission, read_progress
from smoothcluster.model import Outcome, State, Task, check_name
from smoothcluster.records import COUNTS, GarbageError, Job, Keys, Spec, last_part, load
from smoothcluster.retry import patiently
from smoothcluster.view import View, parse_spec, read_view

log = logging.getLogger("smoothcluster")

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds for which a client goes on asking a store that is away."""


class JobHandle:
    """One job of a group."""

    def __init__(self, cluster: "Cluster", job_id: str) -> None:
        self._cluster = cluster
        self.id = job_id

    def __repr__(self) -> str:
        return f"<job {self.id} of group {self._cluster.group}>"

    def progress(self) -> Progress:
        """How far it is, in tasks. `Progress.finished` is exact, not a guess."""
        return self._cluster._progress(self.id)  # pyright: ignore[reportPrivateUsage]  # one module, two classes

    def wait(self, timeout: float | None = None) -> Progress:
        """Wait until every task has its outcome; raise TimeoutError after *timeout* seconds."""
        return self._cluster._wait(self.id, timeout)  # pyright: ignore[reportPrivateUsage]  # see above

    def results(self) -> Iterator[Outcome]:
        """The outcomes recorded so far, shard by shard, read as they are asked for."""
        return self._cluster._results(self.id)  # pyright: ignore[reportPrivateUsage]  # see above


class Cluster:
    """A group, seen from outside.

    Args:
        backend: where the group lives.
        group: its name.
        clock: where time comes from.
        patience: seconds for which to go on asking a store that is away, before its error escapes.
    """

    def __init__(
        self, backend: CoordinationBackend, group: str = "default", *, clock: Clock = SYSTEM_CLOCK, patience: float = PATIENCE
    ) -> None:
        self.group = check_name("group", group)
        self.garbage: dict[str, str] = {}
        """Keys under which something was found that does not belong there, and what is wrong with it."""
        self._backend, self._clock, self._patience = backend, clock, patience
        self._keys = Keys(group)

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
        Submission(self._backend, self._keys, self._clock, name, lambda: secrets.token_hex(8), self._patience).run(tasks)
        return JobHandle(self, name)

    def job(self, job: str) -> JobHandle:
        """A job by its id; raise UsageError if the group has none of that name."""
        if self._ask(lambda: self._backend.get(self._keys.job(check_name("job", job)))) is None:
            raise UsageError(f"group {self.group!r} has no job {job!r}")
        return JobHandle(self, job)

    def jobs(self) -> dict[str, str]:
        """The group's jobs by id, and the state of each: open, sealed, finished or deleted."""
        return {name: job.state for name, job in self._read_jobs().items()}

    def _read_jobs(self) -> dict[str, Job]:
        found: dict[str, Job] = {}
        for entry in self._ask(lambda: self._backend.list(self._keys.jobs)):
            try:
                found[last_part(entry.key)] = Job.from_json(entry.value)
            except GarbageError as error:
                self._report(entry.key, str(error))
        return found

    def status(self) -> dict[str, Any]:
        """The group as it is now: numbers, members, tasks, what nobody owns. As ``status --json`` prints it."""
        view = self._ask(lambda: read_view(self._backend, self._keys, {}, self._report))
        if view is None:
            raise UsageError(f"there is no group {self.group!r} at {self._backend.url}")
        return {
            "group": self.group,
            "spec": {
                "runner": view.spec.record.runner,
                "backup": view.spec.record.backup,
                "shards": view.spec.record.shards,
            },
            "members": _members(view),
            "tasks": self._tasks(view),
            "jobs": self.jobs(),
            "unassigned": _unassigned(view),
            "breaker": "closed",
            "garbage": self.garbage,
        }

    def events(self) -> list[Mapping[str, object]]:
        """What the members noted, oldest first by their wall clocks; a bounded number for each."""
        return self._ask(lambda: read_events(self._backend, self._keys))

    def _ask(self, question: Callable[[], T]) -> T:
        return patiently(self._clock, self._patience, question)

    def _report(self, key: str, what: str) -> None:
        if key not in self.garbage:
            log.warning("garbage at %s: %s", key, what)
        self.garbage[key] = what

    def absent(self) -> bool:
        """Whether nobody has ever joined the group, nor submitted to it."""
        return self._ask(lambda: self._backend.get(self._keys.spec)) is None

    def _spec(self) -> Spec:
        spec = self._ask(lambda: parse_spec(self._backend.get(self._keys.spec)))
        if spec is None:
            raise UsageError(f"there is no group {self.group!r} at {self._backend.url}")
        return spec.record

    def _progress(self, job: str) -> Progress:
        spec = self._spec()
        return self._ask(lambda: read_progress(self._backend, self._keys, job, spec, self._report))

    def _wait(self, job: str, timeout: float | None) -> Progress:
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        pause = 0.01
        while not (progress := self._progress(job)).finished:
            if deadline is not None and self._clock.monotonic() >= deadline:
                raise TimeoutError(f"job {job!r} is not finished after {timeout} s: {progress}")
            self._clock.sleep(pause)
            pause = min(pause * 1.5, 0.25)
        return progress

    def _results(self, job: str) -> Iterator[Outcome]:
        for shard in range(self._spec().shards):
            directory = self._keys.results(job, shard)
            for key in self._ask(lambda directory=directory: self._backend.keys(directory)):
                entry = self._ask(lambda key=key: self._backend.get(key))
                if entry is None:
                    continue
                try:
                    yield from outcomes(entry.value)
                except GarbageError as error:
                    self._report(key, str(error))

    def _tasks(self, view: View) -> dict[str, int]:
        """Sums over all jobs, from the counts alone: of the shards, or of the job once it is finished."""
        total: Counter[str] = Counter()
        finished: set[str] = set()
        for name, job in self._read_jobs().items():
            total["written"] += job.tasks
            if job.state == FINISHED:
                finished.add(name)
                total.update({what: getattr(job, what) for what in COUNTS})
        for read in view.shards:
            if read is not None:
                for name, tally in read.record.counts.items():
                    total.update(tally if name not in finished else {})
                total["running"] += sum(chunk.run.bit_count() for chunk in read.record.open.values())
        ended = total["skipped"] + total["done"] + total["failed"] + total["quarantined"]
        pending = total["written"] + total["added"] - ended - total["running"]
        return {"pending": max(0, pending)} | {
            what: total[what] for what in ("running", "done", "failed", "quarantined")
        }


def _check_ids(tasks: Iterable[Task]) -> None:
    twice = [name for name, count in Counter(task.id for task in tasks if isinstance(task, Task)).items() if count > 1]
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


def _members(view: View) -> list[dict[str, object]]:
    return [
        {
            "name": member.name,
            "role": str(role_of(view, member.incarnation)),
            "seat": view.seated().get(member.incarnation),
            "shards": len(view.owned(member.incarnation)),
            "host": member.host,
            "pid": member.pid,
            "running": member.running,
        }
        for member in sorted(view.living().values(), key=lambda member: member.join)
    ]


def _unassigned(view: View) -> list[int]:
    """The shards whose owner is not among the living."""
    living = view.living()
    return [n for n, read in enumerate(view.shards) if read is None or read.record.owner not in living]
