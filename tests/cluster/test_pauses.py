"""Processes that stop without dying: by the time they go on they have been replaced, and must not matter."""

from functools import partial

import pytest
from cluster.group import Group, Member, NewGroup, named
from cluster.handlers import START

from smoothcluster import JobHandle
from smoothcluster.clock import SYSTEM_CLOCK

TASKS = 24
"""A member's share of them, held until a test lets go, takes as many child processes of its heir."""


@pytest.fixture
def five(new_group: NewGroup) -> Group:
    """Three Runners and two Backup Runners with leases of a second."""
    group = new_group(lease_ttl=1.0, concurrency=TASKS)
    group.start(5)
    group.converged()
    return group


def incarnations(group: Group, name: str) -> list[object]:
    """As which incarnations *name* has joined, in order."""
    return [event["incarnation"] for event in group.events("joined") if event["member"] == name]


@pytest.mark.promise(2)
@pytest.mark.quick
def test_a_runner_paused_for_longer_than_its_lease(five: Group) -> None:
    """It is replaced. What it then has to say of its tasks is refused; it rejoins as a Backup Runner."""
    job = five.submit(TASKS, hold="gate")
    victim = five.runners()[0]
    five.all_running(TASKS)
    held = five.running(victim)
    since = victim.pause()
    five.all_started(held, since, victim)
    assert {event["evidence"] for event in five.handovers(victim.name)} == {"lease_expired"}
    five.open("gate")
    five.eventually(lambda: not any(five.running(member) & held for member in five.living))
    victim.resume()
    five.eventually(lambda: not five.running(victim))
    outcomes = five.finish(job, named(TASKS))
    assert not [each for each in outcomes if each.task_id in held and each.runner == victim.name]
    five.converged()
    assert victim in five.backups()
    five.eventually(lambda: len(incarnations(five, victim.name)) == 2)
    first, second = incarnations(five, victim.name)
    assert first != second
    five.eventually(lambda: [event["incarnation"] for event in five.events("lease_lost")] == [first])
    assert victim.alive


@pytest.mark.promise(4)
def test_a_paused_runner_with_tasks_waiting(new_group: NewGroup) -> None:
    """By its own clock it knows that its lease is over, and starts none of the tasks it had ready."""
    group = new_group(lease_ttl=1.0, concurrency=4)
    group.start(5)
    group.converged()
    job = group.submit(8000, nap=0.001)
    group.progressed(1000)
    victim = group.runners()[0]
    victim.pause()
    group.handovers(victim.name)
    since = SYSTEM_CLOCK.monotonic()
    victim.resume()
    group.finish(job, named(8000))
    late = [line for line in group.log() if line.pid == victim.pid and line.what == START and line.at > since]
    assert len(late) <= 4, "more than were being started at that very moment"
    group.converged()


@pytest.mark.promise(2, 3)
def test_runners_that_wake_in_the_middle_of_recording(new_group: NewGroup) -> None:
    """What they go on to send is refused, however often it happens: nothing is lost, nothing recorded twice."""
    # A breaker that closes soon: while it is open there is time to do all the tasks.
    group = new_group(lease_ttl=1.0, concurrency=40, pacing={"window": 2.0, "quiet": 2.0})
    group.start(5)
    group.converged()
    jobs = list[JobHandle]()
    for number in range(2):
        jobs.append(group.submit(2000, f"{number}", nap=0.03))  # So that there is work, however long a round takes.
        group.progressed(group.ended() + 300)
        victims = group.runners()
        for victim in victims:
            victim.pause()
        group.eventually(partial(has_replaced, group, victims))
        for victim in victims:
            victim.resume()
        group.converged()
    for number, job in enumerate(jobs):
        group.finish(job, named(2000, f"{number}"))


def has_replaced(group: Group, members: list[Member]) -> bool:
    """Whether all that *members* had is in other hands."""
    return not {member.pid for member in members} & group.shards().keys() and not group.status()["unassigned"]


def test_a_pause_shorter_than_the_lease_changes_nothing(new_group: NewGroup) -> None:
    """Whoever comes back in time still has its seat, its shards and its tasks."""
    group = new_group(lease_ttl=20.0)
    group.start(5)
    group.converged()
    job = group.submit(300, nap=0.02)
    victim = group.runners()[0]
    group.busy(victim)
    victim.pause()
    group.progressed(100)
    victim.resume()
    outcomes = group.finish(job, named(300))
    assert {outcome.attempts for outcome in outcomes} == {1}
    assert victim in group.runners()
    assert len(incarnations(group, victim.name)) == 1


@pytest.mark.promise(7)
def test_all_members_paused(five: Group) -> None:
    """When the whole group wakes after all its leases have run out, it forms anew and goes on."""
    job = five.submit(400, hold="gate")
    five.busy(*five.runners())
    members = list(five.members)
    for member in members:
        member.pause()
    five.eventually(lambda: not five.status()["members"])
    for member in members:
        member.resume()
    five.open("gate")
    five.finish(job, named(400))
    five.converged()
