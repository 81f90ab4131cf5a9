"""Running the commands: in this process, or in one of their own."""

import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import IO

from click.testing import CliRunner, Result

from smoothcluster.cli import main

DEADLINE = 60
"""Seconds that anything may take."""

Invoke = Callable[..., Result]


def invoke_on(url: str) -> Invoke:
    """What runs a command in this process, on the store at *url* unless its arguments name another."""

    def invoke(*args: str, stdin: str | None = None) -> Result:
        return CliRunner(env={"SMOOTHCLUSTER_BACKEND": url}).invoke(main, args, input=stdin)

    return invoke


def one_line(result: Result, status: int) -> str:
    """What *result* says on standard error, which must be one line without a stack trace, and all there is."""
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "Traceback" not in line
    return line


@contextmanager
def started(
    *args: str, code: str = "", cwd: Path | None = None
) -> Generator[tuple["subprocess.Popen[str]", IO[str], IO[str]]]:
    """The command in a process of its own, on ``memory://``, after *code* has run in it; its output and errors."""
    start = ["-c", f"{dedent(code)}\nfrom smoothcluster.cli import main; main()"] if code else ["-m", "smoothcluster"]
    with subprocess.Popen(
        [sys.executable, *start, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | {"SMOOTHCLUSTER_BACKEND": "memory://"},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process, process.stdout, process.stderr
        finally:
            process.kill()
