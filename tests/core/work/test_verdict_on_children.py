"""What convicts a task and what does not, with real children of one member: who else may have killed them."""

# pyright: reportPrivateUsage=false
# What children there are is nobody's business but a test's.

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from core.children_kit import handle

from smoothcluster import Cluster, ClusterCrawler, JobHandle, Outcome, State, Task
from smoothcluster.memory import MemoryBackend
from smoothcluster.options import Isolation
from smoothcluster.testing import eventually

pytestmark = pytest.mark.slow  # a death counts after a second


@pytest.fixture
def crawler() -> Iterator[ClusterCrawler]:
    """A member that runs all tasks in children, one at a time."""
    with ClusterCrawler(
        backend=MemoryBackend(), runner=1, backup=0, shards=1, handler=handle, isolation=Isolation(), concurrency=1
    ) as crawler:
        yield crawler


def submit(crawler: ClusterCrawler, *orders: Mapping[str, object]) -> JobHandle:
    """A job of a task for each."""
    tasks = [Task(id=str(number), meta=dict(each)) for number, each in enumerate(orders)]
    return Cluster(crawler._backend).submit(tasks)


def finished(job: JobHandle) -> list[Outcome]:
    """What came of them, each once."""
    job.wait(60)
    outcomes = list(job.results())
    assert len({outcome.task_id for outcome in outcomes}) == len(outcomes)
    return outcomes


def running_in(file: Path, but: set[int]) -> int:
    """In which process the task runs, if not in one of those; 0 if none is known."""
    text = file.read_text() if file.exists() else ""
    return int(text) if text and int(text) not in but else 0


@pytest.mark.promise(5)
@pytest.mark.parametrize(
    ("kills", "bystanders", "state"),
    [
        pytest.param(4, False, State.DONE, id="one short"),
        pytest.param(5, False, State.QUARANTINED, id="enough"),
        pytest.param(6, True, State.DONE, id="whoever is there"),
    ],
)
def test_kills_convict_when_they_hit_nobody_else(
    crawler: ClusterCrawler, tmp_path: Path, kills: int, bystanders: bool, state: State
) -> None:
    """Five in a row, with bystanders unharmed; whoever kills all children there are convicts nobody."""
    file, gate = tmp_path / "pid", tmp_path / "gate"
    job = submit(crawler, {"act": "show", "file": str(file), "gate": str(gate)})
    dead = set[int]()
    for _ in range(kills):
        pid = eventually(lambda: running_in(file, dead))
        victims = [child.pid for child in list(crawler._process._children._starter.all)] if bystanders else [pid]
        for victim in victims:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        dead.add(pid)
    if state is State.DONE:
        eventually(lambda: running_in(file, dead))
    gate.touch()
    (outcome,) = finished(job)
    assert (outcome.state, outcome.attempts) == (state, kills + (state is State.DONE))


@pytest.mark.promise(5)
def test_what_a_task_leaves_behind_may_kill(crawler: ClusterCrawler) -> None:
    """Others run in that child by then. One crash convicts none of them, and the next time each is alone."""
    outcomes = finished(submit(crawler, *[{"act": "leave", "seconds": 0.2}, {"act": "nap", "seconds": 0.3}] * 5))
    assert {outcome.state for outcome in outcomes} == {State.DONE}
    assert max(outcome.attempts for outcome in outcomes) == 2, "a child did crash"
