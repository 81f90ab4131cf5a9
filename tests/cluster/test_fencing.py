"""A Runner that has been replaced and does not know it: the store refuses what it has to say.

A pause long enough does the same to it, but then its own clock tells it first. Here nothing does.
"""

import pytest
from cluster.group import Group, NewGroup, named
from cluster.handlers import START

from smoothcluster.backend import Change, Committed, Update
from smoothcluster.group.handover import succeed
from smoothcluster.group.store import GroupStore
from smoothcluster.group.view import View
from smoothcluster.model import Evidence
from smoothcluster.records.keys import Keys

TASKS = 24


def look(group: Group) -> View:
    """The group as the store has it."""
    view = GroupStore(group.backend, Keys(group.name), lambda key, what: None).read_view({})
    assert view is not None
    return view


def replace(group: Group, former: str, heir: str) -> bool:
    """Make all shards of *former* *heir*'s, whatever runs of them, and wake nobody; whether that was in time."""
    view, keys = look(group), Keys(group.name)
    members = {read.record.name: read.record for read in view.members.values()}
    changes: list[Change] = []
    for number in view.owned(members[former].incarnation):
        read = view.shards[number]
        assert read is not None
        after = succeed(read.record, members[heir], Evidence.LEFT, "stranger")
        changes.append(Update(keys.shard(number), after.to_json(), read.version))
    return isinstance(group.backend.commit([], changes), Committed)


@pytest.mark.promise(2)
def test_a_runner_replaced_without_its_knowing(new_group: NewGroup) -> None:
    """Nothing is recorded under an epoch that was over: all that it had running is done again by the shards' owner."""
    group = new_group(runner=2, backup=0, concurrency=TASKS, lease_ttl=4.0)
    first, second = group.start(2)
    group.converged()
    job = group.submit(TASKS, hold="gate")
    group.all_running(TASKS)
    held = {line.task: line.epoch for line in group.log() if line.what == START and line.pid == first.pid}
    group.eventually(lambda: replace(group, first.name, second.name))
    group.open("gate")
    outcomes = group.finish(job, named(TASKS))
    again = {each.task_id: each for each in outcomes if each.task_id in held}
    assert {name for name, each in again.items() if each.epoch <= held[name] or each.attempts != 2} == set()
    group.eventually(lambda: {event["member"] for event in group.events("fenced")} == {first.name})
    group.converged()
