"""Closing a job on one shard: what waits is cancelled, in commits that the store takes."""

import pytest
from core_kit import Bench, died, done, failed, limits

from smoothcluster.model import Task
from smoothcluster.options import Retries
from smoothcluster.records.blame import CHILD_SHARED


def close(bench: Bench, *jobs: str) -> None:
    """Mark *jobs* as closed, as the member does."""
    bench.context.closed.jobs = frozenset(jobs)


@pytest.mark.promise(3)
def test_a_failed_task_of_a_closed_job_is_not_tried_again() -> None:
    """One that has tries left is cancelled, and so is one that waits for its next try."""
    bench = Bench(retries=Retries(attempts=3, delay=10.0))
    bench.chunk("j-0", "a", "b")
    work = bench.own()
    first, second = bench.start(work)
    work.finish(failed(first), 0.0)
    bench.commit(work)
    close(bench, "j")
    work.finish(failed(second), 0.0)
    bench.commit(work)
    assert bench.read().record.counts == {"j": {"cancelled": 2}}
    assert not work.unsaid()
    assert work.backlog.pauses.next_end() is None


@pytest.mark.promise(3)
def test_a_task_whose_child_died_is_cancelled() -> None:
    """Not restarted, and not quarantined."""
    bench = Bench()
    bench.chunk("j-0", "a")
    work = bench.own()
    (run,) = bench.start(work)
    close(bench, "j")
    work.finish(died(run, CHILD_SHARED), 0.0)
    assert bench.commit(work, 10, 5.0) == []
    assert bench.read().record.counts == {"j": {"cancelled": 1}}


@pytest.mark.promise(3)
def test_a_chunk_that_is_admitted_behind_the_mark_starts_nothing() -> None:
    """Its tasks are cancelled in the commit that admits it, repeats are skipped, and no digest is lost."""
    bench = Bench()
    bench.chunk("j-0", "a", "b")
    bench.chunk("k-0", "x")
    close(bench, "j")
    work = bench.own()
    assert bench.start(work) == []
    (run,) = bench.start(work)
    assert run.task.id == "x"
    bench.chunk("j-1", "b", "c")
    work.backlog.stale = True
    bench.start(work)
    assert bench.read().record.counts["j"] == {"cancelled": 3, "skipped": 1}
    assert list(bench.read().record.open) == ["k-0"]


@pytest.mark.promise(3)
def test_closing_takes_as_many_commits_as_the_store_asks_for() -> None:
    """Chunks that the commit has no room to delete wait for the next."""
    bench = Bench(guarantees=limits(most_operations=6))
    for number in range(20):
        bench.chunk(f"j-{number:02d}", f"t{number}")
    work = bench.own()
    close(bench, "j")
    counted: list[int] = []
    while work.backlog.fill_of({"j"}):
        bench.commit(work)
        counted.append(bench.read().record.counts["j"]["cancelled"])
    assert counted[-1] == 20
    assert len(counted) > 4
    assert bench.read().record.open == {}


def test_a_commit_that_is_built_anew_cancels_each_task_once() -> None:
    """What was taken back is cancelled by the next."""
    bench = Bench()
    bench.chunk("j-0", "a", "b", "c")
    work = bench.own()
    (run, *_) = bench.start(work, 1)
    close(bench, "j")
    work.prepare(0, 0.0)
    assert work.take_back()
    work.finish(done(run, Task(id="new")), 0.0)
    bench.commit(work)
    assert bench.read().record.counts == {"j": {"cancelled": 2, "done": 1}}
