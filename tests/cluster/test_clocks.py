"""Members whose clocks differ by minutes, months or decades: no decision depends on the difference."""

import pytest
from cluster.group import NewGroup, named
from cluster.stores import Kind

from smoothcluster import State, Task

AHEAD = (1e7, 0.0, 1e3, 1e5, 1e9)
"""Seconds by which the members' clocks are ahead, in order of joining: the successors come last."""


@pytest.mark.promise(8)
def test_members_on_machines_whose_clocks_differ(new_group: NewGroup, kind: Kind) -> None:
    """No living member is taken for dead, and all blame on a task that kills counts, whatever its time stamp."""
    # All processes on a sqlite file run on one machine; the leases of the file need the monotonic clock of the machine.
    group = new_group(handler="bound_act", wall_only=kind.scheme == "sqlite")
    for ahead in AHEAD:
        group.start_one(ahead=ahead)
    group.converged()
    group.finish(group.submit(200, nap=0.02), named(200))
    assert [event for event in group.events("handover") if event["evidence"] != "left"] == []
    assert group.events("lease_lost") == []
    good = named(100, "good")
    tasks = [Task(id="bad", meta={"dies": "exit"}), *(Task(id=name, meta={"nap": 0.02}) for name in good)]
    outcomes = {each.task_id: each for each in group.finish(group.cluster.submit(tasks), {"bad", *good})}
    assert outcomes["bad"].state is State.QUARANTINED
    assert {outcomes[name].state for name in good} == {State.DONE}
    assert group.dead <= 2, "where no child can run the handler, a task that kills costs two members"
    times = [event["at"] for event in group.events("joined")]
    assert max(times) - min(times) > max(AHEAD) / 2, "the clocks do differ"
    group.converged()
