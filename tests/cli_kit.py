"""Running the commands: in this process, or in one of their own."""

import os
import re
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import IO

from click.testing import CliRunner, Result

from smoothcluster.cli import main

DEADLINE = 60
"""Seconds that anything may take."""

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07\r\n2026-01-01 00:00:00,000 INFO forged\v\f\x1c\x85\x9b31m"
    "\u202e\u2066\u200e\u2028\u2029\ufeff\x7f\x00\ud800 end"
)
"""What clears a terminal, names its window, begins a line of its own, or turns the order of letters."""

Invoke = Callable[..., Result]


def invoke_on(url: str) -> Invoke:
    """What runs a command in this process, on the store at *url* unless its arguments name another."""

    def invoke(*args: str, stdin: str | None = None) -> Result:
        return CliRunner(env={"SMOOTHCLUSTER_BACKEND": url}).invoke(main, args, input=stdin)

    return invoke


def harmful(text: str) -> list[str]:
    """What of *text* may move the cursor, hide or turn letters, or pass for a line of the log."""
    bad = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    found = [repr(each) for each in text if each not in "\n\t" and unicodedata.category(each) in bad]
    return found + [line for line in text.split("\n") if line.startswith("2026-01-01")]


def one_line(result: Result, status: int) -> str:
    """What *result* says on standard error, which must be one line without a stack trace, and all there is."""
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "Traceback" not in line
    return line


def _command(args: tuple[str, ...], code: str) -> list[str]:
    start = (
        ["-c", f"{dedent(code)}\nfrom smoothcluster.__main__ import main; main()"] if code else ["-m", "smoothcluster"]
    )
    return [sys.executable, *start, *args]


@contextmanager
def started(
    *args: str, code: str = "", cwd: Path | None = None
) -> Generator[tuple["subprocess.Popen[str]", IO[str], IO[str]]]:
    """The command in a process of its own, on ``memory://``, after *code* has run in it; its output and errors."""
    with subprocess.Popen(
        _command(args, code),
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


Act = Callable[["subprocess.Popen[bytes]"], object]


def ctrl_c(process: "subprocess.Popen[bytes]") -> None:
    """As a terminal does it."""
    process.send_signal(signal.SIGINT)


def on_terminal(*args: str, code: str = "", until: str = "", act: Act = ctrl_c) -> tuple[int, str]:
    """How a command ends whose every output is a terminal, and what people see; *act* is called after *until*."""
    terminal, inside = os.openpty()
    settings = {"SMOOTHCLUSTER_BACKEND": "memory://", "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    command = _command(args, code)
    with subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, env=os.environ | settings) as process:
        os.close(inside)
        try:
            seen = ""
            while chunk := _read(terminal):
                seen += chunk
                if until and until in seen:
                    act(process)
                    until = ""
            return process.wait(DEADLINE), seen
        finally:
            process.kill()
            os.close(terminal)


def counts(seen: str) -> list[tuple[int, str]]:
    """What the bar has shown, one after another: how many are done, of how many."""
    found = [(int(done), total) for done, total in re.findall(r"(\d+)/(\d+|\?)", seen)]
    return [each for each, before in zip(found, [None, *found], strict=False) if each != before]


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # That is how a terminal ends when its last program has.
        return ""
