"""Checks of arguments: a wrong call of a public function raises UsageError, with the way to correct the call.

Without these checks, Python's own errors (TypeError, AttributeError) would come from the inside of the library, name no
argument, and come late: after a member has joined, or after the first tasks of a job are in the store.
"""

import re
from collections.abc import Mapping
from math import isnan

from smoothcluster.errors import UsageError

_NAME_PATTERN = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,99}")

LONGEST_SECONDS = 1e9
"""The longest time that a call takes as a limit: some 30 years. The system's calls fail beyond 290 years."""


def check_name(what: str, name: str) -> str:
    """Return *name* if a key can contain the name; if not, raise UsageError that mentions *what* the name is for."""
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # users may not check types
        raise UsageError(f"{what} must be text, not {name!r:.80}")
    if not _NAME_PATTERN.fullmatch(name) or name in (".", ".."):
        raise UsageError(f"{what} {name!r} is not valid: use letters, digits, '_', '.', '-', at most 100 characters")
    return name


def check_seconds(what: str, seconds: object, *, zero: bool = True, endless: bool = False) -> None:
    """Raise UsageError unless *seconds* is a length of time.

    The time may be 0 if *zero* is true, and infinite if *endless* is true.
    """
    least = "0 seconds or more" if zero else "more than 0 seconds"
    wrong = UsageError(f"{what} must be {least}, not {seconds!r:.80}")
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or isnan(seconds):
        raise wrong
    if seconds < 0 or (seconds == 0 and not zero) or not (endless or seconds <= LONGEST_SECONDS):
        raise wrong


def check_callable(what: str, value: object) -> None:
    """Raise UsageError unless *value* can be called."""
    if not callable(value):
        raise UsageError(f"{what} must be a function, not {value!r:.80}")


def check_backend(backend: object) -> None:
    """Raise UsageError unless *backend* is the object of a backend.

    The message shows no value: the URL of a store may contain a password.
    """
    if isinstance(backend, type) or not callable(getattr(backend, "for_group", None)):
        kind = f"the class {backend.__name__}" if isinstance(backend, type) else type(backend).__name__
        raise UsageError(f"backend must be an object such as connect('zookeeper://127.0.0.1:2181'), not {kind}")


def check_tasks(call: str, tasks: object) -> None:
    """Raise UsageError if *tasks* is certainly no iterable of tasks; *call* is the name of the called function.

    Text and mappings are iterables, too, but iterate over characters and names.
    """
    if isinstance(tasks, str | bytes | Mapping) or not hasattr(type(tasks), "__iter__"):
        raise UsageError(f'{call} takes Tasks, as in {call}([Task(url="http://localhost/")]), not {shown(tasks)}')


def shown(value: object) -> str:
    """Write a wrong value for a message: the type, and the beginning of the value."""
    return f"{type(value).__name__}: {value!r:.80}"
