"""Members and their children work whatever a script has changed in its process."""

import logging
import logging.config
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from core.children_kit import handle
from pages import ROOT
from settings_kit import ALARM, DONE, RING, crawl, write_script

from smoothcluster import Cluster, ClusterCrawler
from smoothcluster.errors import UsageError
from smoothcluster.loggers import LOGGER_NAMES, keep_loggers
from smoothcluster.memory import MemoryBackend
from smoothcluster.recipes import Lock, Session

MEMORY = "memory://settings"

SIGNALS = """
socket.setdefaulttimeout(30)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
"""
SIGNALS_ARE_FRESH = """
assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
assert signal.getsignal(signal.SIGCHLD) == signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
"""
PLACES = """
folder = pathlib.Path(sys.argv[0]).parent / "elsewhere"
folder.mkdir()
for name in ("json", "queue", "signal", "asyncio", "crawl_script"):
    (folder / f"{name}.py").write_text("raise SystemError('imported from the current folder')")
os.chdir(folder)
os.environ.clear()
sys.path.insert(0, pathlib.Path("lib"))
sys.path.append("relative")
"""
ARGUMENTS_ARE_OURS = """
assert pathlib.Path(sys.argv[0]).name == "crawl_script.py"
"""


@pytest.mark.parametrize(
    ("settings", "handler"),
    [
        pytest.param(f"{SIGNALS}os.umask(0o777)\nsys.setrecursionlimit(100)", SIGNALS_ARE_FRESH, id="signals, little"),
        pytest.param(f"{PLACES}os.umask(0)\nsys.setrecursionlimit(2**31 - 1)", ARGUMENTS_ARE_OURS, id="places, much"),
    ],
)
def test_settings_of_the_script_do_not_reach_children(tmp_path: Path, settings: str, handler: str) -> None:
    """Each is harmless in the script itself."""
    done = crawl(write_script(tmp_path, settings, handler), MEMORY)
    assert (done.outcomes, done.status) == (DONE, 0), done.errors


@pytest.mark.parametrize(
    ("flags", "handler"),
    [
        (["-O", "-W", "error"], "assert False\nassert sys.flags.optimize == 1 and 'error' in sys.warnoptions"),
        (["-I"], "assert sys.flags.isolated == 1"),
    ],
)
def test_children_have_the_flags_of_their_parent(tmp_path: Path, flags: list[str], handler: str) -> None:
    """A handler does in a child what it does in the member."""
    script = write_script(tmp_path, handler=f"if not sys.flags.optimize + sys.flags.isolated: os._exit(1)\n{handler}")
    if "-I" in flags:  # The library need not be where such a Python looks.
        script.write_text(f"import sys\nsys.path[:] = {[str(tmp_path), *sys.path]!r}\n{script.read_text()}")
    done = crawl(script, MEMORY, flags=flags)
    assert (done.outcomes, done.status) == (DONE, 0), done.errors


def test_a_script_without_standard_streams(tmp_path: Path) -> None:
    """What its handlers print must not go where their children are talked to."""
    script = write_script(tmp_path, handler="os.write(1, b'printed')\nprint('printed', flush=True)")
    done = crawl(script, MEMORY, shell="<&- >&- 2>&-")
    assert (done.outcomes, done.status) == (DONE, 0)


def test_an_alarm_that_raises_in_the_main_thread(tmp_path: Path) -> None:
    """The member goes on, and its log says so, though the script has configured its logging meanwhile."""
    done = crawl(write_script(tmp_path, ALARM, RING), MEMORY, isolated=False)
    assert (done.outcomes, done.status) == (DONE, 0), done.errors
    assert "a signal handler of the program raised" in done.errors
    assert "LateError" in done.errors


def test_a_program_that_exits_on_a_signal(tmp_path: Path) -> None:
    """It exits as it says, once the member has left: nothing is left running."""
    handler = "if task.id == '1': os.kill(os.getpid(), signal.SIGHUP)\ncontext.stopping.wait(100)"
    settings = "signal.signal(signal.SIGHUP, lambda number, frame: sys.exit(7))"
    done = crawl(write_script(tmp_path, settings, handler), MEMORY, isolated=False)
    assert done.status == 7, done.errors
    assert "Traceback" not in done.errors


SPAWNS = """
import multiprocessing
with multiprocessing.get_context("spawn").Pool(1) as pool:
    assert pool.map(len, [[1], [2, 3]]) == [1, 2]
    assert pool.map(Item.__reduce__, [Item()])[0][0].__module__ == "copyreg"
"""


def test_what_a_script_defines_can_be_pickled(tmp_path: Path) -> None:
    """In a child, though the script imports multiprocessing, and from there to processes that the child starts."""
    script = write_script(tmp_path, handler=f"if task.id == '1':{''.join(SPAWNS.replace(chr(10), chr(10) + '    '))}")
    script.write_text(f"import multiprocessing\n{script.read_text()}")
    done = crawl(script, MEMORY)
    assert (done.outcomes, done.status) == (DONE, 0), done.errors


def test_a_member_can_read_what_its_children_have_pickled(tmp_path: Path) -> None:
    """The classes of a script have another module there."""
    report = "pickle.loads(pathlib.Path(sys.argv[4] + '.pickle').read_bytes())\n        crawler.stop()"
    script = write_script(tmp_path, handler="pathlib.Path(sys.argv[4] + '.pickle').write_bytes(pickle.dumps(Item()))")
    script.write_text(script.read_text().replace("crawler.stop()", report))
    done = crawl(script, MEMORY)
    assert (done.outcomes, done.status, done.errors) == (DONE, 0, "")


@pytest.mark.slow
def test_scripts_that_are_started_in_other_ways(tmp_path: Path) -> None:
    """As a module of a package, with relative imports; without a suffix; in a process that the script spawns."""
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "prices.py").write_text("PRICE = 7")
    script = write_script(package)
    plain = script.read_text()
    script.write_text(f"from .prices import PRICE\nassert PRICE == 7\n{plain}")
    arguments = [MEMORY, "group", "isolated"]
    ways = {"module": [sys.executable, "-m", "shop.crawl_script", *arguments]}
    (tmp_path / "crawl").write_text(plain)
    ways["no suffix"] = [sys.executable, str(tmp_path / "crawl"), *arguments]
    spawning = (
        "import multiprocessing\n    p = multiprocessing.get_context('spawn').Process(target=main, args=sys.argv[1:])"
    )
    (tmp_path / "spawning.py").write_text(
        plain.replace("\n    main(*sys.argv[1:])", f"\n    {spawning}\n    p.start()\n    p.join()")
    )
    ways["spawned"] = [sys.executable, str(tmp_path / "spawning.py"), *arguments]
    for way, command in ways.items():
        report = tmp_path / way
        found_here = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
        done = subprocess.run(
            [*command, str(report)], cwd=tmp_path, env=found_here, capture_output=True, text=True, check=False
        )
        assert report.exists(), f"{way}: {done.stderr}"
        assert report.read_text().strip() == DONE, way


def _with_member(backend: MemoryBackend) -> None:
    ClusterCrawler(backend=backend, runner=1, handler=handle, join=False).stop()


def _with_lock(backend: MemoryBackend) -> None:
    Lock(backend, Session(backend.for_group("other"), 5.0), "lock")


NEEDING_THREADS: dict[str, Callable[[MemoryBackend], object]] = {
    "member": _with_member,
    "client": Cluster,
    "session": lambda backend: Session(backend, 5.0),
    "lock": _with_lock,
}
"""Each needs threads that run while others compute: for heartbeats, watches, or connections."""


@pytest.mark.parametrize("make", NEEDING_THREADS.values(), ids=NEEDING_THREADS)
@pytest.mark.parametrize(
    ("library", "check"), [("gevent.monkey", "is_module_patched"), ("eventlet.patcher", "is_monkey_patched")]
)
def test_green_threads_are_refused(
    monkeypatch: pytest.MonkeyPatch, library: str, check: str, make: Callable[[MemoryBackend], object]
) -> None:
    """With the reason; a library that has been imported and has patched nothing harms nobody."""
    fake, patched = ModuleType(library), {"socket", "ssl"}
    monkeypatch.setitem(sys.modules, library, fake)
    setattr(fake, check, patched.__contains__)
    with pytest.raises(UsageError, match=r"needs real threads, but \w+ has replaced .* \(socket\)"):
        make(MemoryBackend())
    patched.remove("socket")
    make(MemoryBackend())


# Loggers

FRESH = "smoothcluster.test_settings"


@pytest.fixture
def fresh() -> logging.Logger:
    """A logger as ours are."""
    keep_loggers([FRESH])
    return logging.getLogger(FRESH)


def test_all_loggers_are_kept() -> None:
    """The list is complete."""
    found: set[str] = set()
    for folder in (ROOT / "smoothcluster", *(ROOT / "backends").glob("*/smoothcluster_*")):
        for path in folder.rglob("*.py"):
            for name in re.findall(r"getLogger\(([^)]+)\)", path.read_text()):
                module = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
                found |= {module} if name == "__name__" else {name.strip('"')} if name.startswith('"') else set()
    assert found == set(LOGGER_NAMES)
    assert all("_Lasting" in str(type(logging.getLogger(name)).__mro__) for name in LOGGER_NAMES)


def test_settings_that_disable_other_loggers_leave_ours(fresh: logging.Logger) -> None:
    """As `dictConfig` does unless told not to; who disables ours by name is obeyed."""
    logging.config.dictConfig({"version": 1, "incremental": False})
    assert not fresh.disabled
    fresh.disabled = True
    assert not fresh.isEnabledFor(logging.CRITICAL)
    fresh.disabled = False
    assert fresh.isEnabledFor(logging.CRITICAL)


def test_a_class_of_loggers_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours are of the user's class as well."""

    class Loud(logging.Logger):
        def shout(self) -> str:
            return self.name.upper()

    logging.setLoggerClass(Loud)
    try:
        logging.getLogger("smoothcluster.loud")
    finally:
        logging.setLoggerClass(logging.Logger)
    keep_loggers(["smoothcluster.loud"])
    keep_loggers(["smoothcluster.loud"])
    loud = logging.getLogger("smoothcluster.loud")
    assert isinstance(loud, Loud)
    assert loud.shout() == "SMOOTHCLUSTER.LOUD"


def test_a_log_handler_that_raises(fresh: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """Its exception is shown, and ends no thread of ours."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("no disk")

    broken = Broken()
    fresh.addHandler(broken)
    try:
        fresh.error("something")
    finally:
        fresh.removeHandler(broken)
    assert "OSError: no disk" in capsys.readouterr().err
