"""A task that kills where no child can run the handler: how many members it costs, by how their deaths are known."""

import pytest
from core.by_hand import incarnation, submit
from core_kit import Group

from smoothcluster.cluster import Cluster
from smoothcluster.member.loop import MemberLoop
from smoothcluster.model import State

POISON = "j.3"


def works_until_it_dies(group: Group, loop: MemberLoop) -> bool:
    """Let a member work; whether it has begun what kills. It dies then, with whatever else it has begun."""
    for _ in range(60):
        group.turn(loop, times=1)
        pool = Group.pool(loop)
        if any(run.task.id == POISON for run in pool.start()):
            return True
        pool.finish()
        group.clock.advance(0.05)
        group.renew(loop)
    return False


def lost_until_it_is_convicted(seen: list[bool]) -> tuple[int, dict[str, State]]:
    """How many members die if each death is *seen*, or noticed when the lease runs out; and what is recorded."""
    group = Group(runner=1, backup=1, shards=1)
    loop = group.member()
    cluster = submit(group, 8)
    for lost, was_seen in enumerate([*seen, True]):
        if not works_until_it_dies(group, loop):
            return lost, {outcome.task_id: outcome.state for outcome in cluster.job("j").results()}
        heir = group.member(f"heir_{lost}")
        if was_seen:
            heir.inbox.proved_gone(incarnation(loop))
        else:
            group.clock.advance(group.ttl + 0.1)
            group.turn(heir)  # Whose own lease is new: it joins again at once.
        loop = heir
    raise AssertionError("it goes on killing")


@pytest.mark.promise(5)
@pytest.mark.parametrize(
    ("seen", "members"),
    [
        ([True] * 9, 2),
        ([False, *[True] * 9], 2),
        ([False] * 9, 4),
        ([True, *[False] * 9], 4),
        ([False, False, *[True] * 9], 3),
    ],
)
def test_what_kills_costs_two_members_if_deaths_are_seen_and_four_if_not(seen: list[bool], members: int) -> None:
    """One among others; then one that was seen, or three that were not. All else is done."""
    lost, states = lost_until_it_is_convicted(seen)
    assert lost == members
    assert states.pop(POISON) is State.QUARANTINED
    assert (len(states), set(states.values())) == (7, {State.DONE})


def test_one_that_turns_out_alive_leaves_its_tasks_suspect() -> None:
    """It may still be running what kills it, or have been held up by it: what it had runs apart all the same."""
    group = Group(runner=1, backup=1, shards=1)
    loops = [group.member() for _ in range(2)]
    submit(group, 2)
    paused = incarnation(loops[0])
    group.turn(*loops)
    assert len(Group.pool(loops[0]).start()) == 2
    for _ in range(3):
        group.clock.advance(group.ttl / 2)
        group.renew(loops[1])
        group.turn(loops[1])
    assert group.owners() == ["m_1"]
    group.turn(loops[0])
    assert incarnation(loops[0]) != paused
    group.turn(*loops)
    read = group.view().shards[0]
    assert read is not None
    (chunk,) = read.record.open.values()
    assert all(entries[0].startswith(f"{paused}@1:lease_expired") for entries in chunk.blame.values())
    assert len(chunk.blame) == 2
    assert Cluster(group.backend, "g", clock=group.clock).quarantine() == []
