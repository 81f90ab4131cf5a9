"""The simulator: it replays exactly, it finds planted bugs, and it finds nothing in the code as it is."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from core.planted_bugs import BUGS, SELDOM, UNFOUND, Bug

import smoothcluster
from smoothcluster.testing.simulate import Scenario, play
from smoothcluster.testing.simulate.faults import FAULTS, ROLLBACK_FAULT

PACKAGE = Path(smoothcluster.__file__).parent

ALL = ",".join((*FAULTS, ROLLBACK_FAULT))


def simulate(*arguments: str, path: Path | None = None, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    """Run the command, on the copy of the package that lies in *path* if that is given."""
    # Not measured for coverage: that takes many times as long, and what it runs is covered elsewhere.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}
    environment = inherited | {"PYTHONHASHSEED": hash_seed, "PYTHONSAFEPATH": "1"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, "-m", "smoothcluster.testing.simulate", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.promise(1, 2, 3, 4, 5, 6, 7, 8, 9)
@pytest.mark.timeout(600)  # under coverage it takes its time
def test_the_code_keeps_its_promises() -> None:
    """A few schedules of every fault find nothing; the `sim` environment plays many."""
    done = simulate("--schedules", "15")
    assert done.returncode == 0, done.stdout
    assert "15 schedules from seed 0: every promise was kept" in done.stdout


@pytest.mark.promise(3)
@pytest.mark.timeout(600)  # as above
def test_what_a_store_forgets_is_done_again() -> None:
    """A few schedules in which the store goes back again and again, and nothing else goes wrong."""
    done = simulate("--schedules", "3", "--first", "14", "--faults", "forget")
    assert done.returncode == 0, done.stdout
    assert "3 schedules from seed 14: every promise was kept" in done.stdout


@pytest.mark.promise(3)
@pytest.mark.timeout(600)  # as above
@pytest.mark.parametrize(
    ("seed", "faults"), [(87, "kill,restart,forget"), (1052, ALL), (1457, ALL)], ids=["kills", "breaker", "runs_on"]
)
def test_a_store_forgets_amid_other_faults(seed: int, faults: str) -> None:
    """A death whose start is forgotten, a series of deaths that is, and a run of before that kills afterwards."""
    done = simulate("--seed", str(seed), "--faults", faults)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.promise(7)
@pytest.mark.timeout(600)  # as above
def test_missed_wake_ups_stop_nobody() -> None:
    """Members that hear nothing of the store for a while find the tasks all the same."""
    done = simulate("--schedules", "3", "--faults", "leave,deafen")
    assert done.returncode == 0, done.stdout
    assert "3 schedules from seed 0: every promise was kept" in done.stdout


@pytest.mark.promise(3)
@pytest.mark.timeout(600)  # as above
@pytest.mark.parametrize("faults", ["kill,pause,drop,leave,cancel,delete", "drop,forget,cancel,delete"])
def test_jobs_are_cancelled_and_deleted(faults: str) -> None:
    """A few schedules in which clients end jobs, and die meanwhile: everything adds up, and nothing is left."""
    done = simulate("--schedules", "8", "--first", "20", "--faults", faults)
    assert done.returncode == 0, done.stdout
    assert "8 schedules from seed 20: every promise was kept" in done.stdout


@pytest.mark.timeout(600)  # as above
def test_a_seed_replays_exactly() -> None:
    """The same seed gives the same history, in one process as in another, whatever hashes are."""
    world = play(7, Scenario())
    again = play(7, Scenario())
    assert (world.trace, world.record.steps) == (again.trace, again.record.steps)

    first, second = (simulate("--seed", "7", hash_seed=seed) for seed in ("1", "2"))
    assert first.returncode == 0
    assert first.stdout == second.stdout
    assert world.record.steps[-1] in first.stdout


def test_an_unknown_fault_is_a_usage_error() -> None:
    """It is named, with those that are known."""
    done = simulate("--faults", "kill,flood")
    assert done.returncode == 2
    assert "unknown flood; known are kill, " in done.stderr


Hunt = Callable[[Bug], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def hunt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hunt]:
    """What the simulator makes of a bug. All that are asked for are hunted side by side, in the order of the tests."""
    items = (item for item in request.session.items if isinstance(item, pytest.Function) and hasattr(item, "callspec"))
    bugs = [bug for item in items if isinstance(bug := item.callspec.params.get("bug"), Bug)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hunts = {bug: pool.submit(_hunt, bug, tmp_path_factory.mktemp("bug")) for bug in bugs}
        yield lambda bug: hunts[bug].result()
        pool.shutdown(cancel_futures=True)


def _hunt(bug: Bug, folder: Path) -> subprocess.CompletedProcess[str]:
    # With what is compiled: only the file that is changed has to be compiled again.
    shutil.copytree(PACKAGE, folder / "smoothcluster")
    file = folder / "smoothcluster" / bug.file
    text = file.read_text(encoding="utf-8")
    assert text.count(bug.right) == 1, "the library has moved on: bring the bug up to date"
    file.write_text(text.replace(bug.right, bug.wrong), encoding="utf-8")
    options = {"--faults": bug.faults, "--shape": bug.shape}
    chosen = [word for option, value in options.items() if value for word in (option, value)]
    return simulate("--schedules", str(bug.schedules), "--processes", "1", *chosen, path=folder)


def _is_found(bug: Bug, done: subprocess.CompletedProcess[str]) -> None:
    """Within the stated number of schedules, with status 1, and with the command that shows it again."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(rf"^seed \d+: (Violation: )?{bug.promise}", done.stdout, re.MULTILINE), done.stdout[-2000:]
    assert "To see it again:" in done.stdout


def test_planted_bugs_can_be_planted() -> None:
    """The library has the lines that each bug replaces exactly once; bugs that are not found yet included."""
    bugs = (*BUGS, *SELDOM, *UNFOUND)
    assert [bug.name for bug in bugs if (PACKAGE / bug.file).read_text(encoding="utf-8").count(bug.right) != 1] == []


def hunted(bugs: Iterable[Bug]) -> list[Any]:
    """Each bug as a parameter, marked with the promises that the bug breaks."""
    return [pytest.param(bug, id=bug.name, marks=pytest.mark.promise(*bug.promises)) for bug in bugs]


@pytest.mark.slow
@pytest.mark.timeout(600)  # many others may be hunted before it
@pytest.mark.parametrize("bug", hunted(BUGS))
def test_a_planted_bug_is_found(bug: Bug, hunt: Hunt) -> None:
    """One of those that soon lead to a promise broken."""
    _is_found(bug, hunt(bug))


@pytest.mark.long
@pytest.mark.timeout(3600)  # as above
@pytest.mark.parametrize("bug", hunted(SELDOM))
def test_a_planted_bug_that_seldom_shows_is_found(bug: Bug, hunt: Hunt) -> None:
    """One of those for which several things have to go wrong at one moment; each has a test of its own besides."""
    _is_found(bug, hunt(bug))
