"""Copies of this process that a handler makes: `os.fork()`, and both come back from it.

One of them has to go, or half a member goes on: it would answer a second time, and start what waits.
"""

import os


class _Forks:
    count = 0


def count() -> int:
    """How many forks lie between this process and the first that imported this."""
    return _Forks.count


def end_copies(before: int) -> None:
    """End this process if it was forked since `count` was *before*."""
    if _Forks.count != before:
        os._exit(0)  # pragma: no cover  # by whoever is not there any more


def _forked() -> None:  # pragma: no cover  # copies do not live to tell
    _Forks.count += 1


os.register_at_fork(after_in_child=_forked)
