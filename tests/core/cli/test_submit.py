"""``smoothcluster submit``: every task is handed in once, or the mistake is named with its file and line."""

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_kit import DEADLINE, Invoke, counts, on_terminal, one_line, started

from smoothcluster import Cluster, ClusterCrawler, Task, connect
from smoothcluster.errors import JobClosedError, UnavailableError
from smoothcluster.records.keys import Keys

LINES = [
    '{"id": "1", "url": "http://h/1", "meta": {"any": ["json"]}}',
    "",
    "http://h/2",
    '  {"id": "3", "method": "POST", "headers": {"a": "b"}, "body": "text"}\r',
]
TASKS = [
    Task(id="1", url="http://h/1", meta={"any": ["json"]}),
    Task(url="http://h/2"),
    Task(id="3", method="POST", headers={"a": "b"}, body="text"),
]


def submitted(url: str, group: str = "default") -> list[Task]:
    """All tasks that wait in the group, by id."""
    backend, keys = connect(url), Keys(group)
    chunks = [entry for shard in range(32) for entry in backend.list(keys.tasks(shard))]
    return sorted(
        (Task.from_json(each) for chunk in chunks for each in json.loads(chunk.value)), key=lambda task: task.id
    )


def test_submit_takes_urls_files_and_standard_input(invoke: Invoke, url: str, tmp_path: Path) -> None:
    """All arguments together are one job, whose id is all that is printed."""
    file = tmp_path / "tasks.jsonl"
    file.write_text("\n".join(LINES))
    result = invoke("submit", "http://h/4", str(file), "-", stdin="https://h/5\n")
    assert result.exit_code == 0
    assert list(Cluster(connect(url)).jobs().items()) == [(result.stdout.strip(), "sealed")]
    expected = [Task(url="http://h/4"), *TASKS, Task(url="https://h/5")]
    assert submitted(url) == sorted(expected, key=lambda task: task.id)
    assert result.stderr == ""


def test_submit_names_the_job_and_adds_to_it(invoke: Invoke, url: str) -> None:
    """Submitting again to the same job adds what is new and skips what is there."""
    assert invoke("submit", "--job", "j", "http://h/1", "http://h/2").stdout == "j\n"
    assert json.loads(invoke("submit", "--job", "j", "--json", "http://h/2", "http://h/3").stdout) == {
        "job": "j",
        "tasks": 2,
        "repeats": 0,
    }
    with ClusterCrawler(backend=connect(url), runner=1, handler=lambda task, context: None):
        assert Cluster(connect(url)).job("j").wait(DEADLINE).done == 3


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("www.example.com", "the line is neither a JSON object nor an http(s) URL"),
        ("http://", "the URL has no host, or a space in it"),
        ("http://h/1 http://h/2", "the URL has no host, or a space in it"),
        ('{"id": "1"', "the line is not JSON"),
        ('["http://h/"]', "neither"),
        ("{}", "needs an id or a url"),
        ('{"id": 1}', "the line is no task: id cannot be 1"),
        ('{"url": ["http://h/"]}', "the line is no task: url cannot be"),
        ('{"id": "1", "headers": {"a": 1}}', "the line is no task: headers cannot be"),
        ('{"id": "9", "body64": "a"}', "not base64"),
        ('{"id": "1", "uri": "http://h/"}', "uri"),
        ('{"id": "1", "meta": NaN}', "a Task's meta must be a JSON value: nan is no JSON number"),
        ("\udcff", "the line is not UTF-8"),
        ("http://h/2", "line 2"),
    ],
)
def test_submit_checks_files_before_it_hands_in_anything(
    invoke: Invoke, url: str, tmp_path: Path, line: str, says: str
) -> None:
    """An error names file and line, and leaves no half-written job behind."""
    file = tmp_path / "tasks"
    file.write_text("\n".join([LINES[0], "http://h/2", line]), errors="surrogateescape")
    told = one_line(invoke("submit", str(file)), 2)
    assert f"{file}, line 3: " in told
    assert says in told
    assert Cluster(connect(url)).jobs() == {}


def test_submit_says_how_to_go_on_after_a_mistake_in_a_stream(invoke: Invoke, url: str) -> None:
    """What cannot be read twice is not checked before: the error names the job, to be completed later."""
    told = one_line(invoke("submit", "--job", "j", "-", stdin="http://h/1\nhttp://h/2\nwww.h\n"), 2)
    assert "standard input, line 3: " in told
    assert "--job j" in told
    assert Cluster(connect(url)).jobs() == {"j": "open"}


def test_a_stream_that_begins_with_a_mistake_leaves_no_job(invoke: Invoke, url: str) -> None:
    """The first task is read before anything is written, so there is nothing to complete."""
    told = one_line(invoke("submit", "--job", "j", "-", stdin="www.h\nhttp://h/1\n"), 2)
    assert told.startswith("Error: standard input, line 1: ")
    assert told.endswith("; nothing was written")
    assert Cluster(connect(url)).jobs() == {}


def test_a_job_cut_short_can_be_ended_as_it_is(invoke: Invoke, url: str) -> None:
    """Submitting nothing to it, as the page says: it ends with the tasks that it has."""
    one_line(invoke("submit", "--job", "j", "-", stdin="http://h/1\nhttp://h/2\nwww.h\n"), 2)
    assert Cluster(connect(url)).jobs() == {"j": "open"}
    assert invoke("submit", "--job", "j", "/dev/null").exit_code == 0
    assert Cluster(connect(url)).jobs() == {"j": "sealed"}


def test_submit_says_how_to_go_on_after_any_error(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after an error that nobody foresaw."""

    def broken(feed: Iterator[Task], bar: object) -> Iterator[Task]:
        yield next(iter(feed))
        raise RuntimeError("no idea")

    monkeypatch.setattr(sys.modules["smoothcluster.cli.submit"], "_shown", broken)
    told = one_line(invoke("submit", "--job", "j", "http://h/"), 1)
    assert "RuntimeError: no idea; " in told
    assert "submit again with --job j" in told


def test_submit_skips_repeats_if_told_to(invoke: Invoke, url: str, tmp_path: Path) -> None:
    """A seed list with a line that stands twice is refused as a whole, with the remedy; or the repeats are counted."""
    file = tmp_path / "tasks"
    file.write_text("http://h/1\nhttp://h/2\nhttp://h/1\n")
    told = one_line(invoke("submit", str(file)), 2)
    assert "line 3: this task repeats the task at" in told
    assert "remove one of the two, or give --skip-repeats" in told
    result = invoke("submit", "--json", "--skip-repeats", str(file), "http://h/2")
    assert (json.loads(result.stdout)["tasks"], json.loads(result.stdout)["repeats"]) == (2, 2)
    assert result.stderr == "2 repeated tasks were skipped\n"
    assert sorted(str(task.url) for task in submitted(url)) == ["http://h/1", "http://h/2"]


def test_submit_skips_repeats_on_standard_input(invoke: Invoke, url: str) -> None:
    """What can be read only once has no check before the first task is handed in."""
    result = invoke("submit", "-", stdin="http://h/1\nhttp://h/2\nhttp://h/1\n")
    assert (result.exit_code, result.stderr) == (0, "1 repeated tasks were skipped\n")
    assert sorted(str(task.url) for task in submitted(url)) == ["http://h/1", "http://h/2"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no-such-file", "must begin with http://"),
        (".", "is a directory"),
        (f"{__file__}/task", "Not a directory"),
        ("socket", "file 'socket' cannot be read"),
        ("-", "only once"),
    ],
)
def test_submit_needs_files_that_can_be_read(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    """An argument that is neither URL nor file is told before anything is handed in."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as unreadable:
        unreadable.bind("socket")
        assert says in one_line(invoke("submit", "-", name, stdin=""), 2)


@pytest.mark.parametrize(
    ("error", "status"), [(UnavailableError("no answer"), 3), (KeyboardInterrupt(), 130), (JobClosedError("closed"), 2)]
)
@pytest.mark.parametrize("begun", [False, True])
def test_submit_cut_short_says_how_to_complete_it(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, *, begun: bool
) -> None:
    """Once tasks may have been handed in, the job's id is told, under which the same call completes it."""

    def cut_short(cluster: Cluster, tasks: Iterator[Task], job: str, **_: object) -> None:
        if begun:
            next(tasks)
        raise error

    monkeypatch.setattr(Cluster, "submit", cut_short)
    told = one_line(invoke("submit", "--job", "j", "http://h/"), status)
    assert ("submit again with --job j" in told) == (status == 130 or (begun and status == 3))


def test_submit_of_many_tasks_needs_little_memory(tmp_path: Path) -> None:
    """100,000 tasks, in a file or streamed, take less than 100 MB, the store in memory included."""
    file = tmp_path / "tasks"
    file.write_text("".join(f"http://localhost/section/page-{n}.html\n" for n in range(100_000)))
    # Not getrusage's: that begins with what the process that started it had.
    count = (
        "import atexit; atexit.register(lambda: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]))"
    )
    with started("submit", "--job", "j", str(file), code=count) as (process, _, _):
        out, err = process.communicate(timeout=4 * DEADLINE)  # On a busy machine, with coverage, it takes a minute.
    job, kilobytes = out.split()
    assert (job, err) == ("j", "")
    assert int(kilobytes) < 100_000


def test_submit_of_nothing_says_so(invoke: Invoke, tmp_path: Path) -> None:
    """It may be the wrong file."""
    (tmp_path / "tasks").touch()
    result = invoke("submit", "--job", "j", str(tmp_path / "tasks"))
    assert (result.exit_code, result.stdout) == (0, "j\n")
    assert "the arguments hold no task, so job j got none" in result.stderr


def test_submit_shows_its_progress_to_people(tmp_path: Path) -> None:
    """On a terminal, and only there, a bar goes to the end that is known."""
    (tmp_path / "tasks").write_text("".join(f"http://h/{n}\n" for n in range(2500)))
    status, seen = on_terminal("submit", "--job", "j", str(tmp_path / "tasks"))
    assert status == 0
    assert counts(seen)[-1] == (2500, "2500")
    assert seen.rstrip().endswith("j")


def test_submit_shows_how_far_it_is_in_a_stream(tmp_path: Path) -> None:
    """The bar moves as the tasks come; nobody knows the end."""
    pipe, go_on = tmp_path / "pipe", threading.Event()
    os.mkfifo(pipe)

    def stream() -> None:
        with pipe.open("w") as tasks:
            for number in range(2500):
                if number == 1100:
                    tasks.flush()
                    go_on.wait(DEADLINE)
                tasks.write(f"http://h/{number}\n")

    threading.Thread(target=stream, daemon=True).start()
    status, seen = on_terminal("submit", "--job", "j", str(pipe), until="00/?", act=lambda _: go_on.set())
    assert status == 0
    shown = counts(seen)
    assert [done for done, _ in shown] == sorted(done for done, _ in shown), "never back"
    assert any(0 < done <= 1100 for done, _ in shown)
    assert shown[-1] == (2500, "?")
