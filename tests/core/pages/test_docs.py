"""The documentation holds together: its links lead somewhere, its blocks are tried, it leaves nothing out."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from importlib import import_module
from pathlib import Path

import click
import pytest
from pages import FENCE, ROOT, Block, blocks_of, named, pages

import smoothcluster
from smoothcluster import Cluster, ClusterCrawler, JobHandle, TaskContext, errors
from smoothcluster.cli import main
from smoothcluster.cli.common import Exit

DOCS = ROOT / "docs"
PAGES = pages()

LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """What *page* links to in the checkout: the file, and the heading or nothing."""
    for file, heading in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        yield ((page.parent / file).resolve() if file else page), heading


def anchors(page: Path) -> set[str]:
    """What links to the headings of *page* are made of."""
    titles = HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that is there, and a heading in it."""
    for file, heading in links(page):
        assert file.exists(), f"{named(page)} links to {file}"
        assert not heading or heading in anchors(file), f"{named(page)} links to #{heading} of {named(file)}"


def asks(file: Path) -> Iterator[list[str]]:
    """What the tests in *file* ask for: the arguments of each call of `block` and `blocks`."""
    code = file.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(code)) if "from pages import" in code else ():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"block", "blocks"}:
            page, *rest = node.args
            parts = page.values if isinstance(page, ast.JoinedStr) else [page]
            written = not node.keywords and all(isinstance(each, ast.Constant) for each in (parts[0], *rest))
            assert written, f"{file}, line {node.lineno}: write out what is asked for"
            yield [_name(parts), *(str(ast.literal_eval(each)) for each in rest)]


def _name(parts: list[ast.expr]) -> str:
    """A page's name, with stars for what is only known when the test runs."""
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts)


def test_every_block_is_tried() -> None:
    """What a page tells to type, to write or to expect is asked for by a test, which tries it."""
    asked = [ask for file in sorted((ROOT / "tests").rglob("test_*.py")) for ask in asks(file)]
    left = [each for page in PAGES for each in blocks_of(page) if not any(each.answers(*ask) for ask in asked)]
    assert [f"{each.page}, line {each.line}" for each in left] == []


def test_what_is_asked_for_is_seen(tmp_path: Path) -> None:
    """The check above is not taken in by a block of another page, language or content."""
    (tmp_path / "test_x.py").write_text('from pages import block\nblock(f"docs/{kind}.md", "sh", "make")\n')
    (tmp_path / "test_y.py").write_text("from pages import block\nblock(page, 'sh', 'make')\n")
    with pytest.raises(AssertionError, match="write out"):
        list(asks(tmp_path / "test_y.py"))
    (ask,) = asks(tmp_path / "test_x.py")
    assert ask == ["docs/*.md", "sh", "make"]
    shown = Block("docs/x.md", 1, "sh", "make it")
    assert shown.answers(*ask)
    others = [replace(shown, page="x.md"), replace(shown, language="text"), replace(shown, code="build it")]
    assert not any(each.answers(*ask) for each in others)


def test_every_page_can_be_found_from_the_index() -> None:
    """Nobody reads a page that no index names: the index of the docs, or the index of the decisions."""
    named = {file for file, _ in links(DOCS / "README.md")}
    decisions = DOCS / "decisions" / "README.md"
    assert decisions in named
    named |= {file for file, _ in links(decisions)}
    assert set(DOCS.rglob("*.md")) - named == {DOCS / "README.md"}


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_option_is_documented(command: str) -> None:
    """The page about commands has every command and every option."""
    text = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    assert f"\n## {command}" in text
    for option in main.commands[command].params:
        if isinstance(option, click.Option) and not option.hidden:
            assert any(f"`{name}" in text for name in option.opts), f"{command} {option.opts}"


def test_every_exit_status_is_documented() -> None:
    """On the page about commands; the help is checked elsewhere."""
    text = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    assert [status for status in Exit if f"\n| {status.value} | " not in text] == []


def test_every_public_name_is_documented() -> None:
    """The page about the API has every name that the package offers."""
    text = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    assert [name for name in smoothcluster.__all__ if name not in text] == []


@pytest.mark.parametrize("kind", [Cluster, ClusterCrawler, JobHandle, TaskContext])
def test_every_public_attribute_is_documented(kind: type) -> None:
    """And every argument of the constructors that users call."""
    text = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    names = {name for name in vars(kind) if not name.startswith("_")}
    if kind is ClusterCrawler:
        names |= {name for name in inspect.signature(kind).parameters if name != "backend"}
    assert sorted(name for name in names if not re.search(rf"`{name}\b|, `{name}\b", text)) == []


def test_every_error_is_documented() -> None:
    """With what to do about it."""
    text = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    assert sorted(name for name in vars(errors) if name.endswith("Error") and f"`{name}`" not in text) == []


PART = re.compile(r"`([\w/]+)\.py: ([\w.]+)`")


def test_the_architecture_page_names_what_there_is() -> None:
    """Every ``file: function`` on the page is in that file."""
    parts = PART.findall((DOCS / "explanation" / "architecture.md").read_text(encoding="utf-8"))
    assert len(parts) > 20
    for file, name in parts:
        module = import_module(f"smoothcluster.{file.replace('/', '.')}")
        found = reduce(getattr, name.split("."), module)
        assert getattr(found, "__module__", None) == module.__name__, f"{file}.py has no {name} of its own"
