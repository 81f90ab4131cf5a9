"""``smoothcluster run``: one process, one member, until it is told to leave."""

import inspect
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from cli_kit import DEADLINE, Invoke, one_line, started

from smoothcluster import Cluster, ClusterCrawler, Task, connect
from smoothcluster.cli.run import Narrator, handover, run
from smoothcluster.cli.supervisor import Child
from smoothcluster.options import Retries
from smoothcluster.testing import eventually

HANDLER = """
    import os, threading
    from smoothcluster import Cluster, ClusterCrawler, Task, connect

    number = 3

    class Kind: pass

    def handler(task, context):
        os.write(2, b"handled by " + context.member.encode() + b"\\n")
"""


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("crawl", "names no handler; write module:function"),
        ("crawl.py:handler", "name the module, such as crawl:handler"),
        ("cr-awl:handler", "is not the name of a module"),
        ("crawler:handler", "there is no module 'crawler' in "),
        ("crawl.sub:handler", "there is no module 'crawl.sub'"),
        ("crawl:handle", "has no 'handle'; did you mean 'handler'?"),
        ("crawl:number", "crawl:number is 3 and no handler"),
        ("crawl:Kind", "is <class 'crawl.Kind'> and no handler"),
    ],
)
def test_run_says_what_is_wrong_with_the_handler(
    invoke: Invoke, module: Callable[[str], None], target: str, says: str
) -> None:
    """Each way in which a handler cannot be found has its own message."""
    module(HANDLER)
    assert says in one_line(invoke("run", target, "--runner", "1"), 2)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("from json import no_such_name", "ImportError: cannot import name"),
        ("handler = 1 / 0", "ZeroDivisionError: division by zero"),
        ("handler = ", "SyntaxError: "),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_run_does_not_take_a_broken_module_for_a_missing_one(
    invoke: Invoke, module: Callable[[str], None], tmp_path: Path, code: str, says: str
) -> None:
    """What the module raises when imported is told, with its place; the trace only on demand."""
    module(f"# first line\n{code}\n")
    told = one_line(invoke("run", "crawl:handler", "--runner", "1"), 2)
    assert says in told
    assert f"{tmp_path / 'crawl.py'}, line 2)" in told or "json" in told
    assert "Traceback" in invoke("run", "crawl:handler", "--runner", "1", "-v").stderr


def test_run_passes_numbers_on(invoke: Invoke, module: Callable[[str], None]) -> None:
    """Which numbers make sense is the library's to say."""
    module(HANDLER)
    assert "runner must be" in one_line(invoke("run", "crawl:handler", "--runner", "0"), 2)


def test_run_without_numbers_needs_a_group_that_has_some(invoke: Invoke, module: Callable[[str], None]) -> None:
    """Then it takes these."""
    module(HANDLER)
    assert "the first member must give runner" in one_line(invoke("run", "crawl:handler"), 2)


def test_run_has_the_constructors_defaults() -> None:
    """An option left out means the same as an argument left out."""
    defaults = {name: each.default for name, each in inspect.signature(ClusterCrawler).parameters.items()}
    for option in run.params:
        if isinstance(option, click.Option) and option.name in defaults and not option.required:
            assert option.to_info_dict()["default"] == defaults[option.name], option.name
    options = {
        option.name: option.to_info_dict()["default"] for option in run.params if isinstance(option, click.Option)
    }
    assert Retries(attempts=options["max_attempts"], delay=options["retry_delay"]) == Retries()


@pytest.mark.parametrize("limit", ["--task-timeout", "--task-memory"])
def test_limits_of_tasks_need_isolation(invoke: Invoke, module: Callable[[str], None], limit: str) -> None:
    """The error names the missing option."""
    module(HANDLER)
    told = one_line(invoke("run", "crawl:handler", "--runner", "1", limit, "60"), 2)
    assert "need --isolation process" in told


@pytest.mark.parametrize(
    ("listen", "members", "says"),
    [
        ("127.0.0.1:x", 1, "ADDRESS[:PORT[-PORT]][@ADVERTISED]"),
        ("127.0.0.1:x", 2, "ADDRESS[:PORT[-PORT]][@ADVERTISED]"),
        ("0.0.0.0", 1, "all members of this store are on this machine"),
        ("127.0.0.1:4000-4001", 3, "3 members need 3 ports"),
    ],
)
def test_run_says_what_is_wrong_with_where_to_listen(
    invoke: Invoke, module: Callable[[str], None], listen: str, members: int, says: str
) -> None:
    """Before anything is joined or started."""
    module(HANDLER)
    words = ("run", "crawl:handler", "--runner", "3", "--listen", listen, "--members", str(members))
    assert says in one_line(invoke(*words), 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_works_until_it_is_told_to_leave(
    module: Callable[[str], None], tmp_path: Path, number: signal.Signals
) -> None:
    """It says who it is, runs tasks, and on SIGTERM or Ctrl-C leaves its group and ends well."""
    module(HANDLER + '\n    Cluster(connect("memory://")).submit([Task(id="a")])\n')
    with started("run", "crawl:handler", "--runner", "1", "--name", "me", cwd=tmp_path) as (process, out, err):
        assert out.readline() == "me runner in group default at memory://\n"
        while "handled by me" not in (line := err.readline()):
            assert line, "it ended"
        process.send_signal(number)
        assert "me left group default" in process.communicate(timeout=DEADLINE)[1]
        assert process.returncode == 0


OTHER_MEMBER = """
    first = ClusterCrawler(backend=connect("memory://"), runner=1, backup=1, handler=handler, name="first").start()

    def leave_when_followed():
        while len(Cluster(connect("memory://")).status()["members"]) < 2:
            threading.Event().wait(0.01)
        first.stop()

    threading.Thread(target=leave_when_followed, daemon=True).start()
"""


def test_run_tells_what_becomes_of_its_member(module: Callable[[str], None], tmp_path: Path) -> None:
    """A Backup Runner that takes over says so on standard error."""
    module(HANDLER + OTHER_MEMBER)
    with started("run", "crawl:handler", "--runner", "1", "--backup", "1", cwd=tmp_path) as (process, out, err):
        assert out.readline() == "crawler_0 backup-runner in group default at memory://\n"
        told = ""
        while not (
            "crawler_0 is now a runner and was a backup-runner" in told
            and "crawler_0 took over shards 0-31 from first (left" in told
        ):
            line = err.readline()
            assert line, told
            told += line
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE)
        assert process.returncode == 0


def test_run_leaves_though_nobody_hears_it(module: Callable[[str], None], tmp_path: Path) -> None:
    """What a member says may go to a pipe whose reader has died, or to a disk that is full: it works on, and leaves."""
    module(HANDLER)
    with started("run", "crawl:handler", "--runner", "1", cwd=tmp_path) as (process, out, err):
        assert out.readline().startswith("crawler_0 runner")
        assert "took shards" in err.readline()
        err.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0


def test_run_can_be_told_to_leave_while_it_waits_for_its_name(module: Callable[[str], None], tmp_path: Path) -> None:
    """A member that has not joined yet leaves nothing behind, and ends as well as any other."""
    module(
        HANDLER + '\n    ClusterCrawler(backend=connect("memory://"), runner=1, handler=handler, name="me").start()\n'
    )
    with started("run", "crawl:handler", "--runner", "1", "--name", "me", cwd=tmp_path) as (process, _, err):
        assert "a living member has the name 'me'" in err.readline()
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=DEADLINE) == ("", "")
        assert process.returncode == 0


@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt(), 0), (RuntimeError("no idea"), 1)])
def test_run_leaves_whatever_happens(
    invoke: Invoke,
    module: Callable[[str], None],
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    stop: BaseException,
    status: int,
) -> None:
    """A member that has joined leaves its group, even if it is stopped before it began."""

    def end(crawler: ClusterCrawler) -> None:
        raise stop

    module(HANDLER)
    monkeypatch.setattr(ClusterCrawler, "run", end)
    result = invoke("run", "crawl:handler", "--runner", "1")
    assert result.exit_code == status
    assert result.stdout == f"crawler_0 runner in group default at {url}\n"
    assert Cluster(connect(url)).status()["members"] == []


def test_a_handover_is_told_in_words() -> None:
    """Which shards, whose they were, how that is known, and how long each step took."""
    event: dict[str, object] = {"shards": [0, 1, 2, 7], "from": "a", "evidence": "process_gone", "resumed_ms": None}
    event |= {"detected_ms": 0.5, "claimed_ms": 2.5}
    assert handover(event) == "took over shards 0-2, 7 from a (process_gone, detected 0.5 ms, claimed 2.5 ms)"
    assert handover(event | {"from": None}) == "took shards 0-2, 7"
    assert handover({"shards": "garbage", "from": None}) == "took shards none"
    given = {"shards": [1], "from": "a", "member": "a", "to": "b", "evidence": "left"}
    assert handover(given) == "handed shards 1 to b"
    assert handover(given | {"to": "a"}) == "took over shards 1 from a (left)", "an earlier process of that name"


def test_nothing_is_told_while_the_store_is_away(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The member itself tells that the store is away; who watches it waits."""
    backend = connect(url)
    with ClusterCrawler(backend=connect(url), runner=1, handler=print) as crawler:
        narrator = Narrator(crawler, backend)
        backend.close()
        narrator.print_news()
    assert not [record for record in caplog.records if record.name == "smoothcluster.cli"]


def test_several_members_are_started_again_when_they_die(module: Callable[[str], None], tmp_path: Path) -> None:
    """One process each, with the group's numbers of then; a signal to the one that started them makes all leave."""
    module("def handler(task, context):\n    return None\n")
    url = f"sqlite:///{tmp_path}/group.db"
    options = ("--runner", "1", "--backup", "1", "--members", "2", "--backend", url)
    with started("run", "crawl:handler", *options, cwd=tmp_path) as (process, out, err):
        told = [out.readline() for _ in range(2)]
        assert all(told), err.read()
        assert {line.split()[0] for line in told} == {"crawler_0", "crawler_1"}
        cluster = Cluster(connect(url))
        cluster.change_spec(runner=2)
        victim = cluster.status()["members"][0]["pid"]
        os.kill(victim, signal.SIGKILL)
        words = f"process {victim} ended with status -9; a new process starts in "
        # The pause is longer if an earlier process of the same place has ended.
        assert any(words in line for line in err), "members write there, too"
        eventually(lambda: victim not in {each["pid"] for each in cluster.status()["members"]}, DEADLINE)
        eventually(lambda: [each["running"] for each in cluster.status()["members"]] == [True, True], DEADLINE)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE)
        assert process.returncode == 0
    assert cluster.status()["members"] == []


@pytest.mark.parametrize("status", [0, 2])
def test_a_member_that_a_task_ends_is_started_again(module: Callable[[str], None], tmp_path: Path, status: int) -> None:
    """Whatever the exit status: only a member that announces its departure has left."""
    module(
        "import os\ndef handler(task, context):\n"
        f"    if not os.path.exists('ended'):\n        open('ended', 'w').close()\n        os._exit({status})\n"
    )
    url = f"sqlite:///{tmp_path}/group.db"
    job = Cluster(connect(url)).submit([Task(id="ends its process")])
    options = ("--runner", "1", "--backup", "1", "--members", "2", "--lease-ttl", "2", "--backend", url)
    with started("run", "crawl:handler", *options, cwd=tmp_path) as (process, _, err):
        assert any(f"ended with status {status}; a new process starts in" in line for line in err)
        assert job.wait(DEADLINE).done == 1
        eventually(lambda: len(Cluster(connect(url)).status()["members"]) == 2, DEADLINE)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE)
        assert process.returncode == 0


def test_the_status_of_a_task_is_not_taken_for_a_wrong_call(module: Callable[[str], None], tmp_path: Path) -> None:
    """Only a member that announces a wrong call ends the command with status 2."""
    module("import os, sys\nif '--members' not in sys.argv: os._exit(2)\ndef handler(task, context): ...\n")
    options = ("--runner", "1", "--members", "2", "--backend", f"sqlite:///{tmp_path}/group.db")
    with started("run", "crawl:handler", *options, cwd=tmp_path) as (process, _, err):
        assert "ended with status 2; a new process starts in" in err.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE)
        assert process.returncode == 0


def test_members_leave_when_their_supervisor_is_killed(module: Callable[[str], None], tmp_path: Path) -> None:
    """Nobody would start them again, or pass a signal on."""
    module(HANDLER)
    url = f"sqlite:///{tmp_path}/group.db"
    options = ("--runner", "2", "--members", "2", "--backend", url)
    with started("run", "crawl:handler", *options, cwd=tmp_path) as (process, out, err):
        assert all(out.readline() for _ in range(2))
        cluster = Cluster(connect(url))
        eventually(lambda: len(cluster.status()["members"]) == 2, DEADLINE)
        process.kill()
        eventually(lambda: cluster.status()["members"] == [], DEADLINE)
        told = err.read()
        assert ("Error" in told, told.count("left group default")) == (False, 2)
    assert [event for event in cluster.events() if event["kind"] == "lease_lost"] == []


def test_several_members_tell_once_which_file_they_meet_in(
    module: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody has named one."""
    module(HANDLER)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    empty = "import os\nos.environ.pop('SMOOTHCLUSTER_BACKEND')"
    options = ("--runner", "2", "--members", "2")
    with started("run", "crawl:handler", *options, code=empty, cwd=tmp_path) as (process, out, _):
        assert all(out.readline() for _ in range(2))
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=DEADLINE)[1].count(f"using sqlite:///{tmp_path}") == 1


def test_several_members_need_several_names(invoke: Invoke, module: Callable[[str], None]) -> None:
    """One name for all would have all but one wait for it."""
    module(HANDLER)
    options = ("--runner", "1", "--members", "2", "--name", "me")
    assert "put <index> into --name" in one_line(invoke("run", "crawl:handler", *options), 2)


@pytest.mark.parametrize(
    ("numbers", "says"), [(("--runner", "0"), "runner must be"), ((), "the group has no numbers yet")]
)
def test_several_members_that_cannot_begin_are_not_started_again(
    module: Callable[[str], None], tmp_path: Path, numbers: tuple[str, ...], says: str
) -> None:
    """A wrong call does not get better, whether that is seen before the members start or by them."""
    module("def handler(task, context):\n    return None\n")
    options = (*numbers, "--members", "2", "--backend", f"sqlite:///{tmp_path}/group.db")
    with started("run", "crawl:handler", *options, cwd=tmp_path) as (process, _, __):
        assert says in process.communicate(timeout=DEADLINE)[1]
        assert process.returncode == 2


def test_one_that_dies_again_and_again_is_started_ever_later(module: Callable[[str], None], tmp_path: Path) -> None:
    """Whatever it dies of may take time to go away; and Ctrl-C ends the waiting."""
    module("import os, sys\nif '--members' not in sys.argv: os._exit(7)\ndef handler(task, context): ...\n")
    options = ("--runner", "1", "--members", "2", "--backend", f"sqlite:///{tmp_path}/group.db")
    with started("run", "crawl:handler", *options, cwd=tmp_path) as (process, _, err):
        seen: Counter[str] = Counter()
        while not {"0.5 s", "1.0 s", "2.0 s"} <= seen.keys():
            line = err.readline()
            assert "ended with status 7; a new process starts in" in line
            seen[line.strip().rpartition(" in ")[2]] += 1
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE)
        assert process.returncode == 0
    assert seen["0.5 s"] == 2


def test_children_that_die_at_ctrl_c_are_looked_at_until_the_last_has_left() -> None:
    """A child that dies before it handles signals announces nothing, and others may need longer to leave."""
    command = [sys.executable, "-c", "import os; os._exit(7)"]
    child = Child(command, command)
    eventually(lambda: not child.keep_running(leaving=True), DEADLINE)
    assert not child.keep_running(leaving=True)
    assert (child.status, child.announced) == (7, b"")
