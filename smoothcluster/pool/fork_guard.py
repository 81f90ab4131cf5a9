"""The fork guard: ends copies of this process made by a handler with `os.fork()`.

Parent and copy both return from the handler. Without the guard the copy would go on as half a member, deliver the
outcome a second time, and start waiting tasks.
"""

import os


class _Forks:
    count = 0


def count() -> int:
    """Return the number of forks between this process and the process that first imported this module."""
    return _Forks.count


def end_copies(before: int) -> None:
    """End this process if a fork made this process after `count` returned *before*."""
    if _Forks.count != before:
        os._exit(0)  # pragma: no cover  # by whoever is not there any more


def _forked() -> None:  # pragma: no cover  # copies do not live to tell
    _Forks.count += 1


os.register_at_fork(after_in_child=_forked)
