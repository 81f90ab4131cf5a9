"""Ctrl-C while a command still starts: it ends without a word, wherever Python is in its imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_kit import DEADLINE

from smoothcluster import __main__, cli

SCRIPT = [str(Path(sys.executable).parent / "smoothcluster")]
MODULE = [sys.executable, "-m", "smoothcluster"]

STUB = """
import os, signal, sys

class Watcher:
    def find_spec(self, name, path=None, target=None):
        if name == "smoothcluster.__main__":
            self.ours = True
        elif vars(self).get("ours"):
            print(name, file=sys.stderr)
        if name == os.environ.get("STOP_AT"):
            {interrupt}

def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass  # So that it arrives here.

class Deaf:
    def __del__(self):
        ctrl_c()

sys.meta_path.insert(0, Watcher())
"""
"""What Python imports first of all: it sees what is imported from then on, and presses Ctrl-C at one of them."""


def imported_by(command: list[str], folder: Path, at: str = "", interrupt: str = "ctrl_c()") -> tuple[int, list[str]]:
    """How ``--version`` ends, and what it has imported since our first line, if Ctrl-C is pressed where *at* is."""
    (folder / "sitecustomize.py").write_text(STUB.format(interrupt=interrupt))
    environment = os.environ | {"PYTHONPATH": str(folder), "STOP_AT": at}
    done = subprocess.run(
        [*command, "--version"], env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    return done.returncode, done.stderr.split()


@pytest.mark.parametrize("command", [SCRIPT, MODULE], ids=["script", "module"])
def test_it_ends_a_command_that_still_imports(command: list[str], tmp_path: Path) -> None:
    """With status 130 and no stack trace, be it at the first import of all, at the last, or in between."""
    status, names = imported_by(command, tmp_path)
    assert status == 0
    assert {"smoothcluster.cli", "smoothcluster.crawler", "click"} <= set(names)
    for at in [*names[:: len(names) // 4], names[-1]]:
        status, told = imported_by(command, tmp_path, at)
        assert (status, told[-1]) == (130, at), "that is the last that is heard of it"


@pytest.mark.parametrize("command", [SCRIPT, MODULE], ids=["script", "module"])
def test_it_is_heard_where_exceptions_are_not(command: list[str], tmp_path: Path) -> None:
    """Python calls back in places out of which nothing can be raised: an exception there is printed, and lost."""
    status, told = imported_by(command, tmp_path, "click", "Deaf()")
    assert (status, told[-1]) == (130, "click")


def test_who_ignores_it_goes_on(tmp_path: Path) -> None:
    """A script's background ignores it."""
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *MODULE]
    status, told = imported_by(ignoring, tmp_path, "click")
    assert (status, "click" in told) == (0, True)


def test_what_no_command_has_caught_is_told_by_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """As between two of its steps."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupted)
    with pytest.raises(SystemExit) as end:
        __main__.main()
    assert end.value.code == 130
