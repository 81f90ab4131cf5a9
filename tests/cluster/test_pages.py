"""The programs and commands that the pages show do what is said of them, on a real store of each kind."""

import sys
from contextlib import closing
from pathlib import Path

import pytest
from cluster.group import PATIENCE
from cluster.place import Place
from cluster.stores import Kind
from pages import block

from smoothcluster.backend import CoordinationBackend


@pytest.fixture
def place(tmp_path: Path, store: str) -> Place:
    """A place on a store of the kind."""
    return Place(tmp_path, store)


def test_the_first_program(place: Place) -> None:
    """The README's is whole: it prints who worked, and the values."""
    code = block("README.md", "python", "__main__")
    done = place.start(sys.executable, "-c", place.adapted(code))
    out = done.communicate(timeout=PATIENCE)[0]
    assert done.returncode == 0
    assert out.startswith("crawler_0 runner [{'length': ")
    assert out.count("'by': 'crawler_0'") == 10


def test_the_howto_of_the_store(place: Place, kind: Kind) -> None:
    """Its command and its program make a member that works until it is told to leave."""
    commands = block(f"docs/howto/run-on-{kind}.md", "sh", "\nsmoothcluster run")
    place.works_and_leaves(
        place.start("bash", "-c", place.adapted(commands).replace("smoothcluster run", "exec smoothcluster run"))
    )
    program = block(f"docs/howto/run-on-{kind}.md", "python", "ClusterCrawler")
    place.works_and_leaves(place.start(sys.executable, "-c", place.adapted(program)))
    if str(kind) == "zookeeper":
        short = block("docs/reference/api.md", "python", "ZookeeperCrawler(")
        place.works_and_leaves(place.start(sys.executable, "-c", place.adapted(short)))


def test_the_adapters_readme(place: Place, kind: Kind) -> None:
    """The backend that it makes reaches the store."""
    names: dict[str, CoordinationBackend] = {}
    exec(place.adapted(block(f"backends/{kind}/README.md", "python", "Backend(")), names)
    with closing(names["backend"]) as backend:
        assert backend.get("no-such/key") is None
