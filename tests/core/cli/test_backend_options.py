"""A backend's options for the commands: read from a file, checked, and never shown."""

from pathlib import Path

import pytest
from cli_kit import one_line
from click.testing import CliRunner, Result

from smoothcluster.cli import logs, main
from smoothcluster.errors import OPTIONS_VARIABLE


def status(path: Path, url: str = "sqlite://") -> Result:
    """``smoothcluster status`` with the options in the file at *path*."""
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
