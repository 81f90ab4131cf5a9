"""Processes that die of SIGKILL: others take over within moments, and nothing is lost or recorded twice.

All members hold leases of ten seconds, so whatever happens within five was not for a lease that ran out.
Each can run all tasks at once: what a dead one had running, its heir has running, too.
"""

import pytest
from cluster.group import Group, Member, NewGroup, named, names

from smoothcluster.clock import SYSTEM_CLOCK

HALF_A_LEASE = 5.0
TASKS = 24
"""A member's share of them, held until a test lets go, takes as many child processes of its heir."""


@pytest.fixture
def five(new_group: NewGroup) -> Group:
    """Three Runners and two Backup Runners, with all shards assigned."""
    group = new_group(concurrency=TASKS)
    group.start(5)
    group.converged()
    return group


def takes_over(group: Group, victim: Member, held: set[str], since: float) -> None:
    """All tasks that *victim* held are started by others, the first of them within half a lease."""
    assert group.all_started(held, since, victim) < HALF_A_LEASE
    assert {event["evidence"] for event in group.handovers(victim.name)} == {"process_gone"}


@pytest.mark.promise(3, 7)
@pytest.mark.quick
def test_a_busy_runner(five: Group) -> None:
    """Its tasks are started by the first Backup Runner, which has its seat and all its shards."""
    job = five.submit(TASKS, hold="gate")
    victim, heir = five.runners()[0], five.backups()[0]
    five.all_running(TASKS)
    held = five.running(victim)
    takes_over(five, victim, held, victim.kill())
    assert names(five.runners()) >= {heir.name}
    assert {event["to"] for event in five.handovers(victim.name)} == {heir.name}
    five.open("gate")
    outcomes = five.finish(job, named(TASKS))
    assert {each.attempts for each in outcomes if each.task_id in held} == {2}
    assert {each.attempts for each in outcomes if each.task_id not in held} == {1}
    five.converged()


@pytest.mark.promise(3)
def test_a_runner_amid_quick_tasks(five: Group) -> None:
    """Where outcomes come faster than they are recorded, what was not recorded is run again."""
    job = five.submit(4000, nap=0.002)
    five.progressed(500)
    victim = five.runners()[1]
    victim.kill()
    five.finish(job, named(4000))
    assert {event["evidence"] for event in five.handovers(victim.name)} == {"process_gone"}
    five.converged()


@pytest.mark.promise(1, 3, 7)
def test_two_runners_at_once(five: Group) -> None:
    """Each of both Backup Runners takes the seat of one."""
    job = five.submit(TASKS, hold="gate")
    victims, heirs = five.runners()[:2], five.backups()
    five.all_running(TASKS)
    held = [five.running(victim) for victim in victims]
    for victim, tasks, since in [(victim, tasks, victim.kill()) for victim, tasks in zip(victims, held, strict=True)]:
        takes_over(five, victim, tasks, since)
    assert names(five.runners()) > names(heirs)
    five.open("gate")
    five.finish(job, named(TASKS))
    five.converged()


@pytest.mark.promise(3, 7)
def test_the_first_backup_and_then_a_runner(five: Group) -> None:
    """The second Backup Runner acts, though the one ahead of it was to."""
    job = five.submit(TASKS, hold="gate")
    victim, (first, second) = five.runners()[2], five.backups()
    five.all_running(TASKS)
    held = five.running(victim)
    first.kill()
    takes_over(five, victim, held, victim.kill())
    assert {event["to"] for event in five.handovers(victim.name)} == {second.name}
    five.open("gate")
    five.finish(job, named(TASKS))
    five.converged()


@pytest.mark.promise(3, 7)
def test_all_backups_and_then_a_runner(new_group: NewGroup) -> None:
    """The Runners that are left take its shards."""
    five = new_group(concurrency=TASKS, lease_ttl=4.0)  # Nobody hurries to bury those who have nothing.
    five.start(5)
    five.converged()
    # Every third of a lease Runners look whose deaths are theirs to notice: the Backup Runners have only just come.
    since = SYSTEM_CLOCK.monotonic()
    five.eventually(lambda: SYSTEM_CLOCK.monotonic() > since + 4.0 / 2)
    job = five.submit(TASKS, hold="gate")
    victim, *others = five.runners()
    five.all_running(TASKS)
    held = five.running(victim)
    for backup in five.backups():
        backup.kill()
    since = victim.kill()
    assert five.all_started(held, since, victim) < 2.0
    # Whoever looks after the first claim finds the dead one's record gone, and cannot say why.
    assert "process_gone" in {event["evidence"] for event in five.handovers(victim.name)}
    assert {event["to"] for event in five.handovers(victim.name)} <= names(others)
    five.open("gate")
    five.finish(job, named(TASKS))
    five.converged()


@pytest.mark.promise(3, 7)
def test_all_but_one(five: Group) -> None:
    """Whoever is left does all there is to do."""
    job = five.submit(TASKS, nap=0.5)
    *victims, last = [*five.runners(), *five.backups()]
    five.busy(*five.runners())
    for victim in victims:
        victim.kill()
    five.finish(job, named(TASKS))
    five.converged()
    assert five.shards() == {last.pid: 32}
