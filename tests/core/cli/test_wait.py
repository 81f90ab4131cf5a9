"""``smoothcluster wait`` and ``submit --wait``: until every task has its outcome."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from cli_kit import Invoke, counts, on_terminal, one_line

from smoothcluster import Cluster, ClusterCrawler, JobHandle, Task, TaskContext, connect
from smoothcluster.cli.progress_bar import shown


def crawl(task: Task, context: TaskContext) -> None:
    """Fail, if the task is called so."""
    if task.id == "bad":
        raise ValueError("as the task says")


@pytest.fixture
def crawler(url: str) -> Iterator[ClusterCrawler]:
    """A member that works."""
    with ClusterCrawler(backend=connect(url), runner=1, handler=crawl) as member:
        yield member


def test_it_waits_until_all_have_their_outcome(invoke: Invoke, url: str, crawler: ClusterCrawler) -> None:
    """Failures included: a job that has failed tasks is finished all the same. For scripts there is JSON."""
    Cluster(connect(url)).submit([Task(id=name) for name in ("a", "b", "bad")], "j")
    result = invoke("wait", "j")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "job j: 2 done, 1 failed of 3 tasks\n"
    assert json.loads(invoke("wait", "j", "--json").stdout) == {
        "job": "j", "total": 3, "done": 2, "failed": 1, "quarantined": 0, "finished": True,
        "skipped": 0, "unreadable": 0, "refused": 0,
    }  # fmt: skip


def test_submit_may_wait(invoke: Invoke, url: str, crawler: ClusterCrawler) -> None:
    """The job's id is printed before, and when the command ends all is done."""
    result = invoke("submit", "--job", "j", "--wait", "http://h/")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "j\n", "job j: 1 done of 1 task\n")
    assert Cluster(connect(url)).job("j").progress().done == 1


def test_it_gives_up_in_time(invoke: Invoke) -> None:
    """With status 1, and it says how far the job is."""
    invoke("submit", "--job", "j", "http://h/")
    assert "job j is not finished after 0 s: 0 done of 1 task" in one_line(invoke("wait", "j", "--timeout", "0"), 1)


def test_there_must_be_such_a_job(invoke: Invoke) -> None:
    """One would wait for ever."""
    assert "has no job 'j'" in one_line(invoke("wait", "j"), 2)


def test_ctrl_c_ends_the_waiting_only(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job goes on; the message says how to wait again."""

    def interrupted(job: JobHandle) -> None:
        raise KeyboardInterrupt

    invoke("submit", "--job", "j", "http://h/")
    monkeypatch.setattr(JobHandle, "progress", interrupted)
    assert "Ctrl-C interrupted the command; the job continues; to wait again, run: smoothcluster wait j" in one_line(
        invoke("wait", "j"), 130
    )


GROUP_AT_WORK = """
    import signal, threading
    from smoothcluster import Cluster, ClusterCrawler, Task, connect

    def crawl(task, context):
        if int(task.id) >= 20:
            told.wait()

    told = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: told.set())
    backend = connect("memory://")
    ClusterCrawler(backend=backend, runner=1, handler=crawl, concurrency=50).start()
    Cluster(backend).submit([Task(id=str(number)) for number in range(50)], "j")
"""
"""Twenty of its tasks end at once, the others when it is told."""


def tell(process: "subprocess.Popen[bytes]") -> None:
    """Have the others end."""
    process.send_signal(signal.SIGUSR1)


def test_on_a_terminal_there_is_a_bar() -> None:
    """It moves as the tasks end, and ends when all have."""
    status, seen = on_terminal("wait", "j", code=GROUP_AT_WORK, until="20/50", act=tell)
    assert status == 0
    shown = counts(seen)
    assert [done for done, _ in shown] == sorted(done for done, _ in shown), "never back"
    assert (20, "50") in shown
    assert shown[-1] == (50, "50")
    assert "job j: 50 done of 50 tasks" in seen


def test_a_status_that_is_watched_is_drawn_over_the_one_before() -> None:
    """On a terminal, and without clearing all that was there before; Ctrl-C ends it well, and leaves the last."""
    status, seen = on_terminal("status", "--watch", code=GROUP_AT_WORK, until="\x1b[1A")
    assert status == 0
    assert seen.count("group default: all are Runners") >= 2
    assert "\x1b[?25h" in seen, "the cursor is shown again"


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_said_beside_a_bar_stays(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """With or without somebody who looks, and without secrets."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with shown("crawling", 3, "pages") as bar:
        bar.print_line("a [line] for stranger://me:secret@h")
        bar.show(2)
    assert "a [line] for stranger://***@h" in capsys.readouterr().err
