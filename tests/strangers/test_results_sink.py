"""Results leave the store, on every store: members die in the middle of moves, and each outcome is found once."""

from collections import Counter
from pathlib import Path

import pytest
from cluster.group import Group, NewGroup, named

from smoothcluster.records.keys import Keys

TASKS = 1500


def left_in_store(group: Group, job: str) -> int:
    """How many records of outcomes the store has."""
    keys, shards = Keys(group.name), group.cluster.spec()["shards"] or 0
    return sum(len(group.backend.keys(keys.results(job, shard))) for shard in range(shards))


@pytest.mark.quick
@pytest.mark.promise(3)
def test_members_that_die_amid_moves(new_group: NewGroup, tmp_path: Path) -> None:
    """One dies as soon as it has set a tail, one at any moment; the successors move what is left, once."""
    group = new_group(runner=2, backup=2, results=f"file://{tmp_path}/out")
    group.start(1, dies_of="/tails/")
    group.start(3)
    job = group.submit(TASKS, nap=0.002)
    group.eventually(lambda: group.dead == 1)
    group.runners()[-1].kill()
    outcomes = group.finish(job, named(TASKS))
    assert len(outcomes) == TASKS
    group.eventually(lambda: left_in_store(group, job.id) == 0)
    assert Counter(outcome.task_id for outcome in job.results()) == Counter(named(TASKS))
    assert any((tmp_path / "out").rglob("*.jsonl"))
