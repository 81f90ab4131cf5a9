"""The documentation holds together: its links lead somewhere, its code compiles, it leaves nothing out."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import smoothcluster
from smoothcluster.cli import main

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


def named(path: Path) -> str:
    """A page's name among the tests."""
    return str(path.relative_to(ROOT))


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """What *page* links to in the checkout: the file, and the heading or nothing."""
    for file, heading in LINK.findall(FENCE.sub("", page.read_text())):
        yield ((page.parent / file).resolve() if file else page), heading


def anchors(page: Path) -> set[str]:
    """What links to the headings of *page* are made of."""
    titles = HEADING.findall(FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that is there, and a heading in it."""
    for file, heading in links(page):
        assert file.exists(), f"{named(page)} links to {file}"
        assert not heading or heading in anchors(file), f"{named(page)} links to #{heading} of {named(file)}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_in_it_compiles(page: Path) -> None:
    """What is shown as Python is Python."""
    for language, code in FENCE.findall(page.read_text()):
        if language == "python":
            compile(code, named(page), "exec")


def test_every_page_can_be_found_from_the_index() -> None:
    """A page that the index does not name is one that nobody reads."""
    named_there = {file for file, _ in links(DOCS / "README.md")}
    assert set(DOCS.rglob("*.md")) - named_there == {DOCS / "README.md"}


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_option_is_documented(command: str) -> None:
    """The page about commands has every command and every option."""
    text = (DOCS / "reference" / "commands.md").read_text()
    assert f"\n## {command}" in text
    for option in main.commands[command].params:
        if isinstance(option, click.Option) and not option.hidden:
            assert any(f"`{name}" in text for name in option.opts), f"{command} {option.opts}"


def test_every_public_name_is_documented() -> None:
    """The page about the API has every name that the package offers."""
    text = (DOCS / "reference" / "api.md").read_text()
    assert [name for name in smoothcluster.__all__ if name not in text] == []
