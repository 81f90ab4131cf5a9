"""Tasks that ran in a process that died start again before all fresh tasks, however long each of them takes."""

from typing import Any

import pytest
from cluster.group import NewGroup, named
from cluster.handlers import START
from cluster.stores import Kind

IN_FLIGHT = 8
"""Number of tasks that run in a member."""

HOW: dict[str, dict[str, Any]] = {"threads": {}, "loop": {"handler": "act_async"}, "isolated": {"isolation": {}}}


@pytest.mark.promise(7)
@pytest.mark.parametrize("options", HOW.values(), ids=HOW)
def test_all_tasks_in_flight_start_again_though_none_of_them_ends(
    new_group: NewGroup, kind: Kind, options: dict[str, Any]
) -> None:
    """They lie in many shards, and the successor has as many workers as tasks ran: no worker gets a fresh task."""
    if options and kind.scheme != "sqlite":
        pytest.skip("how a task runs does not depend on the store")
    group = new_group(runner=1, backup=1, concurrency=IN_FLIGHT, **options)
    group.start(2)
    group.converged()
    (first,), (second,) = group.runners(), group.backups()
    held = set(named(IN_FLIGHT, "held"))
    job = group.submit(IN_FLIGHT, "held", hold="gate")
    group.eventually(lambda: group.running(first) == held)
    group.submit(40, "fresh", hold="gate")
    since = first.kill()
    group.all_started(held, since, first)
    assert group.running(second) == held
    group.open("gate")
    group.finish(job, held)


@pytest.mark.promise(6)
def test_the_first_free_workers_of_a_busy_survivor_take_the_tasks_in_flight(new_group: NewGroup) -> None:
    """Where all members are Runners, none has a worker to spare."""
    group = new_group(runner=2, backup=None, concurrency=2)
    first, second = group.start(2)
    group.converged()
    # The tasks go on for a while, so that no fresh task takes the place of one whose start is not logged yet.
    job = group.submit(8, hold="gate", nap=1.0)
    group.busy(first, second, tasks=2)
    in_flight, own = group.running(first), group.running(second)
    since = first.kill()
    group.converged()
    group.open("gate")
    group.finish(job, named(8))
    later = [line.task for line in group.log() if line.what == START and line.at > since and line.task not in own]
    assert set(later[:2]) == in_flight
