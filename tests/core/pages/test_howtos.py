"""What the how-to guides say to type or to run, on the embedded default; on servers: `tests/cluster/test_pages.py`."""

import configparser
import inspect
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from cluster.group import PATIENCE
from cluster.place import Place
from core_kit import put
from pages import block, blocks
from smoothcluster_sqlite import SqliteBackend
from sqlite_store import Writer

from smoothcluster import Cluster, ClusterCrawler, Task, TaskContext, connect
from smoothcluster.records.keys import Keys
from smoothcluster.records.quarantine import QuarantinedTask
from smoothcluster.testing import eventually

pytestmark = pytest.mark.slow


def fails(task: Task, context: TaskContext) -> None:
    """As crawls do now and then."""
    raise ValueError("no")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder with a file of its own."""
    return Place(tmp_path, f"sqlite:///{tmp_path}/store.db")


def test_scripts(place: Place, tmp_path: Path) -> None:
    """Its blocks, one after another, in one shell: each ends well, and finds what there is."""
    (tmp_path / "urls.txt").write_text("http://h/1\nhttp://h/2\n")
    with ClusterCrawler(backend=connect(place.url), runner=1, backup=0, group=place.group, handler=fails):
        out = place.type("\n".join(blocks("docs/howto/use-in-scripts.md", "sh")))
    failed, first, second, members = out.splitlines()
    assert failed == "2"
    assert {first, second} == {"http://h/1 ValueError: no", "http://h/2 ValueError: no"}
    assert members == "1 members"


def test_a_unit_of_systemd(place: Place, tmp_path: Path) -> None:
    """Nothing is wrong with it; what it starts are so many members, and what ends it ends all of them in time."""
    text = block("docs/howto/use-in-scripts.md", "ini", "ExecStart")
    text = place.adapted(text)
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)  # Whose own path may have a space.
    unit = tmp_path / "crawler.service"
    unit.write_text(text.replace("/srv/crawler", str(tmp_path)), encoding="utf-8")
    if analyze := shutil.which("systemd-analyze"):
        verified = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
        assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")

    parser = configparser.RawConfigParser()
    parser.read_string(unit.read_text(encoding="utf-8"))
    service = parser["Service"]
    name, _, value = service["Environment"].partition("=")
    with ClusterCrawler(backend=connect(place.url), runner=5, backup=0, group=place.group, handler=fails):
        process = subprocess.Popen(
            shlex.split(service["ExecStart"]), cwd=service["WorkingDirectory"], env=os.environ | {name: value}
        )
        try:
            eventually(lambda: len(place.cluster.status()["members"]) == 5, PATIENCE)
            assert service["KillMode"] == "mixed", "the first process alone gets the signal"
            process.send_signal(signal.SIGTERM)
            assert process.wait(int(service["TimeoutStopSec"])) == 0
        finally:
            process.kill()
        assert [member["pid"] for member in place.cluster.status()["members"]] == [os.getpid()]
    assert int(service["TimeoutStopSec"]) > inspect.signature(ClusterCrawler).parameters["grace"].default


def test_changes(place: Place) -> None:
    """Its commands do what stands beside them."""
    (show, change) = block("docs/howto/stop-and-restart.md", "sh", "smoothcluster spec").splitlines()
    with ClusterCrawler(backend=connect(place.url), runner=3, backup=2, group=place.group, handler=fails):
        assert place.type(show).strip() == show.partition("# ")[2].replace("docs", place.group)
        place.type(change)
        assert place.cluster.spec() == {"runner": 5, "backup": 1, "shards": 32}


def test_a_submit_repeated(place: Place, tmp_path: Path) -> None:
    """The second adds nothing."""
    (tmp_path / "urls.txt").write_text("http://h/1\nhttp://h/2\n")
    assert place.type(block("docs/howto/stop-and-restart.md", "sh", "--job monday")) == "monday\n" * 2
    cluster = Cluster(connect(place.url))
    with ClusterCrawler(backend=connect(place.url), runner=1, handler=fails):
        assert cluster.job("monday").wait(PATIENCE).total == 2


def test_standbys(place: Place) -> None:
    """A member that stands by calls the page's `warm_up`."""
    code = block("docs/howto/check-standbys.md", "python", "warm_up")
    with socket.create_server(("127.0.0.1", 0)) as proxy, ExitStack() as runners:
        for _ in range(3):
            backend = connect(place.url)
            runners.enter_context(ClusterCrawler(backend=backend, runner=3, backup=2, group=place.group, handler=fails))
        code = code.replace('"proxy.example.org", 3128', f'"127.0.0.1", {proxy.getsockname()[1]}')
        process = place.start(sys.executable, "-c", f"{place.adapted(code)}\nmain()")
        proxy.settimeout(PATIENCE)
        proxy.accept()[0].close()
        place.works_and_leaves(process)


def test_quarantine(place: Place) -> None:
    """A task is listed, released as a new job, or dropped."""
    show, release, drop = block("docs/howto/poison-tasks.md", "sh", "quarantine list").splitlines()
    backend = connect(place.url)
    place.cluster.submit([Task(id="x")], "j")
    task = QuarantinedTask.of("24.1.3.0", "j", Task(id="killer"), ["a@1:child_exit_1"] * 2, 2, "m", 24, 1, 1.7e9)
    for line in (release, drop):
        put(backend, Keys(place.group).quarantined(task.id), task.to_json())
        assert " killer " in place.type(show)
        job = place.type(line).strip()
        assert (job in place.cluster.jobs()) == (line == release)
        assert place.cluster.quarantine() == []


def test_ended_jobs(place: Place) -> None:
    """The commands one after another, and the program, on jobs with failed tasks."""
    commands = blocks("docs/howto/end-jobs.md", "sh")
    program = place.adapted(block("docs/howto/end-jobs.md", "python", "job.errors"))
    with ClusterCrawler(backend=connect(place.url), runner=1, backup=0, group=place.group, handler=fails):
        place.cluster.submit([Task(id="x", url="http://h/")], "monday").wait(PATIENCE)
        outs = [place.type(command) for command in commands]
        again = outs[1].strip()
        assert place.cluster.job(again).wait(PATIENCE).failed == 1
        assert place.cluster.jobs()["monday"] == "deleted"
        place.cluster.submit([Task(id="y")], "tuesday").wait(PATIENCE)
        exec(program.replace('"monday"', '"tuesday"'), {})
        assert place.cluster.jobs()["tuesday"] == "deleted"


def test_children(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script whose handler a child can import, and a program in which every task runs in one."""
    script = block("docs/howto/poison-tasks.md", "python", "__main__")
    isolated = block("docs/howto/poison-tasks.md", "python", "isolation=")
    monkeypatch.setenv("SMOOTHCLUSTER_BACKEND", place.url)
    for code, start in ((script, ["crawl.py"]), (isolated, ["-c", "import crawl; crawl.crawl()"])):
        (tmp_path / "crawl.py").write_text(place.adapted(code), encoding="utf-8")
        place.works_and_leaves(place.start(sys.executable, *start))


@pytest.fixture
def users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The file that a user has where none is named."""
    monkeypatch.delenv("SMOOTHCLUSTER_BACKEND", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return Place(tmp_path, connect().url)


def test_a_file_that_nobody_names(users_own: Place) -> None:
    """A member works there."""
    unnamed, _ = blocks("docs/howto/run-on-sqlite.md", "sh")
    process = users_own.start("bash", "-c", f"exec {users_own.adapted(unnamed)}")
    users_own.works_and_leaves(process)
    assert (users_own.folder / "smoothcluster" / "cluster.db").exists()


def test_a_process_stopped_in_a_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A member's log says what the page shows."""
    shown = " ".join(block("docs/howto/run-on-sqlite.md", "text", "is stopped").split())
    backend, started, go_on = SqliteBackend(tmp_path / "cluster.db", timeout=0.2), threading.Event(), threading.Event()

    def waits(task: Task, context: TaskContext) -> None:
        started.set()
        go_on.wait(PATIENCE)

    with ClusterCrawler(backend=backend, runner=1, handler=waits):
        Cluster(backend).submit([Task(id="x")])
        assert started.wait(PATIENCE)
        with Writer(tmp_path / "cluster.db") as writer:
            writer.pause()
            go_on.set()
            said = shown.replace("sqlite:////var/tmp/crawl/cluster.db", backend.url).replace("4711", str(writer.pid))
            eventually(lambda: said in caplog.messages, PATIENCE)
            writer.resume()
