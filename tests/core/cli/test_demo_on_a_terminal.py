"""The demo as people see it, played by the script that draws it for the README."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from cli_kit import counts
from pages import ROOT


@pytest.fixture
def script() -> ModuleType:
    """`scripts/record_demo.py`."""
    spec = importlib.util.spec_from_file_location("record_demo", ROOT / "scripts" / "record_demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words(picture: Path) -> str:
    """What stands in an SVG."""
    text = " ".join(re.findall(r"<text [^>]*>([^<]*)</text>", picture.read_text(encoding="utf-8")))
    return text.replace("&#160;", " ")


def whole(told: str) -> str:
    """The end of the bar in a picture, by the number of pages that the picture itself names.

    Each Python has another number of modules, and so another number of pages.
    """
    (pages,) = re.findall(r"a site of (\d+) pages", told)
    return f"{pages}/{pages}"


@pytest.mark.slow
def test_a_bar_moves_to_its_end(script: ModuleType, tmp_path: Path) -> None:
    """What happens meanwhile stays above it, and the picture has what is left on the screen, as the README's has."""
    written: str = script.played()
    shown = counts(written)
    done = [each for each, _ in shown]
    assert done == sorted(done), "never back"
    assert len(set(done)) > 5
    end = f"{done[-1]}/{done[-1]}"
    assert end == f"{done[-1]}/{shown[-1][1]}"

    script.draw(written, tmp_path / "demo.svg")
    drawn = words(tmp_path / "demo.svg")
    assert whole(drawn) == end
    for told in (drawn, words(ROOT / "docs" / "demo.svg")):
        for what in ("smoothcluster demo", "SIGKILL to", "took over shards", whole(told), "recorded twice"):
            assert what in told
        assert told.count("crawling") == 1, "a bar is drawn over the one before"
