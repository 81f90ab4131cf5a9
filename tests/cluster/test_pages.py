"""The programs and commands that the pages show do what is said of them, on a real store of each kind."""

import ast
import inspect
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from cluster.group import PATIENCE
from cluster.pages import FENCE, ROOT, Place, blocks
from cluster.stores import Kind


@pytest.fixture
def place(tmp_path: Path, store: str) -> Place:
    """A place on a store of the kind."""
    return Place(tmp_path, store)


def test_the_first_program(place: Place) -> None:
    """The README's is whole: it prints who worked, and the values."""
    (code,) = blocks("README.md", "python", "__main__")
    done = place.start(sys.executable, "-c", place.adapted(code))
    out = done.communicate(timeout=PATIENCE)[0]
    assert done.returncode == 0
    assert out.startswith("crawler_0 runner [{'length': ")
    assert out.count("'by': 'crawler_0'") == 10


def test_the_howto_of_the_store(place: Place, kind: Kind) -> None:
    """Its command and its program make a member that works until it is told to leave."""
    page = f"docs/howto/run-on-{kind}.md"
    command = blocks(page, "sh", "export SMOOTHCLUSTER_BACKEND")[0]
    place.works_and_leaves(
        place.start("bash", "-c", place.adapted(command).replace("smoothcluster run", "exec smoothcluster run"))
    )
    (program,) = blocks(page, "python", "ClusterCrawler")
    place.works_and_leaves(place.start(sys.executable, "-c", place.adapted(program)))
    if str(kind) == "zookeeper":
        (short,) = blocks("docs/reference/api.md", "python", "ZookeeperCrawler(")
        place.works_and_leaves(place.start(sys.executable, "-c", place.adapted(short)))


def calls(page: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """The URLs with which *page* calls `connect`, and the options."""
    for language, code in FENCE.findall(page.read_text()):
        for node in ast.walk(ast.parse(code)) if language == "python" else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "connect":
                yield ast.literal_eval(node.args[0]), {each.arg or "": each.value for each in node.keywords}


def test_options_that_pages_show_are_the_backends(kind: Kind) -> None:
    """Passwords and certificates are examples; their names are not."""
    backend = next(iter(entry_points(group="smoothcluster.backends", name=str(kind)))).load()
    known = inspect.signature(backend).parameters
    for page in ROOT.glob(f"docs/howto/run-on-{kind}.md"):
        for _, options in calls(page):
            assert options.keys() <= known.keys()
