"""What pages tell those who begin, here or with a backend of their own: what can be tried within a test is."""

import configparser
import itertools
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT, block, blocks

from smoothcluster import connect
from smoothcluster.backend import CoordinationBackend, Lease
from smoothcluster.registry import ENTRY_POINT_GROUP
from smoothcluster.testing import BackendConformance


def tox() -> configparser.RawConfigParser:
    """Its settings."""
    settings = configparser.RawConfigParser()
    settings.read(ROOT / "tox.ini", encoding="utf-8")
    return settings


def environments() -> Iterator[str]:
    """Those that tox knows."""
    yield from (name.partition(":")[2] for name in tox().sections())
    for line in tox()["tox"]["env_list"].split():
        parts = re.split(r"\{(.*?)\}", line)
        yield from ("".join(choice) for choice in itertools.product(*(part.split(",") for part in parts)))


def test_newcomers_commands_are_tried_by_a_script() -> None:
    """The first of the README and of the tutorial take a new environment and half a minute: tox has one for them."""
    readme, _ = blocks("README.md", "sh")
    install = block("docs/tutorial/first-cluster.md", "sh", "pip install")
    script = ROOT / "scripts" / "try_readme"
    shown = subprocess.run([script, "--show"], capture_output=True, text=True, check=True).stdout
    *commands, last = readme.splitlines(keepends=True)
    assert shown == "".join(commands) + install
    assert last.startswith("scripts/test ")
    assert tox()["testenv:demo"]["commands"] == "scripts/try_readme"
    assert "demo" in environments()


def test_contributors_commands_exist() -> None:
    """Running them is what runs this test; each is a program that is there, for environments and files that are."""
    known = set(environments())
    for line in block("CONTRIBUTING.md", "sh", "scripts/setup").splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == ".venv/bin/python" or os.access(ROOT / program, os.X_OK), line
        named = arguments[arguments.index("-e") + 1].split(",") if "-e" in arguments else []
        assert set(named) <= known, line
        assert all((ROOT / each).exists() for each in arguments if "/" in each), line


def test_an_entry_point_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the lines of the page in its pyproject.toml, a distribution's backend is found by its scheme."""
    text = block("backends/README.md", "toml", "entry-points")
    ((name, value),) = tomllib.loads(text)["project"]["entry-points"][ENTRY_POINT_GROUP].items()
    point = EntryPoint(name, value, ENTRY_POINT_GROUP)
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{name} = {value}\n")
    code = f"class {point.attr}:\n    @classmethod\n    def from_url(cls, url): return url\n"
    (tmp_path / f"{point.module}.py").write_text(code)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert connect("mine://here") == "mine://here"  # type: ignore[comparison-overlap]


def test_a_conformance_class_of_ones_own() -> None:
    """The page's has all that one must have."""
    names: dict[str, Any] = {each.__name__: each for each in (BackendConformance, CoordinationBackend, Lease)}
    exec(block("backends/README.md", "python", "BackendConformance"), names)
    assert issubclass(names["TestMine"], BackendConformance)
    assert isinstance(names["TestMine"](), BackendConformance), "nothing is left abstract"
