"""Jobs that are cancelled, deleted and retried, in groups of real processes, on each store."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from cluster.group import Group, NewGroup, named
from cluster.handlers import START

from smoothcluster import JobHandle
from smoothcluster.errors import JobClosedError, UsageError


def left(group: Group, job: str) -> list[str]:
    """The keys that the store has of a job, besides its record and the members' events."""
    keys = group.backend.keys
    parts = [f"{group.name}/{what}/{job}" for what in ("seen", "results")]
    chunks = [name for shard in keys(f"{group.name}/tasks") for name in keys(shard) if f"/{job}-" in name]
    shards = [entry.key for entry in group.backend.list(f"{group.name}/shards") if f'"{job}"' in entry.value.decode()]
    return [*(name for part in parts for each in keys(part) for name in keys(each)), *chunks, *shards,
            *(key for key in keys(f"{group.name}/control") if key.endswith(job))]  # fmt: skip


def ended(group: Group, job: JobHandle, total: int) -> None:
    """A cancelled job has ended, and everything adds up: outcomes, numbers, and what handlers say of their runs."""
    progress = job.wait(120)
    outcomes = list(job.results())
    assert progress.state == "cancelled"
    assert (progress.total, progress.done, progress.pending) == (total, len(outcomes), 0)
    assert progress.done + progress.cancelled == total
    assert len({each.task_id for each in outcomes}) == len(outcomes)
    started = {line.task for line in group.log() if line.what == START}
    assert {each.task_id for each in outcomes} <= started


@pytest.mark.promise(3)
@pytest.mark.quick
def test_a_job_is_cancelled_deleted_and_forgotten(new_group: NewGroup) -> None:
    """Runners that work stop; nothing of it is left but the record; another job goes on meanwhile."""
    group = new_group(runner=2, backup=0, concurrency=4)
    group.start(2)
    job, other = group.submit(3000, "victim", nap=0.02), group.submit(300, "other")
    group.progressed(20)
    job.cancel()
    ended(group, job, 3000)
    with pytest.raises(JobClosedError, match="and takes no more tasks"):
        group.submit(1, "late", job.id)
    job.delete()
    assert left(group, job.id) == []
    assert group.cluster.jobs()[job.id] == "deleted"
    with pytest.raises(UsageError, match="outcomes are gone"):
        list(job.results())
    outcomes = list(other.results()) if other.wait(120).finished else []
    assert {each.task_id for each in outcomes} == {*named(300, "other")}


@pytest.mark.promise(3)
def test_an_owner_dies_while_its_job_is_cancelled(new_group: NewGroup) -> None:
    """Its successor goes on closing, and starts nothing of the job."""
    group = new_group(runner=2, backup=1, concurrency=4)
    group.start(3)
    job = group.submit(2000, "victim", nap=0.02)
    group.progressed(20)
    job.cancel()
    group.runners()[0].kill()
    ended(group, job, 2000)
    job.delete()
    assert left(group, job.id) == []


@pytest.mark.promise(2, 3)
def test_an_owner_is_paused_while_its_job_is_cancelled_and_deleted(new_group: NewGroup) -> None:
    """It wakes when all is gone, and brings nothing back."""
    group = new_group(runner=2, backup=1, lease_ttl=1.0, concurrency=4)
    group.start(3)
    job = group.submit(2000, "victim", nap=0.02, hold="gate")
    group.all_running(8)
    victim = group.runners()[0]
    victim.pause()
    job.cancel()
    group.open("gate")
    ended(group, job, 2000)
    job.delete()
    victim.resume()
    again = group.submit(200, "again")
    assert again.wait(120).done == 200
    group.eventually(lambda: len(group.status()["members"]) == 3)
    assert left(group, job.id) == []
    assert group.cluster.jobs()[job.id] == "deleted"


@pytest.mark.promise(3)
def test_failed_tasks_run_again_as_another_job(new_group: NewGroup) -> None:
    """Several clients ask for it at once, and it is made once."""
    group = new_group(runner=1, backup=0)
    group.start_one()
    job = group.submit(40, fails=1)
    assert job.wait(120).failed == 40
    with ThreadPoolExecutor(4) as pool:
        handles = [each.result() for each in [pool.submit(job.retry) for _ in range(4)]]
    assert len({each.id for each in handles}) == 1
    again = handles[0].wait(120)
    assert (again.total, again.failed + again.done) == (40, 40)


def test_a_job_without_members_is_deleted_in_the_end(new_group: NewGroup) -> None:
    """All have left: what is done is removed by the client; what is open waits for a member."""
    group = new_group(runner=1, backup=0, lease_ttl=1.0)
    member = group.start_one()
    done = group.submit(50, "done")
    done.wait(120)
    member.kill()
    open_ = group.submit(50, "open")
    open_.cancel()
    group.eventually(lambda: not group.status()["members"])
    done.delete()
    assert left(group, done.id) == []
    assert group.cluster.jobs() == {done.id: "deleted", open_.id: "cancelling"}
    group.start_one()
    open_.delete()
    assert left(group, open_.id) == []
    assert not [line for line in group.log() if line.task.startswith("open")]
