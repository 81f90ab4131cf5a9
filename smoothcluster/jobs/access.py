"""Access of a client to the records of a group, with retries while the store is unavailable."""

import logging
from collections.abc import Callable
from typing import TypeVar

from smoothcluster.arguments import check_name
from smoothcluster.backend import CoordinationBackend, Create, Entry
from smoothcluster.clock import Clock
from smoothcluster.errors import OutcomeUnknownError, UsageError
from smoothcluster.group.spec import new_spec
from smoothcluster.group.store import GroupStore
from smoothcluster.group.view import Versioned
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.group import Spec
from smoothcluster.records.job import Job
from smoothcluster.records.keys import Keys, last_part
from smoothcluster.retry import patiently
from smoothcluster.sinks.cache import OpenSinks

log = logging.getLogger("smoothcluster")

T = TypeVar("T")


CLIENT_RETRY_SECONDS = 30.0
"""Seconds for which a client retries while the store is unavailable."""


def ensure_spec(store: GroupStore) -> Spec:
    """Return the group's spec. Create the spec if there is none: a first submit may come before the first member."""
    while True:
        spec = store.read_spec()
        if spec is not None:
            return spec.record
        try:
            store.backend.commit([], [Create(store.keys.spec, new_spec(None, store.new_id()).to_json())])
        except OutcomeUnknownError:
            store.backend.sync()


def read_job(store: GroupStore, job: str) -> Versioned[Job] | None:
    """Read a job's record; return None if there is none. Raise GarbageError if the record is unreadable."""
    entry = store.backend.get(store.keys.job(job))
    return None if entry is None else Versioned(Job.from_json(entry.value), entry.version)


def read_jobs(store: GroupStore) -> dict[str, Job]:
    """The readable records of all jobs, by id; report the garbage."""
    return store.read_records(store.keys.jobs, _job)


def _job(entry: Entry) -> Job:
    try:
        check_name("job", last_part(entry.key))
    except UsageError as error:
        raise GarbageError(str(error)) from None
    return Job.from_json(entry.value)


class Access:
    """A client's access to a group: retries while the store is unavailable, and notes garbage."""

    def __init__(self, backend: CoordinationBackend, group: str, clock: Clock, patience: float) -> None:
        self.group, self.patience = group, patience
        self.store = GroupStore(backend.for_group(group), Keys(group), self.report, clock)
        self.garbage: dict[str, str] = {}
        self.sinks = OpenSinks()

    def ask(self, question: Callable[[], T]) -> T:
        """Ask the store; retry for ``patience`` seconds while the store is unavailable."""
        return patiently(self.store.clock, self.patience, question)

    def until_known(self, change: Callable[[], T]) -> T:
        """Make a *change* that compares what it changes; repeat the change if its outcome is unknown.

        Raise OutcomeUnknownError if the store answers for long, and takes no commit: its disk may be full.
        """
        clock = self.store.clock
        until = clock.monotonic() + self.patience
        while True:
            try:
                return self.ask(change)
            except OutcomeUnknownError:
                if clock.monotonic() > until:
                    raise
                self.ask(self.store.backend.sync)
                clock.sleep(0.01)

    def report(self, key: str, what: str) -> None:
        """Note garbage at *key*, and log a warning for the first time."""
        if key not in self.garbage:
            log.warning("garbage at %s: %s", key, what)
        self.garbage[key] = what

    def spec(self) -> Spec:
        """Read the group's spec; raise UsageError if there is no group."""
        spec = self.ask(self.store.read_spec)
        if spec is None:
            raise UsageError(f"there is no group {self.group!r} at {self.store.backend.url}")
        return spec.record
