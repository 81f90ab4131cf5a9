"""The Python that pages show: each handler does what stands beside it, and programs work on the embedded default."""

import re
import secrets
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cluster.group import PATIENCE
from cluster.place import Place
from pages import block, blocks

from smoothcluster import Cluster, ClusterCrawler, Outcome, Pacing, Task, TaskContext, connect

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder with a file of its own."""
    return Place(tmp_path, f"sqlite:///{tmp_path}/store.db")


def test_the_first_group(place: Place, tmp_path: Path) -> None:
    """Five members of the README's program, a job, and the status."""
    program = block("README.md", "python", "__main__")
    commands = block("README.md", "sh", "--members 5")
    (tmp_path / "crawl.py").write_text(program, encoding="utf-8")
    code = place.adapted(commands).replace(".venv/bin/", "")
    process = place.start("bash", "-c", f"export SMOOTHCLUSTER_BACKEND={place.url}\n{code}\nwait")
    out = process.communicate(timeout=PATIENCE)[0]
    assert f"group {place.group}: 3 Runners, 2 Backup Runners, 32 shards" in out
    assert "tasks: 0 pending, 0 running, 2 done" in out
    assert place.cluster.status()["members"] == []


def test_the_programs_of_the_reference(place: Place) -> None:
    """A member that works, and a client that hands in, waits and reads."""
    member = block("docs/reference/api.md", "python", " ClusterCrawler,")
    client = block("docs/reference/api.md", "python", "Cluster(connect")
    process = place.start(sys.executable, "-c", place.adapted(member))
    done = place.start(sys.executable, "-c", place.adapted(client))
    out = done.communicate(timeout=PATIENCE)[0]
    place.works_and_leaves(process)
    assert done.returncode == 0
    assert len(out.splitlines()) == 2
    assert "42 done None" in out


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """Three pages that link to each other, and to one elsewhere."""
    for name, link in (("index", "a.html"), ("a", "b.html#top"), ("b", "http://localhost:1/")):
        (tmp_path / f"{name}.html").write_text(f'<a href="{link}">next</a>')
    serve = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def outcomes(handler: Callable[..., object], url: str, **options: Any) -> list[Outcome]:
    """What comes of the task *url* and those that it leads to."""
    backend = connect(f"memory://{secrets.token_hex(8)}")
    with closing(backend), ClusterCrawler(backend=backend, runner=1, handler=handler, **options):
        job = Cluster(backend).submit([Task(url=url)])
        job.wait(PATIENCE)
        return list(job.results())


def defined(code: str) -> dict[str, Any]:
    """What *code* defines."""
    names: dict[str, Any] = {"__name__": "crawl"}
    exec(compile(code, "page", "exec"), names)
    return names


def test_handlers(site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain one, one that is async, one that writes elsewhere, and one that follows links."""
    monkeypatch.chdir(tmp_path)
    codes = [code.replace("http://127.0.0.1:8000", site) for code in blocks("docs/howto/write-a-handler.md", "python")]
    plain, coroutine, writer, crawler = (defined(code)["fetch"] for code in codes)
    start = f"{site}/index.html"
    assert [each.value for each in outcomes(plain, start)] == [{"url": start, "by": "crawler_0"}]
    assert [each.value for each in outcomes(coroutine, start)] == [{"url": start}]
    assert [each.value for each in outcomes(crawler, start)] == [{"links": 1}] * 3

    with closing(sqlite3.connect("pages.db")) as database:
        database.execute(re.findall(r"CREATE TABLE .*", codes[2])[0])
    assert [each.state for each in outcomes(writer, start)] == ["done"]
    with closing(sqlite3.connect("pages.db")) as database:
        assert database.execute("SELECT epoch, body FROM pages").fetchall() == [(1, "...")]


def nothing(task: Task, context: TaskContext) -> None:
    """It is done."""


def test_pacing() -> None:
    """Members take what the page makes."""
    shown = defined(block("docs/explanation/avalanche.md", "python", "Pacing("))
    for pacing in (shown["careful"], shown["bold"]):
        assert isinstance(pacing, Pacing)
        (outcome,) = outcomes(nothing, "http://h/", pacing=pacing)
        assert outcome.state == "done"
