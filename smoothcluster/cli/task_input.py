"""Tasks as the command line names them: URLs, and files of tasks, one a line."""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, cast, final

from smoothcluster.errors import UsageError
from smoothcluster.jobs.chunks import digest, encode_task
from smoothcluster.model import Task

STDIN_ARGUMENT = "-"

_URL_PATTERN = re.compile(r"https?://[^\s/?#]\S*", re.IGNORECASE)
"""Good enough to notice a slip, and fast: a URL with a host, and no space in it."""


@final
class Feed:
    """The tasks that *names* stand for, read as they are asked for, and where the latest stands.

    A name is an http(s) URL, which is one task; or a file, ``-`` for standard input, with one
    task a line: a JSON object with the fields of a `Task`, or a URL. Empty lines are skipped.
    Raise UsageError for anything else.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)
        self.place = ""
        """File and line, or the URL; empty before the first."""
        self.count = 0
        if self._names.count(STDIN_ARGUMENT) > 1:
            raise UsageError("standard input can be read only once")
        self.repeatable = not [name for name in self._names if not _can_be_read_again(name)]
        """Whether all of it can be read more than once."""

    def __iter__(self) -> Iterator[Task]:
        for name in self._names:
            for task in self._tasks(name):
                self.count += 1
                yield task

    def check(self) -> int:
        """Read all of it, and begin again; return how many. Raise UsageError if one is no task, or there twice."""
        places: dict[bytes, str] = {}
        for task in self:
            encode_task(task)
            mark = digest(task.id)
            if mark in places:
                raise UsageError(f"the same task as at {places[mark]}; leave one of them out")
            places[mark] = self.place
        count = self.count
        self.place, self.count = "", 0
        return count

    def _tasks(self, name: str) -> Iterator[Task]:
        if is_url(name):
            self.place = name
            yield _task_of_url(name)
            return
        shown = "standard input" if name == STDIN_ARGUMENT else name
        with _opened(name) as lines:
            for number, line in enumerate(lines, start=1):
                self.place = f"{shown}, line {number}"
                if text := _text(line):
                    yield parse(text)


def is_url(text: str) -> bool:
    """Whether *text* is meant as the URL of a task."""
    return text.lower().startswith(("http://", "https://"))


def _can_be_read_again(name: str) -> bool:
    """Raise UsageError if it cannot be read at all."""
    if is_url(name) or name == STDIN_ARGUMENT:
        return name != STDIN_ARGUMENT
    path = Path(name)
    try:
        path.stat()
    except FileNotFoundError:
        raise UsageError(f"there is no file {name!r}; a URL must begin with http:// or https://") from None
    except OSError as error:
        raise UsageError(f"cannot read {name!r}: {error.strerror}") from None
    if path.is_dir():
        raise UsageError(f"{name!r} is a directory; name a file of tasks")
    return path.is_file()


def _opened(name: str) -> AbstractContextManager[BinaryIO]:
    if name == STDIN_ARGUMENT:
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {name!r}: {error.strerror}") from None


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"not UTF-8 text: {error.reason} at byte {error.start}") from None


def parse(text: str) -> Task:
    """The task on one line; raise UsageError if there is none."""
    if is_url(text):
        return _task_of_url(text)
    if not text.startswith("{"):
        raise UsageError(f"neither a JSON object nor an http(s) URL: {text!r:.80}")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not JSON: {error}") from None
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
            raise UsageError(f"not a task: its {name} is {json.dumps(data[name])!s:.80}")
    try:
        return Task.from_json(data)
    except ValueError as error:
        raise UsageError(f"not a task: its body64 is not Base64: {error}") from None


def _holds_text(value: object) -> bool:
    return not isinstance(value, dict) or all(
        isinstance(each, str) for each in cast("dict[str, object]", value).values()
    )


def _task_of_url(url: str) -> Task:
    if not _URL_PATTERN.fullmatch(url):
        raise UsageError(f"not a URL that can be fetched: {url!r:.80}")
    return Task(url=url)
