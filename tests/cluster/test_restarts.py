"""Members, and whole groups, that are killed and started again."""

import pytest
from cluster.group import Group, NewGroup, named, names
from cluster.handlers import START

from smoothcluster.clock import SYSTEM_CLOCK

HALF_A_LEASE = 5.0


@pytest.mark.promise(3, 7)
@pytest.mark.quick
def test_a_member_started_again_at_once_under_its_own_name(group: Group) -> None:
    """It is a member again long before its former lease has run out, and as whoever comes last: a Backup Runner."""
    members = [group.start_one(name=f"machine-{number}") for number in range(5)]
    group.converged()
    job = group.submit(300, nap=0.02)
    victim = group.runners()[0]
    group.busy(victim)
    since = victim.kill()
    again = group.start_one(name=victim.name)
    assert again.role == "backup-runner"
    group.finish(job, named(300))
    group.converged()
    assert {event["evidence"] for event in group.handovers(victim.name)} == {"process_gone"}
    assert min(group.starts(named(300), since, victim).values()) - since < HALF_A_LEASE
    assert len(members) == len(group.living)


def test_a_backup_started_again_at_once_under_its_own_name(group: Group) -> None:
    """Its name is free as soon as somebody knows it dead, though it held nothing."""
    for number in range(5):
        group.start_one(name=f"machine-{number}")
    group.converged()
    group.finish(group.submit(50, nap=0.02), named(50))
    victim = group.backups()[0]
    since = victim.kill()
    assert group.start_one(name=victim.name).role == "backup-runner"
    assert SYSTEM_CLOCK.monotonic() - since < HALF_A_LEASE
    group.converged()


@pytest.mark.promise(3, 7)
def test_a_lone_member_started_again_under_its_own_name(new_group: NewGroup) -> None:
    """With nobody there to know it dead, it waits for its own former lease, then goes on where it was."""
    group = new_group(runner=1, backup=0, lease_ttl=1.0, name="only")
    job = group.submit(100, nap=0.05)
    first = group.start_one()
    group.progressed(10)
    first.kill()
    second = group.start_one()
    assert (second.name, second.role) == ("only", "runner")
    group.finish(job, named(100))
    group.eventually(lambda: "lease_expired" in [event["evidence"] for event in group.events("handover")])


@pytest.mark.promise(3, 7)
def test_a_whole_group_killed_and_started_again(new_group: NewGroup) -> None:
    """With tasks half done, it goes on where it stood; what was recorded is not run again."""
    group = new_group(lease_ttl=1.0)
    job = group.submit(450, nap=0.2)  # More than is done while the last of five processes starts.
    recorded: list[tuple[float, set[str]]] = []
    for _ in range(2):
        before = group.ended()
        group.start(5)
        group.progressed(before + 50)
        done = {outcome.task_id for outcome in job.results()}
        recorded.append((min(member.kill() for member in group.living), done))
    group.start(5)
    group.finish(job, named(450))
    for since, done in recorded:
        assert done
        assert not [line for line in group.log() if line.what == START and line.at > since and line.task in done]
    group.converged()


def test_a_group_with_other_numbers_may_follow_one_that_has_ended(new_group: NewGroup) -> None:
    """Once no member lives, the next one's numbers stand, and what is left of a job is done by fewer."""
    group = new_group(lease_ttl=1.0)
    job = group.submit(200, nap=0.02)
    members = group.start(3)
    group.progressed(50)
    for member in members:
        member.kill()
    group.eventually(lambda: not group.status()["members"])
    last = group.start(2, runner=1, backup=1)
    group.finish(job, named(200))
    assert group.status()["spec"] == {"runner": 1, "backup": 1, "shards": 32}
    assert sorted(member.role for member in last) == ["backup-runner", "runner"]
    assert names(group.runners()) <= names(last)
