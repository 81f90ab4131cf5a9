"""Keeping house: what a finished job leaves goes, what people want to know stays."""

import pytest
from core_kit import KEYS, Bench, Garbage, done, put, store_of

from smoothcluster.cluster import Cluster
from smoothcluster.jobs.access import read_jobs
from smoothcluster.member.cleanup import finished_jobs, tidy
from smoothcluster.model import Task
from smoothcluster.records.group import Spec
from smoothcluster.records.job import JOB_FINISHED, Job
from smoothcluster.work import ShardWork

SPEC = Spec(1, None, 1, 0, "")


@pytest.fixture
def bench() -> Bench:
    """A group of one shard."""
    bench = Bench()
    put(bench.backend, KEYS.spec, SPEC.to_json())
    return bench


def finish(bench: Bench, tasks: int = 3) -> tuple[Cluster, ShardWork]:
    """Submit a job and do it."""
    cluster = Cluster(bench.backend, "g", clock=bench.clock)
    cluster.submit([Task(id=f"t{number}") for number in range(tasks)], "j")
    work = bench.own()
    for run in bench.start(work):
        work.finish(done(run), 0.0)
    bench.commit(work)
    return cluster, work


def look(bench: Bench, spec: Spec | None = SPEC) -> set[str]:
    """The finished jobs, as one member finds them."""
    return finished_jobs(store_of(bench.backend), spec)


def test_a_finished_job_is_found_and_marked(bench: Bench) -> None:
    """By the one that judges; the others go by its word."""
    finish(bench)
    assert look(bench, None) == set()
    assert look(bench) == {"j"}
    jobs = read_jobs(store_of(bench.backend))
    assert (look(bench, None), {name: job.state for name, job in jobs.items()}) == ({"j"}, {"j": JOB_FINISHED})


def test_a_job_that_still_runs_is_left_alone(bench: Bench) -> None:
    """So is one that is still being written."""
    Cluster(bench.backend, "g", clock=bench.clock).submit([Task(id="t")], "j")
    put(bench.backend, KEYS.job("k"), Job("open", 0, 0, "", "").to_json())
    assert look(bench) == set()


def test_ids_and_counts_of_a_finished_job_go_and_its_results_stay(bench: Bench) -> None:
    """And its progress is still right."""
    cluster, work = finish(bench)
    before = cluster.job("j").progress()
    tidy(store_of(bench.backend), work, look(bench))
    bench.commit(work)
    assert bench.backend.keys(KEYS.seen("j", 0)) == []
    assert bench.read().record.counts == {}
    assert cluster.job("j").progress() == before
    assert len(list(cluster.job("j").results())) == 3
    assert cluster.status()["tasks"]["done"] == 3


def test_tidying_twice_is_harmless(bench: Bench) -> None:
    """There is nothing left to do."""
    _, work = finish(bench)
    for _ in range(2):
        tidy(store_of(bench.backend), work, look(bench))
        bench.commit(work)
    assert not work.unsaid()


def test_garbage_among_the_jobs_is_reported_and_left(bench: Bench) -> None:
    """The others are found."""
    finish(bench)
    put(bench.backend, KEYS.job("bad"), b"[]")
    report = Garbage()
    assert finished_jobs(store_of(bench.backend, report), SPEC) == {"j"}
    assert list(report.found) == [KEYS.job("bad")]
