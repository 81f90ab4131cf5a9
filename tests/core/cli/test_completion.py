"""``smoothcluster completion``: shells complete what there is."""

import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from cli_kit import DEADLINE, invoke_on, one_line
from pages import block

from smoothcluster.clock import SYSTEM_CLOCK


def told(shell: str) -> tuple[str, str]:
    """In which file to put what, as the page and the help say it."""
    lines = block("docs/reference/commands.md", "text", "completion bash")
    assert lines.splitlines() == [
        line.strip() for line in invoke_on("memory://")("completion", "--help").stdout.splitlines()[-3:]
    ]
    ((file, line),) = re.findall(rf"^{shell}, in ~/(\S+): +(.*)$", lines, re.MULTILINE)
    return file, line


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, of a user on whose path the command is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TERM", "xterm")
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def seen(terminal: int, pattern: str) -> str:
    """What a terminal shows that fits *pattern*, or the pattern's group."""
    shown, until = "", SYSTEM_CLOCK.monotonic() + DEADLINE
    while not (found := re.search(pattern, shown)):
        assert select.select([terminal], [], [], max(0.0, until - SYSTEM_CLOCK.monotonic()))[0], shown
        shown += os.read(terminal, 65536).decode(errors="replace")
    return found[1]


def completed(shell: str, home: Path, lines: Iterable[str]) -> list[str]:
    """What each of the *lines* has become, once the tabulator key was pressed in an interactive *shell*."""
    file, line = told(shell)
    (home / file).write_text(f"{line}\nPS1='ready> '\n")
    terminal, inside = os.openpty()
    command = ["setsid", "--ctty", shell, "-i"]
    with subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, cwd=home) as process:
        os.close(inside)
        try:
            seen(terminal, "(ready> )")
            return [_completed(terminal, line) for line in lines]
        finally:
            process.kill()
            os.close(terminal)


def _completed(terminal: int, line: str) -> str:
    os.write(terminal, f"{line}\t\x01echo it is: \r".encode())  # ^A goes to the beginning of the line.
    return seen(terminal, r"[\r\n]it is: (.*)\r(?s:.*)ready> ").strip()


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_tabulator_completes(shell: str, home: Path) -> None:
    """Commands and options, in a real shell of a user who has done what the page says."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} found: apt-get install {shell}")
    lines = completed(shell, home, ["smoothcluster st", "smoothcluster run --mem"])
    assert lines == ["smoothcluster status", "smoothcluster run --members"]


@pytest.mark.slow
def test_fish_completes(home: Path) -> None:
    """It has a command that tells what the tabulator key would do."""
    if shutil.which("fish") is None:
        pytest.skip("no fish found: apt-get install fish")
    file, line = told("fish")
    (home / file).parent.mkdir(parents=True)
    (home / file).write_text(line)
    ask = "complete -C 'smoothcluster st'; complete -C 'smoothcluster run --mem'"
    done = subprocess.run(["fish", "-c", ask], capture_output=True, text=True, check=True)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["status", "--members"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell: str) -> None:
    """Another is a mistake."""
    assert f"_SMOOTHCLUSTER_COMPLETE={shell}_complete" in invoke_on("memory://")("completion", shell).stdout
    assert "is not one of 'bash', 'zsh', 'fish'" in one_line(invoke_on("memory://")("completion", "cmd"), 2)
