"""``smoothcluster job``: list, show, cancel, retry and delete jobs."""

import json
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from cli_kit import Invoke, one_line

from smoothcluster import Cluster, ClusterCrawler, JobHandle, Task, TaskContext, connect
from smoothcluster.backend import Update
from smoothcluster.jobs.deletion import Step
from smoothcluster.records.job import JOB_DELETING
from smoothcluster.testing import eventually

gate = threading.Event()


def crawl(task: Task, context: TaskContext) -> None:
    """Fail, or wait, if the task is called so."""
    if task.id == "held":
        gate.wait(60)
    if task.id == "bad":
        raise ValueError("as the task says")


@pytest.fixture
def crawler(url: str) -> Iterator[ClusterCrawler]:
    """A member that works."""
    gate.clear()
    with ClusterCrawler(backend=connect(url), runner=1, handler=crawl, concurrency=1) as member:
        yield member
        gate.set()


def submit(url: str, *names: str, job: str = "j") -> JobHandle:
    """A job of these tasks."""
    return Cluster(connect(url)).submit([Task(id=name) for name in names], job)


def test_jobs_are_listed_with_numbers(invoke: Invoke, url: str, crawler: ClusterCrawler) -> None:
    """For people a table, for scripts JSON."""
    submit(url, "a", "bad").wait(60)
    result = invoke("job", "list")
    head, (name, state, *numbers) = (line.split() for line in result.stdout.splitlines())
    assert head == ["JOB", "STATE", "TOTAL", "PENDING", "DONE", "FAILED", "QUARANTINED", "CANCELLED"]
    assert (name, numbers) == ("j", ["2", "0", "1", "1", "0", "0"])
    assert state in ("sealed", "finished")  # A member marks the end some time later.
    found = json.loads(invoke("job", "list", "--json").stdout)
    assert found | {"job": "j", "total": 2, "done": 1, "failed": 1, "pending": 0, "cancelled": 0} == found


def test_there_may_be_no_jobs(invoke: Invoke, crawler: ClusterCrawler) -> None:
    """That is no error; a group that does not exist is one."""
    assert invoke("job", "list").stdout == "the group has no jobs\n"
    assert "there is no group 'x'" in one_line(invoke("job", "list", "--group", "x"), 2)


def test_a_job_is_shown(invoke: Invoke, url: str, crawler: ClusterCrawler) -> None:
    """As `wait` shows it; several in the order of the arguments."""
    submit(url, "a", "bad").wait(60)
    submit(url, "b", job="k").wait(60)
    assert invoke("job", "show", "k", "j").stdout == (
        "k is finished: 1 done of 1 task\nj is finished: 1 done, 1 failed of 2 tasks\n"
    )
    assert json.loads(invoke("job", "show", "j", "--json").stdout)["state"] == "finished"


@pytest.mark.parametrize("verb", ["show", "cancel", "retry", "delete"])
def test_there_must_be_such_a_job(invoke: Invoke, url: str, verb: str) -> None:
    """All are looked for before anything is done."""
    job = submit(url, "a")
    assert "group 'default' has no job 'x'" in one_line(invoke("job", verb, "j", "x"), 2)
    assert job.progress().state == "sealed"
    assert "Missing argument 'JOB...'" in one_line(invoke("job", verb), 2)


def test_a_job_is_cancelled(invoke: Invoke, url: str, crawler: ClusterCrawler) -> None:
    """What runs finishes; `wait` and `--wait` say what became of the others."""
    job = submit(url, "held", *map(str, range(100)))
    eventually(lambda: Cluster(connect(url)).status()["tasks"]["running"])
    assert invoke("job", "cancel", "j").exit_code == 0
    eventually(lambda: job.progress().cancelled)
    gate.set()
    result = invoke("wait", "j", "--json")
    assert (result.exit_code, json.loads(result.stdout)["state"]) == (0, "cancelled")
    progress = job.progress()
    assert progress.cancelled
    assert progress.done + progress.cancelled == progress.total == 101
    assert invoke("job", "cancel", "--wait", "j").stderr == (
        f"job j was cancelled: {progress.done} done, {progress.cancelled} cancelled of 101 tasks\n"
    )


def test_failed_tasks_are_retried(invoke: Invoke, url: str, crawler: ClusterCrawler) -> None:
    """The id of the new job is printed, the same however often; a job without failed tasks is a mistake."""
    submit(url, "a", "bad").wait(60)
    again = invoke("job", "retry", "j")
    assert (again.exit_code, again.stdout) == (0, invoke("job", "retry", "j").stdout)
    assert Cluster(connect(url)).job(again.stdout.strip()).wait(60).failed == 1
    submit(url, "b", job="k").wait(60)
    assert "job 'k' has no failed tasks to retry" in one_line(invoke("job", "retry", "k"), 2)
    outcomes = [json.loads(line) for line in invoke("results", "--job", "j", "--tasks").stdout.splitlines()]
    assert {each["task_id"]: each.get("task") for each in outcomes} == {"a": None, "bad": {"id": "bad"}}


def test_a_job_is_deleted(invoke: Invoke, url: str, crawler: ClusterCrawler) -> None:
    """Its outcomes are gone, and its name is taken."""
    submit(url, "a", "bad").wait(60)
    result = invoke("job", "delete", "j")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "job j is deleted\n")
    assert invoke("job", "delete", "j").exit_code == 0
    assert "job 'j' is deleted: its outcomes are gone" in one_line(invoke("results", "--job", "j"), 2)
    assert invoke("results").stdout == ""
    assert "job 'j' is deleted and takes no more tasks" in one_line(invoke("submit", "--job", "j", "http://h/"), 2)
    assert "job 'j' is deleted and cannot be retried" in one_line(invoke("job", "retry", "j"), 2)


def test_without_a_member_a_running_job_cannot_be_deleted(
    invoke: Invoke, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line says what was done, and what to do."""
    monkeypatch.setattr(sys.modules["smoothcluster.cli.job"], "STORE_RETRY_SECONDS", 0.01)
    submit(url, "a")
    assert "group 'default' has none: the job is cancelled" in one_line(invoke("job", "delete", "j"), 3)


def test_ctrl_c_leaves_a_deletion_to_be_completed(
    invoke: Invoke, url: str, crawler: ClusterCrawler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the command; the same command completes it."""
    submit(url, "a").wait(60)
    steps: Callable[[JobHandle], Iterator[Step]] = JobHandle.deletion

    def interrupted(job: JobHandle) -> Iterator[Step]:
        yield next(steps(job))
        raise KeyboardInterrupt

    monkeypatch.setattr(JobHandle, "deletion", interrupted)
    line = one_line(invoke("job", "delete", "j"), 130)
    assert "job j may be deleted in part; run again: smoothcluster job delete j" in line
    monkeypatch.undo()
    assert invoke("job", "delete", "j").exit_code == 0
    assert Cluster(connect(url)).jobs() == {"j": "deleted"}


def test_outcomes_of_a_job_that_is_being_deleted_are_not_printed(invoke: Invoke, url: str) -> None:
    """Without an error where all jobs are asked for."""
    submit(url, "a")
    backend = connect(url)
    entry = backend.get("default/jobs/j")
    assert entry is not None
    backend.commit([], [Update(entry.key, entry.value.replace(b"sealed", JOB_DELETING.encode()))])
    assert (invoke("results").exit_code, invoke("results").stdout) == (0, "")
