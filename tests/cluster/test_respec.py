"""A living group whose numbers change: Runners come and go without any death, in the middle of a job."""

import pytest
from cluster.group import Group, NewGroup, named, names
from cluster.handlers import START

TASKS = 500


@pytest.mark.promise(1)
def test_runners_are_added_and_taken_away_under_load(group: Group) -> None:
    """From three to four, and from four to two: who has a seat works, who lost it hands over, nothing is run twice."""
    group.start(5)
    group.converged()
    job = group.submit(TASKS, nap=0.1)
    group.progressed(20)
    before = names(group.runners())
    group.change_spec(runner=4)
    group.converged()
    assert before < names(group.runners()), "nobody is pushed out"
    group.busy(*group.runners())
    group.change_spec(runner=2)
    assert len(group.runners()) == 2, "at once: the seats are closed in the same commit"
    group.converged()
    outcomes = group.finish(job, named(TASKS))
    assert {outcome.attempts for outcome in outcomes} == {1}
    assert sum(line.what == START for line in group.log()) == TASKS
    assert len({outcome.runner for outcome in outcomes}) >= 4
    late = group.start_one()
    assert late.role == "backup-runner"
    group.converged()


@pytest.mark.promise(2)
def test_a_handler_that_does_not_come_back_is_not_waited_for(new_group: NewGroup) -> None:
    """After the grace period its task is started again by whoever has the seats; its late outcome is refused."""
    group = new_group(grace=0.5, runner=2, backup=0)
    group.start(2)
    group.converged()
    job = group.submit(40, hold="gate")
    loser = group.runners()[1]
    group.busy(*group.runners(), tasks=8)
    held = group.running(loser)
    group.change_spec(runner=1)
    group.converged()
    group.open("gate")
    outcomes = group.finish(job, named(40))
    assert {outcome.attempts for outcome in outcomes if outcome.task_id in held} == {2}
    assert {outcome.runner for outcome in outcomes} == names(group.runners())
