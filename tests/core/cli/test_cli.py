"""The commands: what they print, how they end, and that no mistake of a user shows a stack trace."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import pytest
from cli_kit import DEADLINE, Invoke, one_line, started
from click.testing import CliRunner
from core_kit import store_of

from smoothcluster import Cluster, ClusterCrawler, Task, TaskContext, connect
from smoothcluster.backend import Create, Update
from smoothcluster.cli import common, main
from smoothcluster.cli.event_tail import Tail
from smoothcluster.cli.status import report
from smoothcluster.errors import UnavailableError
from smoothcluster.group.events import EVENTS_KEPT_PER_MEMBER, EventLog
from smoothcluster.records.group import Member
from smoothcluster.records.keys import Keys
from smoothcluster.testing import eventually


def crawl(task: Task, context: TaskContext) -> object:
    """The handler: it fails where the task says so."""
    if task.meta == "fail":
        raise ValueError("as the task says")
    return {"url": task.url, "by": context.member}


@pytest.fixture
def crawler(url: str) -> Iterator[ClusterCrawler]:
    """The only member of the group ``default``, at work, with all the shards."""
    with ClusterCrawler(backend=connect(url), runner=1, backup=0, handler=crawl) as crawler:
        eventually(lambda: not Cluster(connect(url)).status()["unassigned"])
        yield crawler


# How commands end


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("status", "--jsn"), "No such option '--jsn'"),
        (("nonsense",), "No such command 'nonsense'"),
        (("submit",), "Missing argument 'FILE|URL...'"),
        (("spec",), "there is no group 'default'"),
        (("spec", "--runner", "0"), "runner must be a whole number of at least 1, not 0"),
        (("spec", "--runner", "two"), "'two' is not a valid integer"),
        (("status", "--backend", "zookeper://h"), "did you mean zookeeper://?"),
        (("status", "--backend", "h:2181"), "must begin with a scheme"),
        (("status", "--group", "a/b"), "group 'a/b' is not valid"),
        (("status",), "there is no group 'default'"),
        (("results",), "there is no group 'default'"),
        (("events",), "there is no group 'default'"),
        (("results", "--job", "j"), "has no job 'j'"),
        (("submit", "--job", "a b", "http://h/"), "job 'a b' is not valid"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(invoke: Invoke, args: tuple[str, ...], says: str) -> None:
    """Whatever is wrong with the call is told in one line; the exit status says that it was the call."""
    assert says in one_line(invoke(*args), 2)


def test_nothing_given_is_the_users_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --backend and without the environment's, it is one file for each user, and its path is told."""
    monkeypatch.delenv("SMOOTHCLUSTER_BACKEND", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    results = [CliRunner().invoke(main, args) for args in (["submit", "http://h/1"], ["status", "--json"])]
    for result in results:
        assert result.exit_code == 0, result.output
        (told,) = [line for line in result.stderr.splitlines() if "using" in line]
        assert f"sqlite:///{tmp_path}/smoothcluster/cluster.db" in told
        assert "SMOOTHCLUSTER_BACKEND" in told
    assert json.loads(results[-1].stdout)["tasks"]["pending"] == 1


@pytest.mark.parametrize(("error", "status"), [(UnavailableError("no answer"), 3), (RuntimeError("no idea"), 1)])
def test_other_failures_have_their_own_status(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    """Trouble with the store is 3, what nobody foresaw is 1; neither shows a stack trace unless asked to."""

    def refuse(url: str | None) -> None:
        raise error

    monkeypatch.setattr(common, "connect", refuse)
    assert str(error) in one_line(invoke("status"), status)
    assert "Traceback" in invoke("status", "--verbose").stderr


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupted_command_says_so(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, stop: BaseException) -> None:
    """Ctrl-C before the end is neither success nor a failure like others."""

    def interrupt(url: str | None) -> None:
        raise stop

    monkeypatch.setattr(common, "connect", interrupt)
    assert invoke("status").exit_code == 130


def test_without_a_command_there_is_help(invoke: Invoke) -> None:
    """Whoever knows nothing yet learns what there is."""
    result = invoke()
    assert result.exit_code == 2
    assert "Commands:" in result.stderr


def test_another_program_gets_the_status_returned() -> None:
    """Called so as click's own commands are by programs, it returns the status rather than ending the process."""
    assert main(["status", "--nonsense"], standalone_mode=False) == 2


@pytest.mark.parametrize("flags", [(), ("--verbose",)])
def test_no_secret_is_shown(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]) -> None:
    """What a URL holds of credentials never appears, whoever puts it into an error."""

    def refuse(url: str | None) -> None:
        raise UnavailableError(f"cannot reach {url}, tried as user with 'pass/word', option key=private")

    monkeypatch.setattr(common, "connect", refuse)
    result = invoke("status", "--backend", "zookeeper://user:pass/word@h:2181?key=private", *flags)
    assert "zookeeper://***@h:2181?***" in result.stderr
    assert "pass/word" not in result.output
    assert "?key=private" not in result.output
    assert "hunter" not in invoke("status", "zookeeper://user:hunter@h:2181").output


def test_exit_statuses_are_in_the_help(invoke: Invoke) -> None:
    """Scripts' authors find there what each status means."""
    for status in common.Exit:
        assert f"\n    {status.value} " in invoke("--help").stdout


def test_it_can_be_run_as_a_module() -> None:
    """``python -m smoothcluster`` is the command, and knows its version."""
    with started("--version") as (_, out, _):
        assert out.read().startswith("python -m smoothcluster, version ")


def test_a_reader_that_has_enough_is_no_failure() -> None:
    """When the other end of the pipe is closed, the command ends without a word."""
    with started("submit", "http://h/") as (process, out, err):
        out.close()
        assert process.wait(DEADLINE) == 0
        assert err.read() == ""


def test_a_closed_output_is_no_failure() -> None:
    """Whoever starts it so wants nothing printed."""
    command = [sys.executable, "-m", "smoothcluster", "--version"]
    done = subprocess.run(["bash", "-c", '"$@" >&-', "bash", *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("args", [("--version",), ("submit", "http://h/"), ("demo", "--help")])
def test_an_output_that_takes_nothing_is_told_in_one_line(args: tuple[str, ...]) -> None:
    """A disk that is full is not the command's fault, but what was asked for is not there."""
    environment = os.environ | {"SMOOTHCLUSTER_BACKEND": "memory://"}
    command = [sys.executable, "-m", "smoothcluster", *args]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment, timeout=DEADLINE
        )
    assert (done.returncode, done.stderr) == (1, "Error: the output cannot be written: No space left on device\n")


# spec, status, results


def test_the_numbers_are_shown_and_changed(invoke: Invoke, url: str, crawler: ClusterCrawler) -> None:
    """For people in words, for scripts as JSON; what the command has changed the members see."""
    assert invoke("spec").stdout == "group default: 1 Runner, 0 Backup Runners, 32 shards\n"
    assert invoke("spec", "--runner", "2", "--backup", "1").stdout == (
        "group default: 2 Runners, 1 Backup Runner, 32 shards\n"
    )
    shown = {"group": "default", "spec": {"runner": 2, "backup": 1, "shards": 32}}
    assert json.loads(invoke("spec", "--json").stdout) == shown
    assert Cluster(connect(url)).status()["spec"] == shown["spec"]


def test_numbers_that_the_group_cannot_have_are_a_mistake(invoke: Invoke, url: str) -> None:
    """Where all are Runners nobody can be told to stand by."""
    with ClusterCrawler(backend=connect(url), runner=2, handler=crawl):
        assert "all members are Runners" in one_line(invoke("spec", "--backup", "1"), 2)


def test_status_as_json_is_the_clusters(invoke: Invoke, url: str, crawler: ClusterCrawler) -> None:
    """Scripts get the same from the command as from the library."""
    assert json.loads(invoke("status", "--json").stdout) == Cluster(connect(url)).status()


def test_status_shows_people_what_matters(invoke: Invoke, url: str, crawler: ClusterCrawler) -> None:
    """Numbers, members, tasks, jobs, what nobody owns, and garbage, without its control characters."""
    job = Cluster(connect(url)).submit([Task(id=str(n)) for n in range(5)])
    job.wait(DEADLINE)
    connect(url).commit([], [Create("default/members/x", b'{"name": "\\u001b[2J"}')])
    lines = invoke("status").stdout.splitlines()
    assert lines[0] == "group default: 1 Runner, 0 Backup Runners, 32 shards"
    assert lines[2].split() == ["NAME", "ROLE", "SEAT", "SHARDS", "HOST", "PID", "RUNNING"]
    assert lines[3].split()[:4] == ["crawler_0", "runner", "0", "32"]
    assert lines[5] == "tasks: 0 pending, 0 running, 5 done, 0 failed, 0 quarantined, 0 skipped"
    assert lines[6] in (f"jobs: {job.id} (sealed)", f"jobs: {job.id} (finished)")
    assert lines[7] == "unassigned shards: none"
    assert lines[8].startswith("garbage at default/members/x: ")
    assert not any("\x1b" in line for line in lines)


def test_status_shows_people_which_members_are_silent(url: str, crawler: ClusterCrawler) -> None:
    """Beside the member, and an explanation below; a group without silent members has neither."""
    found = Cluster(connect(url)).status()
    assert not any("silent" in line for line in report(found))
    (living,) = found["members"]
    found["members"].append({**living, "name": "crawler_1", "silent": True})
    lines = list(report(found))
    assert lines[3].endswith(("yes", "no"))
    assert lines[4].startswith("crawler_1 ")
    assert lines[4].endswith("  silent")
    assert lines[6] == "a silent member has not renewed the lease in time, and stays a member until the lease ends"


def test_status_tells_when_standbys_last_checked_themselves(invoke: Invoke, url: str, crawler: ClusterCrawler) -> None:
    """And what they found; a time that is none is shown as such."""
    backend = connect(url)
    times = (None, 1_700_000_000, 2**62)
    for number, checked in enumerate(times):
        card = Member(f"s{number}", f"s{number}", 9 + number, "h", 1, "", 0, 1, True, None, "", checked=checked)
        card = replace(card, unfit="warm_up raised OSError: no route" if checked else None)
        backend.commit([], [Create(f"default/members/s{number}", card.to_json())])
    lines = invoke("status").stdout.splitlines()
    assert "last self-check of Backup Runners: s0 (not yet), s1 (2023-11-14T22:13:20+00:00), s2 (?)" in lines
    assert "s1 is unfit to take over: warm_up raised OSError: no route" in lines


def test_status_names_the_shape(invoke: Invoke, url: str) -> None:
    """Where all are Runners, there is no number of Backup Runners."""
    with ClusterCrawler(backend=connect(url), runner=2, handler=crawl):
        assert invoke("status").stdout.startswith("group default: all are Runners, 2 Runners, 32 shards\n")


def test_status_of_a_group_without_members_says_so(invoke: Invoke) -> None:
    """A job may be handed in before the first member joins."""
    invoke("submit", "http://h/")
    lines = invoke("status").stdout.splitlines()
    assert lines[0] == "group default: no member has joined yet, 32 shards"
    assert "unassigned shards: 0-31" in lines


def test_results_are_json_lines_of_all_jobs_or_one(invoke: Invoke, url: str, crawler: ClusterCrawler) -> None:
    """One object for each outcome, with the fields of `Outcome` and the job."""
    cluster = Cluster(connect(url))
    cluster.submit([Task(id="a", url="http://h/a")], job="j").wait(DEADLINE)
    cluster.submit([Task(id="b", meta="fail")], job="k").wait(DEADLINE)
    by = {"attempts": 1, "runner": "crawler_0", "epoch": 1}
    value = {"url": "http://h/a", "by": "crawler_0"}
    done = by | {"task_id": "a", "state": "done", "value": value, "error": None, "job": "j"}
    failed = by | {
        "task_id": "b",
        "state": "failed",
        "value": None,
        "error": "ValueError: as the task says",
        "job": "k",
    }
    assert [json.loads(line) for line in invoke("results").stdout.splitlines()] == [done, failed]
    assert [json.loads(line) for line in invoke("results", "--job", "k").stdout.splitlines()] == [failed]
    text = invoke("results", "--job", "k", "--format", "text").stdout
    assert text == "k\tb\tfailed\t1\tcrawler_0\tValueError: as the task says\n"


# events


def test_events_are_json_lines(invoke: Invoke, url: str, crawler: ClusterCrawler) -> None:
    """The same as the library's, oldest first."""
    Cluster(connect(url)).submit([Task(id="a")]).wait(DEADLINE)
    found = [json.loads(line) for line in invoke("events").stdout.splitlines()]
    assert found[0]["kind"] == "joined"
    assert found == Cluster(connect(url)).events()[: len(found)]


def test_followed_events_come_once(url: str) -> None:
    """Each look returns what is new, of old members and new ones, even if a ring has gone round since."""
    backend = connect(url)
    store = store_of(backend)
    logs = {name: EventLog(store, name) for name in ("a", "b")}
    tail = Tail(backend, "g")

    def seen(name: str, count: int) -> list[object]:
        for number in range(count):
            logs[name].add("test", number=number)
            logs[name].flush()
        return [event["number"] for event in tail.new() if event["member"] == name]

    assert seen("a", 2) == [0, 1]
    assert seen("a", 0) == []
    assert seen("b", 1) == [0]
    assert seen("a", EVENTS_KEPT_PER_MEMBER) == list(range(EVENTS_KEPT_PER_MEMBER))
    assert seen("a", EVENTS_KEPT_PER_MEMBER + 5) == list(range(5, EVENTS_KEPT_PER_MEMBER + 5))


def test_garbage_among_events_is_told_and_stepped_over(url: str) -> None:
    """What is no event is shown as garbage; those behind it still come."""
    backend, keys = connect(url), Keys("g")
    store = store_of(backend)
    log, tail = EventLog(store, "a"), Tail(backend, "g")
    for value in (b"?", b'{"n": 1e999, "at": "x"}'):
        key = f"{keys.events('a')}/7"
        backend.commit([], [Create(key, value) if value == b"?" else Update(key, value)])
    assert tail.new() == [{"n": float("inf"), "at": "x"}]
    backend.commit([], [Update(f"{keys.events('a')}/7", b"?")])
    assert [event["kind"] for event in Tail(backend, "g").new()] == ["garbage"]
    log.add("test")
    log.flush()
    assert [event["kind"] for event in tail.new()] == ["test"]


GROUP_AT_WORK = """
    import signal
    from smoothcluster import ClusterCrawler, connect

    def join(*_):
        ClusterCrawler(backend=connect("memory://"), runner=1, handler=print).start()

    signal.signal(signal.SIGUSR1, join)
    join()
"""


def test_a_status_that_is_watched_is_shown_again() -> None:
    """It changes with the group; Ctrl-C is the way to end it, so it is no failure."""
    with started("status", "--watch", "--json", code=GROUP_AT_WORK) as (process, out, _):
        assert [member["name"] for member in json.loads(out.readline())["members"]] == ["crawler_0"]
        process.send_signal(signal.SIGUSR1)
        while len(json.loads(out.readline())["members"]) < 2:
            pass
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=DEADLINE)[1] == ""
        assert process.returncode == 0


def test_following_a_group_that_is_not_there_says_so_and_waits() -> None:
    """It may begin later; or its name was written wrongly."""
    with started("events", "--follow", "--group", "g") as (process, _, err):
        assert "group g does not exist yet; the command waits for the first event" in err.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0


LOSES_AN_INTERRUPT = """
    import os, signal

    class Loser:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                pass  # The interrupt arrives here, where Python cannot raise.

    signal.signal(signal.SIGUSR1, lambda *_: Loser())
"""


def test_a_ctrl_c_that_python_loses_ends_the_command_at_the_next_poll() -> None:
    """No exception leaves a finalizer: Python prints the exception and goes on."""
    with started("events", "--follow", "--group", "g", code=LOSES_AN_INTERRUPT) as (process, _, err):
        assert "group g does not exist yet" in err.readline()
        process.send_signal(signal.SIGUSR1)
        assert process.wait(DEADLINE) == 0


def test_following_ends_quietly_with_ctrl_c() -> None:
    """Events come as they happen; Ctrl-C is the way to end it, so it is no failure."""
    with started("events", "--follow", code=GROUP_AT_WORK) as (process, out, _):
        assert json.loads(out.readline())["member"] == "crawler_0"
        process.send_signal(signal.SIGUSR1)
        while json.loads(out.readline())["member"] != "crawler_1":
            pass
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=DEADLINE)[1] == ""
        assert process.returncode == 0
