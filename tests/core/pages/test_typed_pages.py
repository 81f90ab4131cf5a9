"""The programs that pages show pass a strict type checker, as a stranger's own project may ask."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from pages import blocks, blocks_of, named, pages

import smoothcluster

pytestmark = pytest.mark.slow

SHOWN = ("README.md", "docs/tutorial/", "docs/howto/", "docs/reference/")
UNTYPED = "docs/howto/migrate-from-smoothcrawler-cluster.md"
"""Shows code with a package that has no types."""


def test_programs_pass_mypy(tmp_path: Path) -> None:
    """As they stand; `crawl` is the tutorial's."""
    if find_spec("mypy") is None:
        pytest.skip("needs mypy, as `tox run -e typing` has it")
    (handler,) = blocks("docs/tutorial/first-cluster.md", "python")
    (tmp_path / "crawl.py").write_text(handler, encoding="utf-8")
    names = ["crawl.py"]
    for page in pages():
        if named(page).startswith(SHOWN) and named(page) != UNTYPED:
            for each in blocks_of(page):
                if each.language == "python":
                    names.append(f"page_{len(names)}.py")
                    (tmp_path / names[-1]).write_text(f"# {each.page}, line {each.line}\n{each.code}", encoding="utf-8")
    assert len(names) > 15
    home = Path(smoothcluster.__file__).parents[1]
    # A checkout must be named; mypy finds installed packages by itself.
    path = "" if home.name == "site-packages" else os.pathsep.join(map(str, [home, *home.glob("backends/*/")]))
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=", *names]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"MYPYPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
