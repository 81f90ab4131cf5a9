"""The site of the documentation, without Sphinx: its pages for the docstrings leave out no public name."""

import ast
import importlib
import re
import tomllib
from pathlib import Path

import pytest
from pages import ROOT

import smoothcluster
import smoothcluster.testing

PAGES = ROOT / "docs" / "reference" / "api"

DIRECTIVE = re.compile(r"^\.\. auto(\w+):: (\S+)\n((?:   :.*\n)*)", re.MULTILINE)

WHOLE = ["smoothcluster.errors", "smoothcluster.backend", "smoothcluster.model", "smoothcluster.clock"]
"""Modules in which every public name is documented."""

RECIPES = {"Session", "LeaseState", "Lock"}


def source(module: str) -> ast.Module:
    """The code of a module of the core."""
    return ast.parse(Path(str(importlib.import_module(module).__file__)).read_text())


def defined(module: str) -> set[str]:
    """The public names that *module* itself gives to something."""
    return {name for name in names_of(module) if not name.startswith("_")}


def names_of(module: str, *, described: bool = False) -> set[str]:
    """The names that *module* itself gives to something; *described*: without data that has no docstring."""
    found: set[str] = set()
    body = source(module).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign) and (is_docstring(after) or not described):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def is_docstring(node: ast.stmt | None) -> bool:
    """Whether a statement is nothing but a string."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def on_pages() -> set[str]:
    """Every name that the pages have Sphinx document, with its module."""
    found: set[str] = set()
    for page in PAGES.glob("*.rst"):
        for kind, name, options in DIRECTIVE.findall(page.read_text()):
            if kind != "module":
                found.add(name)
            elif ":no-members:" not in options:
                left_out = re.findall(r"\w+", "".join(re.findall(r":exclude-members:(.*)", options)))
                found |= {f"{name}.{each}" for each in names_of(name, described=True) - set(left_out)}
    return found


def promised() -> set[str]:
    """Every public name, as users import it."""
    top = {f"smoothcluster.{name}" for name in smoothcluster.__all__}
    # What is imported from the package itself is on the page about that.
    whole = {f"{module}.{name}" for module in WHOLE for name in defined(module) - set(smoothcluster.__all__)}
    testing = {f"smoothcluster.testing.{name}" for name in smoothcluster.testing.__all__}
    backends = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["smoothcluster.backends"]
    memory = {"smoothcluster.memory.SocketBackend", "smoothcluster.memory.server.MemoryServer"}
    return top | whole | testing | memory | {place.replace(":", ".") for place in backends.values()}


def test_every_public_name_has_its_docstring_on_a_page() -> None:
    """A new public name needs a directive on a page in docs/reference/api."""
    assert promised() - on_pages() == set()


def test_recipes_are_on_a_page() -> None:
    """Under whatever module they lie."""
    assert RECIPES - {name.rpartition(".")[2] for name in on_pages()} == set()


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.rst")), ids=lambda page: page.stem)
def test_every_page_of_docstrings_is_in_the_list(page: Path) -> None:
    """The first of these pages names the others."""
    assert page.stem == "index" or f"\n   {page.stem}\n" in (PAGES / "index.rst").read_text()


def test_a_name_without_a_page_is_seen() -> None:
    """The check above is not taken in: leaving out a member, or data without a docstring, is noticed."""
    assert "smoothcluster.errors.UnavailableError" in on_pages()
    assert "smoothcluster.model.Task" not in on_pages()
    assert "Condition" in defined("smoothcluster.backend") - names_of("smoothcluster.backend", described=True)
