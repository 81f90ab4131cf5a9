"""Read tasks from the arguments of ``submit``: URLs, and files with a task on each line."""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, cast, final

from smoothcluster.errors import UsageError
from smoothcluster.jobs.chunks import digest, encode_task
from smoothcluster.jobs.digest_set import DigestSet
from smoothcluster.model import Task

STDIN_ARGUMENT = "-"

_URL_PATTERN = re.compile(r"https?://[^\s/?#]\S*", re.IGNORECASE)
"""A URL with a host and without spaces. The pattern is fast and finds typing errors; it is no full check."""


@final
class Feed:
    """An iterator over the tasks of *names*, with the place of the latest task.

    A name is an http(s) URL, which becomes a task, or a file with a task on each line: a URL, or a JSON object with
    the fields of a `Task`. The name ``-`` is standard input. Empty lines are skipped. Anything else raises UsageError.

    A task with the id of an earlier task is skipped and counted in *repeats*, if *skip_repeats* is true, or if a name
    can be read only once: then a repeat would be found too late for an error that submits nothing.
    """

    def __init__(self, names: Iterable[str], *, skip_repeats: bool = False) -> None:
        self._names = list(names)
        self.place = ""
        """File and line, or the URL; empty before the first task."""
        self.count = self.repeats = 0
        if self._names.count(STDIN_ARGUMENT) > 1:
            raise UsageError("standard input can be read only once; give - once")
        self.repeatable = not [name for name in self._names if not _can_be_read_again(name)]
        """Whether every name can be read more than once."""
        self._skip_repeats = skip_repeats or not self.repeatable

    def __iter__(self) -> Iterator[Task]:
        seen = DigestSet()
        for name in self._names:
            for task in self._tasks(name):
                if self._skip_repeats and not seen.add(digest(task.id)):
                    self.repeats += 1
                    continue
                self.count += 1
                yield task

    def check(self) -> int:
        """Read and count all tasks, then start over. Raise UsageError for a line without a task, and for a repeat."""
        seen = DigestSet()
        for task in self:
            encode_task(task)
            if not self._skip_repeats and not seen.add(digest(task.id)):
                here = self.place
                first = self._first_place(task.id)
                self.place = here
                raise UsageError(
                    f"this task repeats the task at {first}; remove one of the two, or give --skip-repeats"
                )
        count = self.count
        self.place, self.count, self.repeats = "", 0, 0
        return count

    def _first_place(self, task_id: str) -> str:
        """Read the names again, up to the first task with this id: a memory of all places would cost more."""
        for name in self._names:
            for task in self._tasks(name):
                if task.id == task_id:
                    return self.place
        return "an earlier line"  # Somebody has changed the file since.

    def _tasks(self, name: str) -> Iterator[Task]:
        if is_url(name):
            self.place = name
            yield _task_of_url(name)
            return
        shown = "standard input" if name == STDIN_ARGUMENT else name
        with _opened(name) as lines:
            for number, line in enumerate(_readable(lines, shown), start=1):
                self.place = f"{shown}, line {number}"
                if text := _text(line):
                    yield parse(text)


def is_url(text: str) -> bool:
    """Whether *text* has the form of a task's URL."""
    return text.lower().startswith(("http://", "https://"))


def _can_be_read_again(name: str) -> bool:
    """Whether *name* can be read more than once. Raise UsageError for an unreadable name."""
    if is_url(name):
        return True
    if name == STDIN_ARGUMENT:
        if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  # as after <&-
            raise UsageError("standard input is closed, so - names no file; give a file, or open standard input")
        return False
    if not name:
        raise UsageError("an argument is empty; name a file of tasks, or a URL")
    path = Path(name)
    try:
        path.stat()
    except FileNotFoundError:
        raise UsageError(f"there is no file {name!r}; a URL must begin with http:// or https://") from None
    except OSError as error:
        raise UsageError(f"file {name!r} cannot be read: {error.strerror}") from None
    if path.is_dir():
        raise UsageError(f"{name!r} is a directory; name a file of tasks")
    return path.is_file()


def _opened(name: str) -> AbstractContextManager[BinaryIO]:
    if name == STDIN_ARGUMENT:
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise UsageError(f"file {name!r} cannot be read: {error.strerror}") from None


def _readable(lines: Iterable[bytes], shown: str) -> Iterator[bytes]:
    """Yield *lines*. Raise UsageError if the file cannot be read to the end, for example if open for writing only."""
    try:
        yield from lines
    except OSError as error:
        raise UsageError(f"{shown} cannot be read: {error.strerror}") from None


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"the line is not UTF-8 text: {error.reason} at byte {error.start}") from None


def parse(text: str) -> Task:
    """Return the task on a line. Raise UsageError if the line holds no task."""
    if is_url(text):
        return _task_of_url(text)
    if not text.startswith("{"):
        raise UsageError(f"the line is neither a JSON object nor an http(s) URL: {text!r:.80}")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the line is not JSON: {error}") from None
    return _task_of_json(data)


_TEXT_ONLY: tuple[type, ...] = (str,)
_TEXT_OR_NONE = (str, type(None))
_TABLE_OR_NONE = (dict, type(None))
_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "id": _TEXT_ONLY,
    "method": _TEXT_ONLY,
    "url": _TEXT_OR_NONE,
    "body": _TEXT_OR_NONE,
    "body64": _TEXT_ONLY,
    "params": _TABLE_OR_NONE,
    "headers": _TABLE_OR_NONE,
}


def _task_of_json(data: dict[str, object]) -> Task:
    for name, kinds in _FIELD_TYPES.items():
        if name in data and not (isinstance(data[name], kinds) and _holds_text(data[name])):
            raise UsageError(f"the line is no task: {name} cannot be {json.dumps(data[name])!s:.80}")
    try:
        return Task.from_json(data)
    except ValueError as error:
        raise UsageError(f"the line is no task: body64 is not Base64: {error}") from None


def _holds_text(value: object) -> bool:
    return not isinstance(value, dict) or all(
        isinstance(each, str) for each in cast("dict[str, object]", value).values()
    )


def _task_of_url(url: str) -> Task:
    if not _URL_PATTERN.fullmatch(url):
        raise UsageError(f"the URL has no host, or a space in it: {url!r:.80}")
    return Task(url=url)
