"""What pages say to type or to run, on the embedded default; for each store there is `tests/cluster/test_pages.py`."""

import sys
from pathlib import Path

import pytest
from cluster.group import PATIENCE
from cluster.pages import Place, blocks

from smoothcluster import ClusterCrawler, Task, TaskContext, connect

pytestmark = pytest.mark.slow


def fails(task: Task, context: TaskContext) -> None:
    """As crawls do now and then."""
    raise ValueError("no")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder with a file of its own."""
    return Place(tmp_path, f"sqlite:///{tmp_path}/store.db")


def test_the_first_group(place: Place, tmp_path: Path) -> None:
    """Five members of the README's program, a job, and the status."""
    (program,) = blocks("README.md", "python", "__main__")
    (commands,) = blocks("README.md", "sh", "--members 5")
    (tmp_path / "crawl.py").write_text(program)
    code = place.adapted(commands).replace(".venv/bin/", "")
    process = place.start("bash", "-c", f"export SMOOTHCLUSTER_BACKEND={place.url}\n{code}\nkill %1; wait")
    out = process.communicate(timeout=PATIENCE)[0]
    assert f"group {place.group}: 3 Runners, 2 Backup Runners, 32 shards" in out
    assert "tasks: 0 pending, 0 running, 2 done" in out
    assert place.cluster.status()["members"] == []


def test_the_programs_of_the_reference(place: Place) -> None:
    """A member that works, and a client that hands in, waits and reads."""
    page = "docs/reference/api.md"
    (member,) = blocks(page, "python", "ClusterCrawler(")
    (client,) = blocks(page, "python", "Cluster(connect")
    process = place.start(sys.executable, "-c", place.adapted(member))
    done = place.start(sys.executable, "-c", place.adapted(client))
    out = done.communicate(timeout=PATIENCE)[0]
    place.works_and_leaves(process)
    assert done.returncode == 0
    assert len(out.splitlines()) == 2
    assert "42 done None" in out


def test_the_howto_for_scripts(place: Place, tmp_path: Path) -> None:
    """Its blocks, one after another, in one shell: each ends well, and finds what there is."""
    (tmp_path / "urls.txt").write_text("http://h/1\nhttp://h/2\n")
    code = place.adapted("\n".join(blocks("docs/howto/use-in-scripts.md", "sh", "")))
    with ClusterCrawler(backend=connect(place.url), runner=1, backup=0, group=place.group, handler=fails):
        process = place.start("bash", "-euc", f"export SMOOTHCLUSTER_BACKEND={place.url}\n{code}")
        out = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0
    failed, first, second, members = out.splitlines()
    assert failed == "2"
    assert {line.partition(" ")[2] for line in (first, second)} == {"ValueError: no"}
    assert members == "1 members"


def test_the_howto_for_changes(place: Place) -> None:
    """Its commands do what stands beside them."""
    (show, change) = blocks("docs/howto/stop-and-restart.md", "sh", "smoothcluster spec")[0].splitlines()
    with ClusterCrawler(backend=connect(place.url), runner=3, backup=2, group=place.group, handler=fails):
        told = place.start(
            "bash", "-c", f"export SMOOTHCLUSTER_BACKEND={place.url}\n{place.adapted(show)}"
        ).communicate()
        assert told[0].strip() == show.partition("# ")[2].replace("docs", place.group)
        place.start("bash", "-c", f"export SMOOTHCLUSTER_BACKEND={place.url}\n{place.adapted(change)}").communicate()
        assert place.cluster.spec() == {"runner": 5, "backup": 1, "shards": 32}
