"""A backend's options for the commands: read from a file, checked, and never shown."""

import os
from pathlib import Path

import pytest
from cli_kit import one_line
from click.testing import CliRunner, Result

from smoothcluster.cli import logs, main
from smoothcluster.server_options import OPTIONS_VARIABLE


def status(path: Path, url: str = "sqlite://", mode: int = 0o600) -> Result:
    """``smoothcluster status`` with the options in the file at *path*, if there is one."""
    if path.exists():
        path.chmod(mode)
    return CliRunner(env={OPTIONS_VARIABLE: str(path), "SMOOTHCLUSTER_BACKEND": url}).invoke(main, ["status"])


def test_options_reach_the_backend(tmp_path: Path) -> None:
    """What it makes of them is its own affair."""
    path = tmp_path / "options.json"
    path.write_text('{"timeout": -1}')
    assert "timeout" in one_line(status(path, f"sqlite:///{tmp_path}/x.db"), 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[1]", "must hold a JSON object"),
        ('{"x": 1}', "the options of the backend are"),
    ],
    ids=["no file", "no JSON", "no object", "no such option"],
)
def test_a_mistake_is_told_in_a_line(tmp_path: Path, text: str | None, said: str) -> None:
    """With the file's name, where it is at fault."""
    path = tmp_path / "options.json"
    if text is not None:
        path.write_text(text)
    line = one_line(status(path), 2)
    assert said in line
    assert text == '{"x": 1}' or str(path) in line


def test_passwords_are_hidden_from_then_on(tmp_path: Path) -> None:
    """Whoever puts one into a message."""
    path = tmp_path / "options.json"
    path.write_text('{"password": "open sesame", "username": "me"}')
    one_line(status(path), 2)
    assert logs.scrubbed("said open sesame to me") == "said *** to me"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o640, 0o620, 0o602, 0o666])
def test_a_file_that_others_can_read_or_change_is_warned_of(tmp_path: Path, mode: int) -> None:
    """It may hold passwords, and say which authorities are trusted; the warning has the command that mends it."""
    path = tmp_path / "options.json"
    path.write_text('{"timeout": -1, "password": "open sesame"}')
    warning, error = status(path, f"sqlite:///{tmp_path}/x.db", mode).stderr.splitlines()
    assert f"WARNING other users can read or change {path}" in warning
    assert f"chmod 600 {path}" in warning
    assert "open sesame" not in warning + error


@pytest.mark.parametrize(("mode", "owner", "exposed"), [(0o640, 0, False), (0o660, 0, True), (0o644, 0, True)])
def test_a_file_of_root_may_be_for_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, owner: int, exposed: bool
) -> None:
    """That is how root lets a service read a password: the service is in the group, and cannot own the file."""
    path = tmp_path / "options.json"
    path.write_text("{}")
    path.chmod(mode)
    found = list(path.stat())
    found[4] = owner

    def fstat(_: int) -> os.stat_result:
        return os.stat_result(found)

    monkeypatch.setattr(os, "fstat", fstat)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    told = CliRunner(env={OPTIONS_VARIABLE: str(path)}).invoke(main, ["status", "--backend", "memory://x"])
    assert ("other users can read" in told.stderr) == exposed
