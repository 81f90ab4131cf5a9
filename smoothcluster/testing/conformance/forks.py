"""Forked children of the process under test, which report over a pipe."""

import multiprocessing
import os
import select
import signal
import warnings
from collections.abc import Callable

_CHILD_SECONDS = 60.0
"""Seconds after which a forked child counts as hanging."""

Start = Callable[[Callable[[], None]], tuple[int, Callable[[], int]]]
"""Start a forked child with a function to call; return the child's id, and a function that waits for the exit code."""


def in_forked_child(start: Start, act: Callable[[], str]) -> str:
    """Have a child, started by *start*, do *act*; return the child's answer, or the way in which the child ended."""
    reading, writing = os.pipe()

    def report() -> None:
        try:
            said = act()
        except BaseException as error:  # noqa: BLE001  # reported to the parent
            said = repr(error)
        os.write(writing, said.encode())

    with warnings.catch_warnings():
        # Since Python 3.12 a fork of a process with threads warns. Users fork all the same.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid, wait = start(report)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        if not select.select([pipe], [], [], _CHILD_SECONDS)[0]:
            os.kill(pid, signal.SIGKILL)
        answer = pipe.read().decode()
    code = wait()
    return answer if code == 0 else f"{answer!r}, and the child ended with {code}"


def _os_fork(report: Callable[[], None]) -> tuple[int, Callable[[], int]]:
    """Fork as `os.fork` does."""
    pid = os.fork()
    if pid == 0:
        try:
            report()
        finally:
            os._exit(0)
    return pid, lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _multiprocessing_fork(report: Callable[[], None]) -> tuple[int, Callable[[], int]]:
    """Fork as `multiprocessing` does on Linux, by default before Python 3.14."""
    child = multiprocessing.get_context("fork").Process(target=report)
    child.start()
    assert child.pid is not None

    def wait() -> int:
        child.join()
        assert child.exitcode is not None
        return child.exitcode

    return child.pid, wait


WAYS_TO_FORK: dict[str, Start] = {"os.fork": _os_fork, "multiprocessing": _multiprocessing_fork}
"""The ways to fork, by name."""
