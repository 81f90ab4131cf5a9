"""The values of the public interface: tasks from users, contexts for handlers, outcomes. All are frozen."""

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, cast

from smoothcluster.arguments import check_tasks, shown
from smoothcluster.errors import UsageError

JSON = (
    None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]
)  # name: the format's own name, and the type's name in the documentation
"""Any JSON value."""

LARGEST_VALUE = 256 * 1024
"""Most bytes of JSON in one task, or in one handler's return value."""


MOST_NESTING = 100
"""Most levels of lists and dicts in a value. JSON readers have limits of their own, which depend on the caller."""

_MOST_INT_BITS = 14_000
"""Most bits of an int. Python reads numbers of up to 4300 digits."""

_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def _is_text(value: object) -> bool:
    """Whether *value* is text that JSON returns unchanged: two surrogates in a row would become a single character."""
    return isinstance(value, str) and (value.isascii() or not _SURROGATE_PAIR.search(value))


def why_not_json(value: object) -> str | None:
    """Return why *value*, written as JSON and read again, would not equal *value*; None if it would.

    Subclasses of the JSON types, such as the text of a parser, are read again as the plain types.
    """
    left: list[tuple[object, int]] = [(value, 0)]
    count = 1
    while left:
        item, depth = left.pop()
        if isinstance(item, dict):
            table = cast("dict[object, object]", item)
            for key in table:
                if not _is_text(key):
                    return f"a key is no text: {key!r:.80}"
            parts = [*table.values()]
        elif isinstance(item, list):
            parts = cast("list[object]", item)
        else:
            why = _why_not_plain(item)
            if why is not None:
                return why
            continue
        if depth == MOST_NESTING:
            return f"it has more than {MOST_NESTING} levels of lists and dicts"
        count += len(parts)
        if count > LARGEST_VALUE:
            return f"it has more than {LARGEST_VALUE} parts, or holds itself"
        left += [(part, depth + 1) for part in parts]
    return None


def _why_not_plain(value: object) -> str | None:
    if isinstance(value, str):
        return None if _is_text(value) else "a text has two surrogates in a row"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value!r} is no JSON number"
    if isinstance(value, int):
        return None if value.bit_length() <= _MOST_INT_BITS else "an int has more than 4200 digits"
    if value is None:
        return None
    name = type(value).__name__
    hint = "; use a list" if isinstance(value, tuple | set | frozenset) else ""
    return f"{name} is no JSON type{hint}"


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
        """Raise UsageError, naming the field, for a value that the store would not return as it is."""
        if not self._is_plain_get():
            self._check_fields()
        if self.meta is not None and (why := why_not_json(self.meta)) is not None:
            raise UsageError(f"a Task's meta must be a JSON value: {why}")
        if not self.id:
            if self.url is None:
                raise UsageError("a Task needs an id or a url")
            object.__setattr__(self, "id", self._derived_id())
        elif len(self.id) > 512:
            raise UsageError(f"a Task's id is at most 512 characters long, not {len(self.id)}")

    def _is_plain_get(self) -> bool:
        """Whether no field can be wrong: a fast answer for most tasks."""
        url = self.url
        return (
            type(self.id) is str
            and self.id.isascii()
            and (url is None or (type(url) is str and url.isascii()))
            and type(self.method) is str
            and self.method == "GET"
            and self.params is None
            and self.headers is None
            and self.body is None
        )

    def _check_fields(self) -> None:
        for name, (holds, wanted) in _FIELD_CHECKS.items():
            value = getattr(self, name)
            if not holds(value):
                hint = f"; use str(id), {str(value)!r:.80}" if name == "id" and isinstance(value, int) else ""
                raise UsageError(f"a Task's {name} must be {wanted}, not {value!r:.80}{hint}")

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
        if not isinstance(data, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  # users may not check types
            raise UsageError(f"a task must be a JSON object, not {shown(data)}")
        for name, value in data.items():
            if name not in _JSON_FIELDS:
                raise UsageError(f"a task has no field {name!r:.40}")
            if value is None and name != "meta":
                raise UsageError(f"a task's {name} cannot be null; leave the field out")
        fields: dict[str, Any] = dict(data)
        if "body64" in fields:
            try:
                fields["body"] = base64.b64decode(fields.pop("body64"), validate=True)
            except (TypeError, ValueError) as error:
                raise UsageError(f"a task's body64 is not base64: {error}") from None
        return cls(**fields)


def _is_table(value: object) -> bool:
    if not isinstance(value, dict):
        return value is None
    return all(_is_text(part) for pair in cast("dict[object, object]", value).items() for part in pair)


_FIELD_CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {
    "id": (_is_text, "text"),
    "url": (lambda value: value is None or _is_text(value), "text or None"),
    "method": (_is_text, "text"),
    "params": (_is_table, "a dict of text to text, or None"),
    "headers": (_is_table, "a dict of text to text, or None"),
    "body": (lambda value: value is None or isinstance(value, bytes) or _is_text(value), "text, bytes or None"),
}
"""For each field but ``meta``: a check of the value, and the allowed values, for messages."""

_JSON_FIELDS = {*_FIELD_CHECKS, "body64", "meta"}


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
    task: "Task | None" = field(default=None, compare=False)
    """The task, if `state` is not done: `JobHandle.retry` submits such tasks again. None if the task was not readable,
    left no room for itself in the store, or was recorded by a version that did not keep tasks."""


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

        The job skips a task with a known id. If the handler raises, the job gets none of the tasks. Raise UsageError
        if *tasks* is no iterable of tasks.
        """
        check_tasks("context.submit", tasks)
        added = list(tasks)
        self._added += added  # A wrong element fails the run, even if the handler catches the error below.
        for task in added:
            if not isinstance(task, Task):  # pyright: ignore[reportUnnecessaryIsInstance]  # users may not check types
                raise UsageError(f"context.submit takes Tasks, not {shown(task)}")

    @property
    def submitted(self) -> list[Task]:
        """The tasks passed to `submit` so far."""
        return self._added


Handler = Callable[[Task, TaskContext], object]
"""A handler, sync or ``async def``: returns a JSON value of up to 256 KiB, or raises."""
