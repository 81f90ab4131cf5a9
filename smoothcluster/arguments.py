"""Checks of arguments: a wrong call of a public function raises UsageError, with the way to correct the call.

Without these checks, Python's own errors (TypeError, AttributeError) would come from the inside of the library, name no
argument, and come late: after a member has joined, or after the first tasks of a job are in the store.
"""

import re
from collections.abc import Mapping
from math import inf

from smoothcluster.errors import UsageError
from smoothcluster.green_threads import refuse_green_threads

_NAME_PATTERN = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,99}")

LONGEST_SECONDS = 1e9
"""The longest time that a call takes, some 30 years. The calls of the system fail beyond 290 years."""


def check_name(what: str, name: str) -> str:
    """Return *name* if a key can contain the name; if not, raise UsageError that mentions *what* the name is for."""
    check_text(what, name)
    if not _NAME_PATTERN.fullmatch(name) or name in (".", ".."):
        raise UsageError(f"{what} {name!r} is not valid: use letters, digits, '_', '.', '-', at most 100 characters")
    return name


def check_text(what: str, value: object) -> None:
    """Raise UsageError unless *value* is text."""
    if not isinstance(value, str):
        raise UsageError(f"{what} must be text, not {value!r:.80}")


def check_seconds(what: str, seconds: object, *, zero: bool = True, endless: bool = False) -> None:
    """Raise UsageError unless *seconds* is a length of time: more than 0, or also 0 if *zero* is true.

    The time may be infinite if *endless* is true.
    """
    number = seconds if isinstance(seconds, int | float) and not isinstance(seconds, bool) else -1
    if not (number >= 0 if zero else number > 0):  # nan is neither.
        raise UsageError(
            f"{what} must be {'0 seconds or more' if zero else 'more than 0 seconds'}, not {seconds!r:.80}"
        )
    if number > LONGEST_SECONDS and not (endless and number == inf):
        raise UsageError(f"{what} must be at most {LONGEST_SECONDS:.0f} seconds, not {seconds!r:.80}")


def check_count(what: str, count: object) -> None:
    """Raise UsageError unless *count* is a whole number of at least 1."""
    if type(count) is not int or count < 1:
        raise UsageError(f"{what} must be a whole number of at least 1, not {count!r:.80}")


def check_timeout(timeout: object) -> None:
    """Raise UsageError unless *timeout* is a length of time, or None for no limit."""
    if timeout is not None:
        check_seconds("timeout", timeout, endless=True)


def check_callable(what: str, value: object) -> None:
    """Raise UsageError unless *value* can be called."""
    if not callable(value):
        raise UsageError(f"{what} must be a function, not {value!r:.80}")


def check_backend(backend: object) -> None:
    """Raise UsageError unless *backend* is the object of a backend, in a process with real threads.

    The message shows no value: the URL of a store may contain a password.
    """
    refuse_green_threads()
    looks_right = any(callable(getattr(backend, method, None)) for method in ("for_group", "lease"))
    if isinstance(backend, type) or not looks_right:
        kind = f"the class {backend.__name__}" if isinstance(backend, type) else type(backend).__name__
        raise UsageError(f"backend must be an object such as connect('zookeeper://127.0.0.1:2181'), not {kind}")


def check_tasks(call: str, tasks: object) -> None:
    """Raise UsageError if *tasks* is certainly no iterable of tasks; *call* is the name of the called function.

    Text and mappings are iterables, too, but iterate over characters and names.
    """
    if not hasattr(type(tasks), "__iter__") or issubclass(type(tasks), str | bytes | Mapping):
        raise UsageError(f'{call} takes Tasks, as in {call}([Task(url="http://localhost/")]), not {shown(tasks)}')


def shown(value: object) -> str:
    """Write a wrong value for a message: the type, and the beginning of the value."""
    return f"{type(value).__name__}: {value!r:.80}"


def check_kind(keyword: str, value: object, kind: type) -> None:
    """Raise UsageError for a plain value in place of a group of options."""
    if value is not None and not isinstance(value, kind):
        raise UsageError(f"{keyword} must be {kind.__name__}(…) or None, not {value!r:.80}")
