"""The page about results sinks says what is so."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pages import ROOT, block

from smoothcluster.sinks import tables

PAGE = ROOT / "docs" / "reference" / "results-sinks.md"


def test_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It writes two outcomes, and finds them."""
    code = block("docs/reference/results-sinks.md", "python", "open_sink")
    exec(code.replace("/data/out", str(tmp_path)), {})
    assert capsys.readouterr().out == "['a', 'b']\n"


def test_the_tests(tmp_path: Path) -> None:
    """The kit runs as shown, and finds nothing."""
    code = block("docs/reference/results-sinks.md", "python", "SinkConformance")
    (tmp_path / "test_mysink.py").write_text(code.replace("/tmp/mysink", str(tmp_path / "mysink")), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "killed or late or twice"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "\n5 passed, " in done.stdout, done.stdout


def test_the_registration() -> None:
    """It is TOML, for the group of entry points that is read."""
    text = block("docs/reference/results-sinks.md", "toml", "mysink")
    assert tomllib.loads(text) == {
        "project": {"entry-points": {"smoothcluster.sinks": {"mysink": "my_package:MySink"}}}
    }


def test_every_column_and_table_is_described() -> None:
    """Users query them."""
    text = PAGE.read_text(encoding="utf-8")
    assert [column.name for column in tables.OUTCOMES_TABLE.c if f"`{column.name}`" not in text] == []
    for table in (tables.OUTCOMES_TABLE, tables.PARTS_TABLE, tables.REFUSED_TABLE):
        assert f"`{table.name}`" in text
