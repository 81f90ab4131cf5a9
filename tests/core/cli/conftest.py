"""A store for each test of a command, a way to run commands on it, and a module of the user."""

import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from cli_kit import Invoke, invoke_on


@pytest.fixture
def url() -> str:
    """A store of this process that no other test uses."""
    return f"memory://{secrets.token_hex(8)}"


@pytest.fixture
def invoke(url: str) -> Invoke:
    """Run a command on the store at *url*."""
    return invoke_on(url)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Write the module ``crawl`` into the current directory, which is a fresh one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "crawl", raising=False)

    def write(code: str) -> None:
        (tmp_path / "crawl.py").write_text(dedent(code))

    return write
