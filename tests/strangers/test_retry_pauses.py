"""The pause before a retry belongs to the task, not to the member that happened to run the task."""

import signal
from collections.abc import Callable

import pytest
from cluster.group import Group, Member, NewGroup
from cluster.handlers import RAISED, START
from cluster.stores import Kind

from smoothcluster.records.shard import Shard

PAUSE_SECONDS = 4.0


def waits(group: Group) -> list[float]:
    """The remaining times of all pauses in the store."""
    shards = [Shard.from_json(entry.value) for entry in group.backend.list(f"{group.name}/shards")]
    return [seconds for shard in shards for chunk in shard.open.values() for seconds in chunk.waits.values()]


def leave(member: Member) -> float:
    """Ask *member* to leave."""
    return member.signal(signal.SIGTERM)


@pytest.mark.promise(8)
@pytest.mark.parametrize("end", [Member.kill, leave])
def test_a_successor_keeps_the_pause(new_group: NewGroup, kind: Kind, end: Callable[[Member], float]) -> None:
    """The second try begins no earlier than the pause after the first, whether the first owner died or left."""
    if end is leave and kind.scheme != "sqlite":
        pytest.skip("how a member leaves does not depend on the store")
    group = new_group(runner=1, backup=1, retries={"attempts": 2, "delay": PAUSE_SECONDS})
    group.start(2)
    group.converged()
    (first,), (second,) = group.runners(), group.backups()
    job = group.submit(3, fails=1)
    group.eventually(lambda: len(waits(group)) == 3)
    end(first)
    group.finish(job, {f"task-{number}" for number in range(3)})
    log = group.log()
    for number in range(3):
        (raised,) = [line.at for line in log if line.task == f"task-{number}" and line.what == RAISED]
        (again,) = [line for line in log if line.task == f"task-{number}" and line.what == START and line.at > raised]
        assert again.pid == second.pid
        assert again.at - raised >= PAUSE_SECONDS - 0.01
