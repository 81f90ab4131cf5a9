"""The commands where little is as usual: closed files, narrow encodings, names of any bytes, folders that are gone."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from textwrap import dedent
from unittest.mock import Mock

import pytest
from cli_kit import DEADLINE, Invoke, invoke_on, one_line
from click.testing import CliRunner

from smoothcluster import Cluster, ClusterCrawler, Task, connect
from smoothcluster.cli import common, main
from smoothcluster.cli.demo.stage import Stage, StuckError
from smoothcluster.cli.handler_loading import load_handler

COMMAND = [sys.executable, "-m", "smoothcluster"]
ODD = os.fsdecode(b"odd\xff")
"""A name that is no UTF-8."""


def shell(
    line: str, url: str = "memory://", cwd: Path | None = None, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run a line of a shell in which ``"$@"`` is the command."""
    settings = os.environ | {"SMOOTHCLUSTER_BACKEND": url} | (environment or {})
    command = ["bash", "-c", line, "bash", *COMMAND]
    return subprocess.run(command, capture_output=True, check=False, cwd=cwd, env=settings, timeout=DEADLINE)


def said(done: "subprocess.CompletedProcess[bytes]", status: int) -> str:
    """The only line on standard error."""
    text = done.stderr.decode(errors="surrogateescape")
    assert done.returncode == status, text
    (line,) = text.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('"$@" submit --job j - <&-', "standard input is closed, so - names no file"),
        ('"$@" submit --job j - 0>file', "standard input cannot be read: Bad file descriptor; nothing was written"),
        ('"$@" submit --job j /proc/self/mem', "/proc/self/mem cannot be read: Input/output error; nothing was sub"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path: Path, line: str, says: str) -> None:
    """Found before anything is written."""
    url = f"sqlite:///{tmp_path}/store.db"
    assert says in said(shell(line, url, tmp_path), 2)
    assert Cluster(connect(url)).jobs() == {}


def test_a_file_that_breaks_off_names_the_job(invoke: Invoke, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any mistake in a stream does."""

    def broken() -> Iterator[bytes]:
        yield b"http://h/1\n"
        raise OSError(5, "Input/output error")

    def opened(name: str) -> AbstractContextManager[Iterator[bytes]]:
        return nullcontext(broken())

    monkeypatch.setattr("smoothcluster.cli.task_input._opened", opened)
    told = one_line(invoke("submit", "--job", "j", "-", stdin=""), 2)
    assert "standard input, line 1: standard input cannot be read: Input/output error" in told
    assert "submit again with --job j" in told
    assert Cluster(connect(url)).jobs() == {"j": "open"}


def test_an_empty_argument_is_no_file(invoke: Invoke) -> None:
    """A variable of a script may be empty."""
    assert "an argument is empty" in one_line(invoke("submit", ""), 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "status", "output", "errors"),
    [
        ('"$@" events >&-', 2, "", "Error: there is no group 'default'"),
        ('"$@" submit --job j http://h/ 2>&-', 0, "j\n", ""),
        ('"$@" submit nofile 2>/dev/full', 2, "", ""),
        ('"$@" submit --job j http://h/ <&- >&- 2>&-', 0, "", ""),
    ],
)
def test_a_closed_or_full_output_changes_no_status(
    tmp_path: Path, line: str, status: int, output: str, errors: str
) -> None:
    """Whoever closes it wants nothing printed. What the store connects to is none of the standard files."""
    url = f"sqlite:///{tmp_path}/store.db"
    done = shell(line, url)
    assert (done.returncode, done.stdout.decode()) == (status, output)
    assert done.stderr.decode().startswith(errors)
    assert errors or not done.stderr
    assert Cluster(connect(url)).jobs() == ({} if status else {"j": "sealed"})


def test_closed_standard_files_are_opened_first() -> None:
    """Else a child process would print into the connection that came to have the number of standard output."""
    code = """
        import os, sys
        from smoothcluster.__main__ import open_standard_files
        open_standard_files()
        paths = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
        assert paths == ["/dev/null"] * 3, paths
        assert os.open("/dev/null", os.O_RDONLY) == 3
        assert sys.stdin is None
        print("nobody reads this", flush=True)
        sys.stderr.flush()
    """
    command = ["bash", "-c", '"$@" <&- >&- 2>&-', "bash", sys.executable, "-c", dedent(code)]
    assert subprocess.run(command, check=False, timeout=DEADLINE).returncode == 0


@pytest.fixture
def snowman(tmp_path: Path) -> str:
    """A store with an outcome that few encodings can write."""
    url = f"sqlite:///{tmp_path}/store.db"
    backend = connect(url)
    with ClusterCrawler(backend=backend, runner=1, handler=lambda task, context: "né \N{SNOWMAN}"):
        Cluster(backend).submit([Task(id="a")], "j").wait(DEADLINE)
    backend.close()
    return url


@pytest.mark.parametrize(
    ("charset", "value"), [("latin-1", "né \\u2603"), ("ascii", "n\\xe9 \\u2603"), ("utf-8", "né \N{SNOWMAN}")]
)
def test_what_a_terminal_cannot_show_is_escaped(snowman: str, charset: str, value: str) -> None:
    """Each character by itself, and the command goes on."""
    result = CliRunner(charset=charset).invoke(main, ["results", "--format", "text", "--backend", snowman])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout_bytes.decode(charset).rstrip().endswith(f'"{value}"')


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}],
    ids=["stated", "locale"],
)
def test_so_it_is_in_a_process_of_its_own(snowman: str, environment: dict[str, str]) -> None:
    """Whatever says that the terminal shows ASCII alone."""
    inherited = {"PYTHONIOENCODING": "", "PYTHONUTF8": "", "LC_ALL": ""}
    done = shell('"$@" results --format text', snowman, environment=inherited | environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.rstrip().endswith(b'"n\\xe9 \\u2603"')


def test_another_programs_output_is_left_as_it_was(invoke: Invoke) -> None:
    """A program may call a command; its own output keeps its own rules."""
    before = sys.stdout.errors, sys.stderr.errors
    assert invoke("--version").exit_code == 0
    with common.writable_output():
        pass
    assert (sys.stdout.errors, sys.stderr.errors) == before


@pytest.mark.slow
def test_names_of_any_bytes(tmp_path: Path) -> None:
    """A folder, the store's file, a file of tasks and the handler's module: whatever the file system has."""
    folder = tmp_path / ODD
    folder.mkdir()
    (folder / ODD).write_text("http://h/1\nhttp://h/2\n")
    (folder / "crawl.py").write_text("def fetch(task, context):\n    return context.member\n")
    lines = """
        "$@" run crawl:fetch --runner 1 --isolation process & member=$!
        "$@" submit --wait --json "$ODD"
        kill -TERM $member
        wait $member
    """
    done = shell(dedent(lines), f"sqlite:///{folder}/{ODD}.db", folder, {"ODD": ODD})
    assert done.returncode == 0, done.stderr
    assert b'"tasks": 2' in done.stdout
    assert b"2 done of 2 tasks" in done.stderr
    assert b"at sqlite:///" + os.fsencode(tmp_path) in done.stdout
    invoke = invoke_on(f"sqlite:///{folder}/{ODD}.db")
    assert f"there is no group 'g' at sqlite:///{tmp_path}/odd\ufffd/" in one_line(invoke("status", "--group", "g"), 2)
    assert "there is no file 'odd" in one_line(invoke("submit", ODD), 2)


@pytest.fixture
def gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current directory is deleted."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()


@pytest.mark.usefixtures("gone")
def test_a_directory_that_is_gone() -> None:
    """Nothing is found relative to it."""
    invoke = invoke_on("sqlite:///store.db")
    assert "store.db is relative to a deleted folder" in one_line(invoke("status"), 2)
    assert "the current directory, which is gone" in one_line(invoke("run", "no_such_crawl:fetch"), 2)


@pytest.mark.parametrize(
    ("code", "target", "says"),
    [
        ("", "sys:nope", "module 'sys' (without a file) has no 'nope'"),
        ("", "crawl:", "names no handler"),
        ("class Skipped(BaseException): ...\nraise Skipped('no tests')", "crawl:f", "raised Skipped: no tests"),
        ("def __getattr__(name): raise RuntimeError(name)", "crawl:f", "raised RuntimeError: f ("),
        ("", f"{ODD}:f", "is not the name of a module"),
        ("", f"crawl:{ODD}", "has no 'odd\\udcff'"),
    ],
)
def test_a_handler_that_cannot_be_had_is_told(
    module: Callable[[str], None], invoke: Invoke, code: str, target: str, says: str
) -> None:
    """In one line, whatever the module does."""
    module(code)
    assert says in one_line(invoke("run", target, "--runner", "1"), 2)


def test_ctrl_c_while_a_module_is_imported_is_no_fault_of_the_module(module: Callable[[str], None]) -> None:
    """It ends the command."""
    module("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_handler("crawl:f")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--concurrency", "0"), "concurrency must be a whole number of at least 1, not 0"),
        (("--lease-ttl", "nan"), "lease_ttl must be more than 0 seconds, not nan"),
        (("--group", "a/b"), "group 'a/b' is not valid"),
        (("--listen", "127.0.0.1:x"), "ADDRESS[:PORT[-PORT]]"),
        (("--task-timeout", "5"), "need --isolation process"),
        (("--backend", "zookeper://h"), "did you mean zookeeper://?"),
        (("--members", "0"), "0 is not in the range"),
    ],
)
def test_several_members_are_told_once_what_is_wrong(
    module: Callable[[str], None], invoke: Invoke, options: tuple[str, ...], says: str
) -> None:
    """No process is started that cannot begin."""
    module("def fetch(task, context): return None")
    assert says in one_line(invoke("run", "crawl:fetch", "--runner", "1", "--members", "3", *options), 2)


@pytest.mark.parametrize("timeout", ["nan", "-1", "1e300"])
def test_a_wait_has_a_sensible_end(invoke: Invoke, timeout: str) -> None:
    """Neither never by mistake, nor before it begins."""
    invoke("submit", "--job", "j", "http://h/")
    assert "--timeout must be " in one_line(invoke("wait", "j", "--timeout", timeout), 2)


def test_the_url_is_no_option_of_the_backend(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has an option, and a variable, of its own."""
    (tmp_path / "options").write_text('{"url": "memory://"}')
    (tmp_path / "options").chmod(0o600)
    monkeypatch.setenv("SMOOTHCLUSTER_OPTIONS", str(tmp_path / "options"))
    assert "give the URL as --backend" in one_line(invoke("status"), 2)


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_lines_of_several_members_do_not_merge(tmp_path: Path, unbuffered: str) -> None:
    """Each is written at once, also if Python keeps nothing back."""
    (tmp_path / "crawl.py").write_text("def fetch(task, context):\n    return None\n")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # A packet for each write.
    settings = {"SMOOTHCLUSTER_BACKEND": f"sqlite:///{tmp_path}/store.db", "PYTHONUNBUFFERED": unbuffered}
    command = [*COMMAND, "run", "crawl:fetch", "--runner", "2", "--members", "3"]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=theirs.fileno(),
        stderr=theirs.fileno(),
        cwd=tmp_path,
        env=os.environ | settings,
    ) as process:
        theirs.close()
        ours.settimeout(DEADLINE)
        try:
            writes: list[bytes] = []
            while sum(b"in group default" in each for each in writes) < 3:
                writes.append(ours.recv(65536))
            process.send_signal(signal.SIGTERM)
            # An empty packet is the end, or a write of nothing.
            while (last := ours.recv(65536)) or process.poll() is None:
                writes.append(last)
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()
            ours.close()
    assert [each for each in writes if each and not each.endswith(b"\n")] == []


@pytest.mark.parametrize("umask", [0o777, 0])
def test_files_of_the_demo_with_any_umask(monkeypatch: pytest.MonkeyPatch, umask: int) -> None:
    """Their owner can use them, and nobody else; nothing is left behind."""
    found: list[Path] = []
    modes: dict[str, int] = {}

    def enter(stage: Stage) -> Stage:
        with pytest.raises(OSError, match="no process"):
            start(stage)
        found.append(stage.log.parent)
        modes.update({each.name: stat.S_IMODE(each.stat().st_mode) for each in (found[0], *found[0].iterdir())})
        raise StuckError("enough was seen")

    start = Stage.__enter__
    monkeypatch.setattr(subprocess, "Popen", Mock(side_effect=OSError("no process")))
    monkeypatch.setattr(Stage, "__enter__", enter)
    before = os.umask(umask)
    try:
        result = CliRunner().invoke(main, ["demo"])
    finally:
        os.umask(before)
    assert "enough was seen" in result.output
    assert modes.pop(found[0].name) == 0o700
    assert modes.keys() >= {"demo.db", "errors", "log"}
    assert set(modes.values()) == {0o600}
    assert not found[0].exists()
