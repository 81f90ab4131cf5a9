"""A job that a client cancels: members start none of its tasks any more, and all its tasks add up."""

import pytest
from core_kit import KEYS, Group, HandPool, Kennel, done

from smoothcluster.backend import Delete
from smoothcluster.cluster import Cluster
from smoothcluster.errors import JobClosedError, UsageError
from smoothcluster.jobs.progress import Progress
from smoothcluster.member.loop import MemberLoop
from smoothcluster.model import Task
from smoothcluster.pool import Run


def submit(group: Group, count: int, job: str = "j", start: int = 0) -> Cluster:
    """A job of so many tasks."""
    cluster = Cluster(group.backend, "g", clock=group.clock)
    cluster.submit([Task(id=f"{job}{number}") for number in range(start, start + count)], job)
    return cluster


def end(group: Group, loop: MemberLoop, *added: Task) -> list[Run]:
    """End what the member runs, without anything else starting first."""
    pool = group.pool(loop)
    ended = [done(run, *added) for run in pool.started]
    pool.started.clear()
    pool.finished.extend(ended)
    return ended


def counts(progress: Progress) -> dict[str, int]:
    """Every task is in one of these."""
    names = ("total", "pending", "done", "failed", "quarantined", "cancelled")
    return {name: count for name in names if (count := getattr(progress, name))}


def running(group: Group, count: int = 8) -> tuple[Cluster, MemberLoop, HandPool]:
    """A member that runs some tasks of a job, while others wait in its pool and in the store."""
    loop = group.member()
    cluster = submit(group, count)
    group.turn(loop)
    pool = group.pool(loop)
    pool.started.append(pool.waiting.popleft())
    return cluster, loop, pool


@pytest.mark.promise(3)
def test_running_tasks_finish_and_the_others_count_as_cancelled() -> None:
    """The wait for the job ends, and says that the job was cancelled."""
    group = Group()
    cluster, loop, pool = running(group, 1000)
    job = cluster.job("j")
    job.cancel()
    assert cluster.jobs() == {"j": "cancelling"}
    group.turn(loop)
    assert not pool.waiting
    assert counts(job.progress()) == {"total": 1000, "pending": 1, "cancelled": 999}
    assert not job.progress().finished
    end(group, loop)
    group.turn(loop)
    progress = job.wait(timeout=0)
    assert (counts(progress), progress.state) == ({"total": 1000, "done": 1, "cancelled": 999}, "cancelled")
    assert [each.state for each in job.results()] == ["done"]
    for _ in range(3):
        group.clock.advance(group.ttl / 3)
        group.renew(loop)
        group.turn(loop)
    assert cluster.jobs() == {"j": "cancelled"}
    assert group.backend.keys(KEYS.control) == []
    assert all(read is not None and read.record.counts == {} for read in group.view().shards)
    assert all(group.backend.keys(KEYS.tasks(shard)) == [] for shard in range(group.shards))
    assert job.progress() == progress
    assert cluster.status()["tasks"] == {
        "pending": 0, "running": 0, "done": 1, "failed": 0, "quarantined": 0, "skipped": 0, "cancelled": 999,
    }  # fmt: skip


@pytest.mark.promise(3)
def test_what_a_running_task_adds_to_a_cancelled_job_is_dropped() -> None:
    """Its own outcome is recorded."""
    group = Group()
    cluster, loop, pool = running(group)
    cluster.job("j").cancel()
    group.turn(loop)
    end(group, loop, Task(id="new"))
    group.turn(loop)
    assert counts(cluster.job("j").progress()) == {"total": 8, "done": 1, "cancelled": 7}
    assert not pool.waiting


@pytest.mark.promise(3)
def test_repeats_are_not_counted_as_cancelled() -> None:
    """A task counts once, also if it waits in two chunks, and one that has its outcome is not cancelled."""
    group = Group(shards=1)
    cluster, loop, _ = running(group, 3)
    end(group, loop)
    group.turn(loop)
    submit(group, 6)
    submit(group, 6)
    cluster.job("j").cancel()
    group.turn(loop)
    progress = cluster.job("j").progress()
    assert (progress.done, progress.cancelled, progress.total) == (1, 5, 6)


def test_another_job_goes_on() -> None:
    """On the same shards."""
    group = Group()
    cluster, loop, pool = running(group)
    submit(group, 5, "k")
    cluster.job("j").cancel()
    group.turn(loop)
    end(group, loop)
    for _ in range(5):
        group.turn(loop)
        pool.finish()
        group.turn(loop)
    assert counts(cluster.job("k").progress()) == {"total": 5, "done": 5}
    assert counts(cluster.job("j").progress()) == {"total": 8, "done": 1, "cancelled": 7}


def test_a_full_pool_does_not_hold_up_the_end_of_a_cancelled_job() -> None:
    """The tasks that wait are closed while long tasks of another job run."""
    group = Group(shards=1)
    loop = group.member()
    cluster = submit(group, 20, "k")
    group.turn(loop)
    group.pool(loop).start()
    submit(group, 600)
    cluster.job("j").cancel()
    group.turn(loop)
    assert counts(cluster.job("j").progress()) == {"total": 600, "cancelled": 600}
    assert cluster.job("j").progress().finished


@pytest.mark.promise(3)
def test_a_job_cancelled_while_no_member_lives_ends_at_the_next_start() -> None:
    """No task of it starts, whatever the former owner had started."""
    group = Group()
    cluster, loop, _ = running(group)
    group.clock.advance(group.ttl + 1)
    cluster.job("j").cancel()
    again = group.member("again")
    group.turn(again, times=20)
    assert group.pool(again).start() == []
    assert counts(cluster.job("j").progress()) == {"total": 8, "cancelled": 8}
    group.turn(loop)


@pytest.mark.promise(3)
def test_a_successor_starts_nothing_of_a_cancelled_job() -> None:
    """Not even the tasks that its claim has marked as about to start."""
    group = Group(runner=1, backup=1, shards=1)
    owner, successor = group.member(), group.member(apart=Kennel(up=4))
    cluster = submit(group, 8)
    group.turn(owner, successor)
    cluster.job("j").cancel()
    for _ in range(3):
        group.clock.advance(group.ttl / 2)
        group.renew(successor)
        group.turn(successor)
    assert group.owners() == [successor.name]
    assert group.pool(successor).start() == []
    assert counts(cluster.job("j").progress()) == {"total": 8, "cancelled": 8}


def test_a_submit_to_a_cancelled_job_is_refused() -> None:
    """Before and after the job has ended."""
    group = Group()
    loop = group.member()
    cluster = submit(group, 3)
    cluster.job("j").cancel()
    with pytest.raises(JobClosedError, match="job 'j' is cancelling and takes no more tasks"):
        submit(group, 3)
    group.turn(loop, times=20)
    group.clock.advance(group.ttl / 3)
    group.turn(loop)
    with pytest.raises(JobClosedError, match="job 'j' is cancelled and takes no more tasks"):
        submit(group, 3)


def test_cancelling_twice_or_a_finished_job_changes_nothing() -> None:
    """A finished job stays finished."""
    group = Group()
    loop = group.member()
    cluster = submit(group, 1)
    group.turn(loop)
    group.pool(loop).finish()
    group.turn(loop)
    job = cluster.job("j")
    job.cancel()
    assert (cluster.jobs(), group.backend.keys(KEYS.control)) == ({"j": "finished"}, [])
    submit(group, 1, "k")
    cluster.job("k").cancel()
    before = group.backend.get(KEYS.job("k"))
    cluster.job("k").cancel()
    assert group.backend.get(KEYS.job("k")) == before
    with pytest.raises(UsageError, match="no job 'x'"):
        type(job)(job._access, "x").cancel()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.promise(3)
def test_a_cancelled_job_of_which_the_store_has_lost_tasks_ends() -> None:
    """They count as cancelled: none of them will run."""
    group = Group(shards=1)
    loop = group.member()
    cluster = submit(group, 3)
    for key in group.backend.keys(KEYS.tasks(0)):
        group.backend.commit([], [Delete(key)])
    cluster.job("j").cancel()
    group.turn(loop)
    progress = cluster.job("j").wait(timeout=0)
    assert (counts(progress), progress.state) == ({"total": 3, "cancelled": 3}, "cancelled")
