"""The site of the documentation, without Sphinx: public names have a page, and pictures name what the code names."""

import ast
import importlib
import re
import tomllib
from pathlib import Path

import pytest
from pages import ROOT, block, blocks

import smoothcluster
import smoothcluster.testing
from smoothcluster.model import Evidence, State
from smoothcluster.recipes.session import LeaseState
from smoothcluster.records.job import (
    JOB_CANCELLED,
    JOB_CANCELLING,
    JOB_DELETED,
    JOB_DELETING,
    JOB_FINISHED,
    JOB_OPEN,
    JOB_SEALED,
)

PAGES = ROOT / "docs" / "reference" / "api"

DIRECTIVE = re.compile(r"^\.\. auto(\w+):: (\S+)\n((?:   :.*\n)*)", re.MULTILINE)

WHOLE = ["smoothcluster.errors", "smoothcluster.backend", "smoothcluster.model", "smoothcluster.clock"]
"""Modules in which every public name is documented."""

RECIPES = {"Session", "LeaseState", "Lock"}


def source(module: str) -> ast.Module:
    """The code of a module of the core."""
    return ast.parse(Path(str(importlib.import_module(module).__file__)).read_text(encoding="utf-8"))


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
        for kind, name, options in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
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
    backends = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"][
        "smoothcluster.backends"
    ]
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
    assert page.stem == "index" or f"\n   {page.stem}\n" in (PAGES / "index.rst").read_text(encoding="utf-8")


def test_a_name_without_a_page_is_seen() -> None:
    """The check above is not taken in: leaving out a member, or data without a docstring, is noticed."""
    assert "smoothcluster.errors.UnavailableError" in on_pages()
    assert "smoothcluster.model.Task" not in on_pages()
    assert "Condition" in defined("smoothcluster.backend") - names_of("smoothcluster.backend", described=True)


def nodes(graph: str) -> set[str]:
    """The nodes of a graph in the language of dot, the start left out."""
    edges = [edge for edge in re.findall(r"^ +(\w+)(?::\w+)? -> (\w+)", graph, re.MULTILINE) if "start" not in edge]
    return {node for edge in edges for node in edge}


def test_a_lease_is_drawn_with_the_states_that_it_has() -> None:
    """All of them, by their names in the code."""
    assert nodes(block("docs/explanation/states.md", "{graphviz}", "digraph lease {")) == set(LeaseState)


def test_a_job_is_drawn_with_the_states_that_it_has() -> None:
    """Those that something writes."""
    assert nodes(block("docs/explanation/states.md", "{graphviz}", "digraph job {")) == {
        JOB_OPEN,
        JOB_SEALED,
        JOB_FINISHED,
        JOB_CANCELLING,
        JOB_CANCELLED,
        JOB_DELETING,
        JOB_DELETED,
    }


def test_a_task_is_drawn_with_its_ends() -> None:
    """Every outcome there is, on one of the two pictures."""
    task = block("docs/explanation/states.md", "{graphviz}", "digraph task {")
    suspect = block("docs/explanation/states.md", "{graphviz}", "digraph suspect {")
    assert set(State) <= nodes(task) | nodes(suspect)


def test_the_page_about_states_names_every_evidence() -> None:
    """As causes of what happens to members, seats and shards."""
    drawn = " ".join(blocks("docs/explanation/states.md", "{graphviz}"))
    words = {Evidence.LEFT: "leaves", Evidence.PROCESS_GONE: "process gone", Evidence.LEASE_EXPIRED: "lease expired"}
    assert set(words) == set(Evidence)
    assert [word for word in words.values() if word not in drawn] == []


def test_the_architecture_is_drawn_with_the_records_that_there_are() -> None:
    """Each folder of records in the store is somewhere in the picture."""
    drawn = block("docs/explanation/architecture.md", "{graphviz}", "digraph architecture {")
    page = (ROOT / "docs" / "reference" / "records.md").read_text(encoding="utf-8")
    records = {"spec", "breaker", *re.findall(r"^\| `(\w+)/<", page, re.MULTILINE)}
    assert len(records) > 10
    assert sorted(record for record in records if not re.search(rf"\b{record}\b", drawn)) == []
