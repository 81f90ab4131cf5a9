"""Processes that stop without dying: by the time they go on they have been replaced, and must not matter."""

import pytest
from cluster.conftest import NewGroup
from cluster.group import Group, named

TASKS = 90


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
    five.eventually(lambda: len(set(incarnations(five, victim.name))) == 2)
    assert victim.alive


def test_a_paused_runner_with_outcomes_to_record(five: Group) -> None:
    """One that wakes amid quick tasks, with outcomes on their way to the store, records none of them."""
    job = five.submit(6000, nap=0.004)
    five.progressed(300)
    victim = five.runners()[0]
    victim.pause()
    five.handovers(victim.name)
    victim.resume()
    five.finish(job, named(6000))
    five.converged()
    assert victim in five.living


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


def test_all_members_paused(five: Group) -> None:
    """When the whole group wakes after all its leases have run out, it forms anew and goes on."""
    job = five.submit(400, nap=0.02)
    five.busy(*five.runners())
    members = list(five.members)
    for member in members:
        member.pause()
    five.eventually(lambda: not five.status()["members"])
    for member in members:
        member.resume()
    five.finish(job, named(400))
    five.converged()
