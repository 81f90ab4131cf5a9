"""The demo convinces only if its claims are checked, and can turn out false."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cluster.group import child_environment
from cluster.stores import Kind

from smoothcluster.cli import main
from smoothcluster.cli.demo import command
from smoothcluster.cli.demo.crawl import Line
from smoothcluster.cli.demo.site import INDEX_PATH, STANDARD_LIBRARY, links, pages
from smoothcluster.model import Outcome, State

PAGES = {"/a": "", "/b": ""}
EVENT: dict[str, Any] = {"shards": [0], "from": "dead", "evidence": "process_gone"}
RECORDED = [Outcome(page, State.DONE, None, None, 1, "heir", 2) for page in PAGES]
LOG = [Line(what, at, "heir", 1, 0, page) for page in PAGES for what, at in (("start", 1.5), ("end", 2.0))]


@pytest.mark.promise(3)
@pytest.mark.quick
def test_a_runner_is_killed_and_nothing_is_lost(store: str, kind: Kind, tmp_path: Path) -> None:
    """It ends well, with what was measured as JSON, on every store."""
    done = subprocess.run(
        [sys.executable, "-m", "smoothcluster", "demo", "--backend", store, "--json"],
        cwd=tmp_path, env=child_environment(), capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["done"], found["lost"], found["recorded_twice"]) == (found["pages"], 0, 0)
    assert found["evidence"] == "process_gone"
    assert found["takeover_ms"] > 0
    assert "took over shards" in done.stderr
    assert "\x1b" not in done.stderr, "plain where nobody looks"


def reached(content: Mapping[str, str]) -> set[str]:
    """Follow all links from the index; return the paths. Each link must lead to a page."""
    found, ahead = {INDEX_PATH}, [INDEX_PATH]
    while ahead:
        new = set(links(content[ahead.pop()])) - found
        found |= new
        ahead.extend(new)
    return found


def test_every_page_of_the_site_can_be_reached() -> None:
    """Links lead from the index to a page for each module of the running Python, however many modules it has."""
    content = pages()
    modules = {f"/{path.stem}.html" for path in STANDARD_LIBRARY.glob("*.py")}
    letters = {f"/letter-{name[1].lower()}.html" for name in modules}
    assert reached(content) == content.keys() == {INDEX_PATH} | letters | modules
    assert "/os.html" in modules


def test_a_site_of_any_library(tmp_path: Path) -> None:
    """A folder of two modules makes a site of five pages: the index, two letters and the modules."""
    (tmp_path / "here.py").write_text("import there\nimport elsewhere\n")
    (tmp_path / "there.py").write_text("")
    content = pages(tmp_path)
    assert (
        reached(content)
        == content.keys()
        == {INDEX_PATH, "/letter-h.html", "/letter-t.html", "/here.html", "/there.html"}
    )
    assert links(content["/here.html"]) == ["/there.html"]


def test_a_true_reckoning() -> None:
    """Every page has its outcome, and the handlers' own log says the same."""
    found = command.reckon(PAGES, RECORDED, LOG, EVENT, 1.0, 3.0)
    assert found.as_promised
    assert (found.done, found.takeover_ms) == (2, 500.0)


@pytest.mark.parametrize(
    ("outcomes", "log", "lost", "twice"),
    [
        (RECORDED[:1], LOG, 1, 0),
        (RECORDED, LOG[:2], 1, 0),
        ([*RECORDED, RECORDED[0]], LOG, 0, 1),
        ([Outcome("/a", State.FAILED, None, "no", 1, "heir", 2), RECORDED[1]], LOG, 1, 0),
    ],
    ids=["not recorded", "recorded but never done", "recorded twice", "failed"],
)
def test_a_false_claim_is_found(outcomes: list[Outcome], log: list[Line], lost: int, twice: int) -> None:
    """Whatever is wrong, the status is not 0."""
    found = command.reckon(PAGES, outcomes, log, EVENT, 1.0, 3.0)
    assert (found.as_promised, found.lost, found.recorded_twice) == (False, lost, twice)


@pytest.mark.parametrize(("outcomes", "status"), [(RECORDED, 0), (RECORDED[:1], 1)])
def test_the_status_says_whether_the_claims_are_true(
    monkeypatch: pytest.MonkeyPatch, outcomes: list[Outcome], status: int
) -> None:
    """The table is shown in either case."""
    found = command.reckon(PAGES, outcomes, LOG, EVENT, 1.0, 3.0)

    def play(url: str, folder: Path) -> command.Reckoning:
        return found

    monkeypatch.setattr(command, "_play", play)
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == status
    assert f"lost            {found.lost}" in result.stdout
    assert ("please report" in result.stderr) == (status == 1)
