"""Members that are asked to leave: they finish what runs, and their successor starts at once."""

import signal

import pytest
from cluster.group import Group, NewGroup, named
from cluster.handlers import END, START

HALF_A_LEASE = 5.0
TASKS = 90


@pytest.fixture
def five(new_group: NewGroup) -> Group:
    """Three Runners and two Backup Runners, each of which waits long for handlers to finish."""
    group = new_group(grace=60.0)
    group.start(5)
    group.converged()
    return group


@pytest.mark.promise(3)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_runner_leaves_in_the_middle_of_a_job(five: Group, number: signal.Signals) -> None:
    """What runs is finished and recorded by the one that leaves, the rest is started at once elsewhere; status 0."""
    job = five.submit(400, nap=0.1)
    leaver, heir = five.runners()[0], five.backups()[0]
    five.busy(leaver, tasks=8)
    since = leaver.signal(number)
    assert leaver.status() == 0
    outcomes = five.finish(job, named(400))
    assert {outcome.attempts for outcome in outcomes} == {1}
    assert sum(line.what == START for line in five.log()) == 400
    started = [line.at for line in five.log() if line.what == START and line.pid == heir.pid]
    assert min(started) - since < HALF_A_LEASE
    assert {(event["evidence"], event["to"]) for event in five.handovers(leaver.name)} == {("left", heir.name)}
    five.converged()


def test_a_backup_leaves(five: Group) -> None:
    """Nobody else changes for it."""
    before, leaver = five.runners(), five.backups()[0]
    leaver.signal(signal.SIGTERM)
    assert leaver.status() == 0
    five.converged()
    assert five.runners() == before


@pytest.mark.quick
def test_all_leave_in_the_middle_of_a_job_and_come_back(five: Group) -> None:
    """The last to leave leaves a job half done, and nothing of it is run twice when it goes on."""
    job = five.submit(200, nap=0.05)
    five.progressed(30)
    for member in five.members:
        member.signal(signal.SIGTERM)
    assert [member.status() for member in five.members] == [0] * 5
    assert five.status()["members"] == []
    assert not job.progress().finished
    five.start(2)
    outcomes = five.finish(job, named(200))
    assert {outcome.attempts for outcome in outcomes} == {1}


def test_a_handler_that_does_not_come_back(new_group: NewGroup) -> None:
    """The member leaves when the grace period is over; what it ran is run again elsewhere."""
    group = new_group(grace=0.5)
    group.start(5)
    group.converged()
    job = group.submit(TASKS, hold="gate")
    leaver = group.runners()[0]
    group.busy(*group.runners(), tasks=8)
    held = group.running(leaver)
    leaver.signal(signal.SIGTERM)
    assert leaver.status() == 0
    group.open("gate")
    outcomes = group.finish(job, named(TASKS))
    assert {outcome.attempts for outcome in outcomes if outcome.task_id in held} == {2}
    assert not [line for line in group.log() if line.what == END and line.pid == leaver.pid]
    assert {event["evidence"] for event in group.handovers(leaver.name)} == {"left"}


def test_an_async_handler_that_does_not_come_back(new_group: NewGroup) -> None:
    """An async handler is no different."""
    group = new_group(grace=0.5, handler="act_async", runner=1, backup=1)
    leaver = group.start_one()
    group.start_one()
    job = group.submit(20, hold="gate")
    group.busy(leaver, tasks=8)
    leaver.signal(signal.SIGTERM)
    assert leaver.status() == 0
    group.open("gate")
    group.finish(job, named(20))


@pytest.mark.promise(3)
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(five: Group, first: signal.Signals, second: signal.Signals) -> None:
    """Whoever cannot wait for handlers to finish need not, and loses nothing."""
    job = five.submit(TASKS, hold="gate")
    leaver = five.runners()[0]
    five.busy(*five.runners(), tasks=8)
    leaver.signal(first)
    five.eventually(lambda: "the member leaves the group" in leaver.errors)
    # Signals within a second count once.
    five.eventually(lambda: leaver.signal(second) and not leaver.alive)
    assert leaver.status() == -second
    five.open("gate")
    five.finish(job, named(TASKS))
    five.converged()
