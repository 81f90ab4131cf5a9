"""Deaths at the one moment that matters, which chance would seldom hit."""

import os
import signal

import pytest
from cluster.group import NewGroup, named

from smoothcluster import State, Task


@pytest.mark.promise(3)
def test_a_member_dies_of_recording_an_outcome(new_group: NewGroup) -> None:
    """The tasks that its handler added are there by then: the store was told of both at once."""
    group = new_group(runner=1, backup=1)
    mortal = group.start_one(dies_of="/results/")
    group.start_one()
    group.converged()
    job = group.cluster.submit([Task(id="page", meta={"links": named(20, "link")})])
    assert mortal.status() == -signal.SIGKILL
    outcomes = group.finish(job, ["page", *named(20, "link")])
    assert {outcome.attempts for outcome in outcomes} == {1}
    assert [outcome.runner for outcome in outcomes if outcome.task_id == "page"] == [mortal.name]


@pytest.mark.promise(5)
def test_a_child_dies_a_moment_before_its_member(new_group: NewGroup) -> None:
    """Whoever kills a whole process tree, or has a member leave, convicts nobody: twice over, and the task is done.

    A death of a child is to count after a second. Here that is a minute, so that no busy machine makes it pass.
    """
    group = new_group(runner=1, backup=2, isolation={}, concurrency=2, patience=60)
    members = group.start(3)
    job = group.submit(1, "held", hold="gate")
    for number, end in enumerate((signal.SIGKILL, signal.SIGTERM)):
        (runner,) = group.eventually(group.runners)
        group.eventually(lambda runner=runner: group.running(runner) == {"held-0"})  # type: ignore[misc]  # a default
        for child in runner.children():
            os.kill(child, signal.SIGSEGV)
        # What is submitted now and recorded is younger than that death: a member in a hurry would have recorded it.
        later = named(3, f"later-{number}")
        group.finish(group.submit(3, f"later-{number}"), later)
        runner.signal(end)
        runner.status()
        members.remove(runner)
    group.open("gate")
    (outcome,) = group.finish(job, named(1, "held"))
    assert (outcome.state, outcome.attempts) == (State.DONE, 3)
    assert members[0].alive
