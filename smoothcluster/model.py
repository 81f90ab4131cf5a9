"""The words: what users hand in, what their handlers see, what they get back. All frozen values."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, cast

from smoothcluster.errors import UsageError

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]
"""What can be stored: a JSON value."""

LARGEST_VALUE = 256 * 1024
"""Bytes of JSON that one handler's return value, or one task, may take."""


class Role(StrEnum):
    """What a member is in its group."""

    RUNNER = "runner"
    BACKUP_RUNNER = "backup-runner"


class Evidence(StrEnum):
    """How it is known that a shard's former owner no longer has it."""

    LEFT = "left"
    """It said so itself."""
    PROCESS_GONE = "process_gone"
    """Its port refuses connections, or another incarnation answers there."""
    LEASE_EXPIRED = "lease_expired"
    """The store let its lease run out."""


class State(StrEnum):
    """How a task ended."""

    DONE = "done"
    FAILED = "failed"
    QUARANTINED = "quarantined"


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of work. Within a job its `id` is its identity: a repeat is skipped.

    Without an *id*, one is derived from method, url, params, headers and body: the same
    request is the same task. *meta* is any JSON value for the handler's own use.
    """

    id: str = ""
    url: str | None = None
    method: str = "GET"
    params: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = None
    body: str | bytes | None = None
    meta: object = None

    def __post_init__(self) -> None:
        if not self.id:
            if self.url is None:
                raise UsageError("a Task needs an id or a url")
            object.__setattr__(self, "id", self._derived_id())
        elif len(self.id) > 512:
            raise UsageError(f"a Task's id is at most 512 characters long, not {len(self.id)}")

    def _derived_id(self) -> str:
        request = {name: value for name, value in self.to_json().items() if name not in ("id", "meta")}
        return hashlib.blake2b(_canonical(request).encode(), digest_size=16).hexdigest()

    def to_json(self) -> dict[str, object]:
        """The task as a JSON object that leaves out what is at its default."""
        data: dict[str, object] = {"id": self.id}
        if self.url is not None:
            data["url"] = self.url
        if self.method != "GET":
            data["method"] = self.method
        if self.params is not None:
            data["params"] = dict(self.params)
        if self.headers is not None:
            data["headers"] = dict(self.headers)
        if isinstance(self.body, bytes):
            data["body64"] = base64.b64encode(self.body).decode()
        elif self.body is not None:
            data["body"] = self.body
        if self.meta is not None:
            data["meta"] = self.meta
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "Task":
        """The task that `to_json` wrote, or a person: raise UsageError for an unknown or wrong field."""
        for name, value in data.items():
            if name not in _FITS:
                raise UsageError(f"a task has no field {name!r:.40}")
            if not _FITS[name](value):
                raise UsageError(f"a task's {name} cannot be {value!r:.80}")
        fields: dict[str, Any] = dict(data)
        if "body64" in fields:
            try:
                fields["body"] = base64.b64decode(fields.pop("body64"), validate=True)
            except ValueError as error:
                raise UsageError(f"a task's body64 is not base64: {error}") from None
        return cls(**fields)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _maps_text(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return all(isinstance(part, str) for pair in cast("dict[object, object]", value).items() for part in pair)


_FITS: dict[str, Callable[[object], bool]] = {
    "id": _is_text,
    "url": _is_text,
    "method": _is_text,
    "params": _maps_text,
    "headers": _maps_text,
    "body": _is_text,
    "body64": _is_text,
    "meta": lambda value: True,  # any JSON value will do
}
"""Whether a field's value, as JSON has it, is what a task may have there."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one task ended: exactly one is recorded for every task."""

    task_id: str
    state: State
    value: "JSON"  # Quoted, so that the site shows the name and not the union behind it.
    """What the handler returned, if `state` is done."""
    error: str | None
    """Why not, if it is not."""
    attempts: int
    """How often the task was started, on any member."""
    runner: str
    """Name of the member that recorded it."""
    epoch: int
    """Of the shard, when it was recorded."""


class Stopping(Protocol):
    """A flag a handler may poll or wait for; `threading.Event` is one."""

    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class TaskContext:
    """What a handler knows about the run it is part of, and what it may ask for.

    Attributes:
        member: name of the member that runs it.
        job: id of the job the task belongs to.
        shard: number of the shard.
        epoch: the fencing token: pass it to whatever you write to, and have that refuse
            anything older than it has seen for the shard.
        attempt: 1 for the first start of this task, on any member, and so on.
        stopping: set when the member is leaving, has lost its seat, or may have lost its lease. What the handler
            still returns is recorded if the member still owns the shard, refused if not.
    """

    __slots__ = ("_added", "attempt", "epoch", "job", "member", "shard", "stopping")

    def __init__(self, member: str, job: str, shard: int, epoch: int, attempt: int, stopping: Stopping) -> None:
        self.member = member
        self.job = job
        self.shard = shard
        self.epoch = epoch
        self.attempt = attempt
        self.stopping = stopping
        self._added: list[Task] = []

    def submit(self, tasks: Iterable[Task]) -> None:
        """Add *tasks* to the job, together with this task's outcome: both or neither.

        A task whose id the job already has is skipped. Nothing is added if the handler raises.
        """
        self._added.extend(tasks)

    @property
    def submitted(self) -> list[Task]:
        """What `submit` was given so far."""
        return self._added


Handler = Callable[[Task, TaskContext], object]
"""A handler, sync or ``async def``: returns a JSON value of up to 256 KiB, or raises."""

_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,99}")


def check_name(what: str, name: str) -> str:
    """Return *name* if it can be part of a key; raise UsageError naming *what* it was for if not."""
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise UsageError(f"{what} {name!r} is not valid: use letters, digits, '_', '.', '-', at most 100 characters")
    return name
