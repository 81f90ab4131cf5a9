"""Read the tasks of a chunk; of a damaged chunk, every readable task, and a place holder for each other task.

A place holder keeps the count of the chunk's tasks, so the job's counts add up: the owner records the place holder as
a failed task. The number of tasks in a chunk is in the shard's record if the chunk is open, or in the chunk's name.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from smoothcluster.backend import Entry
from smoothcluster.errors import UsageError
from smoothcluster.jobs.chunks import size_of
from smoothcluster.model import Task
from smoothcluster.records.codec import GarbageError, expect_array, parse
from smoothcluster.records.keys import last_part
from smoothcluster.records.salvage import as_text, split_array


@dataclass(frozen=True, slots=True)
class UnreadableTask:
    """Place holder for a task that cannot be read."""

    id: str
    """The id of the task, or ``<chunk>#<index>`` if the id cannot be read either."""
    error: str


ReadTask = Task | UnreadableTask


def read_chunk(name: str, value: bytes, open_size: int | None = None) -> list[ReadTask]:
    """Return the tasks of the chunk *name*, in their order.

    *open_size* is the number of tasks of an open chunk. The bitmaps of an open chunk tell the tasks by their places, so
    an array of another length yields place holders only.

    Raise GarbageError if nobody can tell how many tasks the chunk has: neither the shard's record, nor the name, nor an
    array with a readable task.
    """
    elements, after, whole, reason = _split(value)
    counted = open_size if open_size is not None else size_of(name)
    if counted is None and not (whole and elements):
        raise GarbageError(f"the record is not a chunk: {reason}")
    size = len(elements) if counted is None else counted
    if whole and open_size is not None and len(elements) != open_size:
        elements = []
    missing = max(0, size - len(elements) - len(after))
    row = [*elements, *[_NO_ELEMENT] * missing, *after][:size]
    tasks = [_task(name, index, element, reason) for index, element in enumerate(row)]
    if counted is None and not any(isinstance(task, Task) for task in tasks):
        # A stranger's record: its tasks are not among the tasks that the job counts.
        raise GarbageError(f"the record is not a chunk: {_reason(tasks)}")
    return tasks


def least_size(value: bytes) -> int:
    """Return how many tasks a damaged chunk has at least."""
    elements, after, _, _ = _split(value)
    return len(elements) + len(after)


def _split(value: bytes) -> tuple[list[Any], list[Any], bool, str]:
    """Return the elements before and after the damage, whether the array is whole, and a description."""
    try:
        elements = _elements(value)
    except GarbageError as error:
        if value[:1] != b"[":
            return [], [], False, str(error)
        return *split_array(as_text(value), 1, "]", '{"id":'), str(error)
    return elements, [], True, f"the chunk has {len(elements)} readable tasks"


def _elements(value: bytes) -> list[Any]:
    """Return the elements of a JSON array; none for other JSON. Raise GarbageError if *value* is not JSON."""
    try:
        return expect_array(parse(value))
    except TypeError:
        return []


def read_entries(
    entries: Iterable[Entry | None], open_size: Callable[[str], int | None], report: Callable[[str, str], object]
) -> dict[str, list[ReadTask]]:
    """Return the tasks of each chunk in *entries* by name, as `read_chunk` does; report what cannot be read."""
    found: dict[str, list[ReadTask]] = {}
    for entry in entries:
        if entry is None:
            continue  # The chunk was finished and deleted after a slower read had listed the name.
        name = last_part(entry.key)
        try:
            found[name] = tasks = read_chunk(name, entry.value, open_size(name))
        except GarbageError as error:
            report(entry.key, str(error))
            continue
        bad = [task for task in tasks if isinstance(task, UnreadableTask)]
        if bad:
            report(entry.key, f"{len(bad)} of {len(tasks)} tasks are not readable: {bad[0].error}")
    return found


def lost_chunk(name: str, size: int) -> list[ReadTask]:
    """Return place holders for the tasks of an open chunk that is not in the store any more."""
    return [UnreadableTask(f"{name}#{index}", "the store has lost the task") for index in range(size)]


def _reason(tasks: Iterable[ReadTask]) -> str:
    return next(task.error for task in tasks if isinstance(task, UnreadableTask))


_NO_ELEMENT = object()


def _task(name: str, index: int, element: Any, reason: str) -> ReadTask:
    if element is _NO_ELEMENT:
        return UnreadableTask(f"{name}#{index}", f"the task is not readable: {reason}")
    try:
        return Task.from_json(element)
    except (ValueError, TypeError, AttributeError, RecursionError, UsageError) as error:
        return UnreadableTask(_own_id(element) or f"{name}#{index}", f"the task is not readable: {error!s:.200}")


def _own_id(element: Any) -> str | None:
    """Return the id in *element*, if a task may have this id."""
    found = cast("dict[str, Any]", element).get("id") if isinstance(element, dict) else None
    try:
        return Task(id=found).id if isinstance(found, str) else None
    except UsageError:
        return None
