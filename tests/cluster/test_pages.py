"""The programs and commands that the pages show do what is said of them, on a real store of each kind."""

import ast
import inspect
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from cluster.group import PATIENCE
from cluster.stores import Kind

from smoothcluster import Cluster, connect
from smoothcluster.testing import eventually

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

HANDLER = "def fetch(task, context):\n    return task.url\n"


def blocks(page: str, language: str, having: str) -> list[str]:
    """The blocks of *page* in which *having* stands."""
    found = [code for kind, code in FENCE.findall((ROOT / page).read_text()) if kind == language and having in code]
    assert found, f"{page} shows nothing with {having!r}"
    return found


class Place:
    """An empty folder, and a group of its own in a store."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url, self.group = folder, url, f"test-{secrets.token_hex(6)}"
        self.cluster = Cluster(connect(url), self.group)
        (folder / "crawl.py").write_text(HANDLER)

    def adapted(self, code: str) -> str:
        """*code* for this store and this group: the names of servers and files on the page are examples."""
        hosts = self.url.partition("://")[2] if "sqlite" not in self.url else self.url.removeprefix("sqlite:///")
        code = re.sub(
            r"(\w+Backend\(|zk_hosts=)\"[^\"]*\"", lambda found: f'{found[1]}"{hosts.removesuffix("/0")}"', code
        )
        code = re.sub(r'connect\("[^"]*"', f'connect("{self.url}"', code)
        code = re.sub(r"SMOOTHCLUSTER_BACKEND=\S+", f"SMOOTHCLUSTER_BACKEND={self.url}", code)
        code = code.replace("handler=fetch).run()", f'handler=fetch, group="{self.group}").run()')
        return code.replace('"docs"', f'"{self.group}"').replace("--group docs", f"--group {self.group}")

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """A process in the folder."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "PYTHONPATH": str(self.folder)}
        return subprocess.Popen(command, cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE)

    def works_and_leaves(self, process: "subprocess.Popen[str]") -> None:
        """Wait until a member works here, have its process leave, and see that it does."""

        def works() -> bool:
            assert process.poll() is None, "it has ended"
            return not self.cluster.absent() and any(each["running"] for each in self.cluster.status()["members"])

        with process:
            try:
                eventually(works, PATIENCE)
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE) == 0
            finally:
                process.kill()


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


def test_the_howto_of_the_store(place: Place, kind: Kind) -> None:
    """Its command and its program make a member that works until it is told to leave."""
    page = f"docs/howto/run-on-{kind}.md"
    command = blocks(page, "sh", "export SMOOTHCLUSTER_BACKEND")[0]
    place.works_and_leaves(
        place.start("bash", "-c", place.adapted(command).replace("smoothcluster run", "exec smoothcluster run"))
    )
    (program,) = blocks(page, "python", "ClusterCrawler")
    place.works_and_leaves(place.start(sys.executable, "-c", place.adapted(program)))


def test_the_programs_of_the_reference(place: Place, kind: Kind) -> None:
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
    if str(kind) == "zookeeper":
        (short,) = blocks(page, "python", "ZookeeperCrawler(")
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
