"""The page about results sinks says what is so."""

import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import pytest
from cluster.group import PATIENCE
from cluster.place import Place
from pages import ROOT, block

from smoothcluster import Task
from smoothcluster.sinks import tables
from smoothcluster.testing import eventually

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


@pytest.mark.slow
def test_a_group_with_a_sink(tmp_path: Path) -> None:
    """The commands and the program of the how-to: outcomes lie in the folder, then in the database."""
    place = Place(tmp_path, f"sqlite:///{tmp_path}/store.db")
    _, run = block("docs/howto/keep-results-outside.md", "sh", "--results").splitlines()
    code = block("docs/howto/keep-results-outside.md", "python", "results=")
    code = code.replace("/var/tmp/items.db", f"{tmp_path}/items.db").replace("connect()", f'connect("{place.url}")')
    run = run.replace("smoothcluster run", f"{sys.executable} -m smoothcluster run").replace(
        "/data/out", f"{tmp_path}/out"
    )
    process = place.start("bash", "-c", f"export SMOOTHCLUSTER_BACKEND={place.url}\nexec {place.adapted(run)}")
    job = place.cluster.submit([Task(url="http://127.0.0.1:1/")])
    job.wait(PATIENCE)
    eventually(lambda: any((tmp_path / "out").rglob("*.jsonl")), PATIENCE)
    place.works_and_leaves(process)
    assert len(list(job.results())) == 1
    process = place.start(sys.executable, "-c", place.adapted(code))
    job = place.cluster.submit([Task(url="http://127.0.0.1:1/")])
    job.wait(PATIENCE)
    with closing(sqlite3.connect(tmp_path / "items.db")) as items:
        eventually(lambda: list(items.execute("SELECT task_id FROM smoothcluster_outcomes")), PATIENCE)
    place.works_and_leaves(process)
