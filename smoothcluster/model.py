"""The values of the public interface: tasks from users, contexts for handlers, outcomes. All are frozen."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, cast

from smoothcluster.errors import UsageError

JSON = (
    None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]
)  # name: the format's own name, and the type's name in the documentation
"""Any JSON value."""

LARGEST_VALUE = 256 * 1024
"""Most bytes of JSON in one task, or in one handler's return value."""


class Role(StrEnum):
    """The part of a member in its group."""

    RUNNER = "runner"
    BACKUP_RUNNER = "backup-runner"


class Evidence(StrEnum):
    """The reason why a shard's former owner certainly no longer owns the shard."""

    LEFT = "left"
    """The owner announced its departure."""
    PROCESS_GONE = "process_gone"
    """The owner's port refuses connections, or another incarnation answers there."""
    LEASE_EXPIRED = "lease_expired"
    """The store ended the owner's lease."""


class State(StrEnum):
    """The result of a task: success, failure or quarantine."""

    DONE = "done"
    FAILED = "failed"
    QUARANTINED = "quarantined"


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of work. Within a job, `id` identifies the task: a repeat is skipped.

    Without an *id*, the task derives an id from method, url, params, headers and body: the same
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
        """The task as a JSON object without fields at their default."""
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
        """The task in *data*, written by `to_json` or by a person. Raise UsageError for an unknown or wrong field."""
        for name, value in data.items():
            if name not in _FIELD_CHECKS:
                raise UsageError(f"a task has no field {name!r:.40}")
            if not _FIELD_CHECKS[name](value):
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


_FIELD_CHECKS: dict[str, Callable[[object], bool]] = {
    "id": _is_text,
    "url": _is_text,
    "method": _is_text,
    "params": _maps_text,
    "headers": _maps_text,
    "body": _is_text,
    "body64": _is_text,
    "meta": lambda value: True,  # Any JSON value is allowed.
}
"""For each field of a task in JSON, a check of the value's type."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one task: the job records exactly one outcome for every task."""

    task_id: str
    state: State
    value: "JSON"  # Quoted: the site then shows the name instead of the union.
    """The handler's return value, if `state` is done."""
    error: str | None
    """The reason, if `state` is not done."""
    attempts: int
    """How often members started the task, counted over all members."""
    runner: str
    """Name of the member on which the outcome was recorded."""
    epoch: int
    """Epoch of the shard at the time of the record."""


class Stopping(Protocol):
    """A flag for handlers to poll or wait for; `threading.Event` is such a flag."""

    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class TaskContext:
    """The handler's view of the present run, and a way to add tasks.

    Attributes:
        member: name of the member on which the handler runs.
        job: id of the job of the task.
        shard: number of the shard.
        epoch: the fencing token. Pass the token along with every write to another system. The other system must
            refuse a token older than the newest token seen for the shard.
        attempt: 1 for the first start of this task, on any member, and so on.
        stopping: set when the member is leaving, has lost its seat, or may have lost its lease. A later return value
            of the handler is recorded if the member still owns the shard, refused if not.
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

        The job skips a task with a known id. If the handler raises, the job gets none of the tasks.
        """
        self._added.extend(tasks)

    @property
    def submitted(self) -> list[Task]:
        """The tasks passed to `submit` so far."""
        return self._added


Handler = Callable[[Task, TaskContext], object]
"""A handler, sync or ``async def``: returns a JSON value of up to 256 KiB, or raises."""

_NAME_PATTERN = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,99}")


def check_name(what: str, name: str) -> str:
    """Return *name* if a key can contain the name; if not, raise UsageError that mentions *what* the name is for."""
    if not _NAME_PATTERN.fullmatch(name) or name in (".", ".."):
        raise UsageError(f"{what} {name!r} is not valid: use letters, digits, '_', '.', '-', at most 100 characters")
    return name
