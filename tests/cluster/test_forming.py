"""How a group comes together, in whatever order its members come, and divides the work."""

from functools import partial
from itertools import pairwise

import pytest
from cluster.group import Group, Member, NewGroup, named, names

from smoothcluster import Task


@pytest.mark.promise(1)
@pytest.mark.quick
def test_roles_are_settled_when_constructors_return_and_a_job_is_done_exactly_once(group: Group) -> None:
    """Of five processes started together three are Runners and two are not, from the first and for good."""
    members = group.start(5)
    assert sorted(member.role for member in members) == ["backup-runner"] * 2 + ["runner"] * 3
    assert names(members) == {f"crawler_{index}" for index in range(5)}
    group.converged()
    outcomes = group.finish(group.submit(300), named(300))
    assert {outcome.attempts for outcome in outcomes} == {1}
    assert {outcome.runner for outcome in outcomes} == names([m for m in members if m.role == "runner"])
    assert names(group.runners()) == names([m for m in members if m.role == "runner"])


def test_members_that_come_later_get_their_share(group: Group) -> None:
    """The first member runs the job alone; each that comes is a Runner while there are seats, and gets shards."""
    job = group.submit(60, nap=0.05)
    first = group.start_one()
    group.progressed(20)
    assert (first.role, group.shards()) == ("runner", {first.pid: 32})
    late = group.submit(200, "late", hold="gate")  # However long the others take to start, there is work for them.
    for role in ("runner", "runner", "backup-runner", "backup-runner"):
        member = group.start_one()
        assert member.role == role
        group.converged()
    assert sorted(group.shards().values()) == [0, 0, 10, 11, 11]
    group.open("gate")
    outcomes = [*group.finish(job, named(60)), *group.finish(late, named(200, "late"))]
    assert len({outcome.runner for outcome in outcomes}) == 3
    assert {outcome.attempts for outcome in outcomes} == {1}


def holds_the_seat(group: Group, member: Member) -> bool:
    """Whether *member* is the only Runner."""
    return group.runners() == [member]


@pytest.mark.promise(1, 7)
def test_members_beyond_the_numbers_stand_by_and_follow_in_order(new_group: NewGroup) -> None:
    """With one seat and one backup asked for, four members are one Runner and three that succeed it in turn."""
    group = new_group(runner=1, backup=1)
    members = [group.start_one() for _ in range(4)]
    assert [member.role for member in members] == ["runner"] + ["backup-runner"] * 3
    job = group.submit(200, nap=0.05)
    for runner, successor in pairwise(members):
        group.busy(runner)
        runner.kill()
        group.eventually(partial(holds_the_seat, group, successor))
    group.finish(job, named(200))
    assert group.shards() == {members[3].pid: 32}


@pytest.mark.quick
def test_all_are_runners_without_backups(new_group: NewGroup) -> None:
    """Where no number of backups is given, every member up to the number is a Runner."""
    group = new_group(runner=3, backup=None)
    assert [member.role for member in group.start(3)] == ["runner"] * 3
    group.converged()
    group.finish(group.submit(100), named(100))


def test_a_job_may_come_before_any_member(group: Group) -> None:
    """What was submitted to a group that does not exist yet waits for it."""
    job = group.submit(100)
    assert group.status()["members"] == []
    assert (job.progress().total, job.progress().finished) == (100, False)
    group.start(2)
    group.finish(job, named(100))


def test_jobs_run_side_by_side(group: Group) -> None:
    """A second job does not wait for the first; each has its own tasks, even of the same names."""
    group.start(3)
    first = group.submit(120, hold="gate")
    group.busy(*group.living)
    second = group.submit(120, prefix="other", nap=0.01)
    third = group.submit(60)
    group.open("gate")
    for job, wanted in ((first, named(120)), (second, named(120, "other")), (third, named(60))):
        job.wait(60)
        assert sorted(outcome.task_id for outcome in job.results()) == sorted(wanted)


def test_adding_to_a_job_that_runs_skips_what_it_has(group: Group) -> None:
    """The same job can be submitted to again while it runs; tasks it has already are not run again."""
    group.start(3)
    job = group.submit(100, job="nightly", hold="gate")
    group.busy(*group.living)
    group.cluster.submit([Task(id=name) for name in named(150)], "nightly")
    group.open("gate")
    outcomes = group.finish(job, named(150))
    assert {outcome.attempts for outcome in outcomes} == {1}
    assert list(group.cluster.jobs()) == ["nightly"]
