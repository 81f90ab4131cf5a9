"""Retry: the failed tasks of a job become a new job, once."""

from dataclasses import replace

import pytest
from core_kit import KEYS, Bench, decode_chunk, done, failed, put, store_of

from smoothcluster.cluster import Cluster
from smoothcluster.errors import UsageError
from smoothcluster.jobs.access import read_job
from smoothcluster.model import Task
from smoothcluster.records.group import Spec
from smoothcluster.records.results import encode_outcomes

TASKS = [
    Task(id="a", url="http://h/a"),
    Task(id="b", method="PUT", params={"x": "1"}, body=b"\xff", meta={"m": [1]}),
    Task(id="c"),
]


def ended(failing: str = "ab", tasks: list[Task] = TASKS) -> tuple[Bench, Cluster]:
    """A job of which some tasks have failed."""
    bench = Bench()
    put(bench.backend, KEYS.spec, Spec(1, None, 1, 0, "").to_json())
    cluster = Cluster(bench.backend, "g", clock=bench.clock, patience=1.0)
    cluster.submit(tasks, "j")
    work = bench.own()
    for run in bench.start(work):
        work.finish(failed(run) if run.task.id in failing else done(run), 0.0)
    bench.commit(work)
    return bench, cluster


def waiting(bench: Bench, job: str) -> list[Task]:
    """The tasks of a job that wait, in the order of their ids."""
    found = [decode_chunk(each.value) for each in bench.backend.list(KEYS.tasks(0)) if f"/{job}-" in each.key]
    return sorted((task for tasks in found for task in tasks), key=lambda task: task.id)


def test_outcomes_that_are_not_done_have_their_tasks() -> None:
    """With all that is needed to run them again."""
    _, cluster = ended()
    assert {each.task_id: each.task for each in cluster.job("j").results()} == {"a": TASKS[0], "b": TASKS[1], "c": None}
    assert [each.task_id for each in cluster.job("j").errors()] == ["a", "b"]


def test_exactly_the_failed_tasks_are_a_new_job() -> None:
    """The old job stays as it is."""
    bench, cluster = ended()
    again = cluster.job("j").retry()
    assert again.id.startswith("j.")
    assert waiting(bench, again.id) == TASKS[:2]
    assert cluster.jobs() == {"j": "finished", again.id: "sealed"}


def test_a_retry_is_made_once() -> None:
    """However often it is asked for, and after the new job has ended, too."""
    bench, cluster = ended()
    again = cluster.job("j").retry()
    entries = dict(bench.store.tree.entries)
    assert cluster.job("j").retry().id == again.id
    assert dict(bench.store.tree.entries) == entries


def test_an_interrupted_retry_is_completed() -> None:
    """The new job was opened, and not sealed."""
    bench, cluster = ended()
    again = cluster.job("j").retry()
    read = read_job(store_of(bench.backend), again.id)
    assert read is not None
    put(bench.backend, KEYS.job(again.id), replace(read.record, state="open").to_json())
    assert cluster.job("j").retry().id == again.id
    assert cluster.jobs()[again.id] == "sealed"


def test_other_failed_tasks_are_another_retry() -> None:
    """The name tells which."""
    names = {ended(failing)[1].job("j").retry().id for failing in ("a", "b", "ab")}
    assert len(names) == 3


def test_there_must_be_failed_tasks() -> None:
    """Nothing is submitted otherwise."""
    _, cluster = ended("")
    with pytest.raises(UsageError, match="job 'j' has no failed tasks to retry"):
        cluster.job("j").retry()


def test_a_job_must_have_ended() -> None:
    """The failed tasks of a running job are not known yet."""
    bench = Bench()
    cluster = Cluster(bench.backend, "g", clock=bench.clock)
    cluster.submit(TASKS, "j")
    with pytest.raises(UsageError, match="job 'j' is sealed and cannot be retried: wait until the job has ended"):
        cluster.job("j").retry()


def test_outcomes_without_a_task_are_told() -> None:
    """Those of earlier versions."""
    bench, cluster = ended("")
    put(bench.backend, f"{KEYS.results('j', 0)}/1", encode_outcomes("r", 1, ['["old","failed",null,"no",1]']))
    with pytest.raises(UsageError, match="none of the outcomes of its 1 failed tasks holds the task"):
        cluster.job("j").retry()


def test_a_deleted_retry_is_not_made_again() -> None:
    """Its name is taken for good."""
    bench, cluster = ended()
    again = cluster.job("j").retry()
    again.cancel()
    read = read_job(store_of(bench.backend), again.id)
    assert read is not None
    put(bench.backend, KEYS.job(again.id), replace(read.record, state="deleted").to_json())
    with pytest.raises(UsageError, match="which was deleted"):
        cluster.job("j").retry()
