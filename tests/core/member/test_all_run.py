"""A group in which all are Runners, each loop turned by hand: shares, takeovers, capacity, pace and breaker."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import pytest
from core.by_hand import incarnation, submit, work_off
from core_kit import KEYS, Group, put, store_of

from smoothcluster.cluster import Cluster
from smoothcluster.group.assignment import Plan
from smoothcluster.group.breaker import Pacing
from smoothcluster.group.events import read_events
from smoothcluster.member.adoption import EXCHANGE_INTERVAL_SECONDS
from smoothcluster.member.loop import MemberLoop
from smoothcluster.member.schedule import RECHECK_SECONDS
from smoothcluster.model import Role


def group_of(count: int, shards: int, *, capacity: int | None = None, adopt: int = 4) -> tuple[Group, list[MemberLoop]]:
    """So many members, who share the shards, and *adopt* so many of the dead's at once."""
    group = Group(runner=count, backup=None, shards=shards, pacing=Pacing(shards=adopt))
    loops = [group.member(capacity=capacity) for _ in range(count)]
    settle(group, *loops)
    return group, loops


def settle(group: Group, *loops: MemberLoop, rounds: int = 6) -> None:
    """Let the members do what they would in a second or so."""
    for _ in range(rounds):
        group.turn(*loops, times=4)
        group.clock.advance(RECHECK_SECONDS)
        group.renew(*loops)


def die(group: Group, loops: list[MemberLoop], *numbers: int) -> list[MemberLoop]:
    """Some die; the others, who noticed it, are returned."""
    left = [loop for number, loop in enumerate(loops) if number not in numbers]
    for number in numbers:
        for loop in left:
            loop.inbox.proved_gone(incarnation(loops[number]), 0.001)
    return left


def shards(group: Group) -> Mapping[str | None, int]:
    """How many each owns; None for nobody living."""
    owners = group.owners()
    return {owner: owners.count(owner) for owner in owners}


def told(group: Group, kind: str) -> list[Mapping[str, object]]:
    """The events of a kind."""
    return [event for event in read_events(store_of(group.backend)) if event["kind"] == kind]


def test_all_are_runners_the_moment_they_join() -> None:
    """Without a seat, up to the number asked for; who comes later stands by."""
    group = Group(runner=2, backup=None)
    loops = [group.member() for _ in range(3)]
    assert [loop.role for loop in loops] == [Role.RUNNER, Role.RUNNER, Role.BACKUP_RUNNER]
    assert group.backend.keys(KEYS.seats) == []
    status = Cluster(group.backend, "g", clock=group.clock).status()
    assert [member["seat"] for member in status["members"]] == [None] * 3


def test_three_of_five_share_all_and_the_others_get_theirs_when_they_come() -> None:
    """With the fewest moves: nobody is given what it must give away again."""
    group = Group(runner=5, backup=None, shards=30)
    loops = [group.member() for _ in range(3)]
    settle(group, *loops)
    assert shards(group) == {"m_0": 10, "m_1": 10, "m_2": 10}
    moved = len(told(group, "handover"))
    for _ in range(2):
        loops.append(group.member())
        settle(group, *loops)
    assert sorted(shards(group).values()) == [6] * 5
    gifts = sum(len(cast("list[int]", event["shards"])) for event in told(group, "handover")[moved:])
    assert gifts == 7 + 6, "what the fourth is due, and the fifth"


def test_survivors_share_what_a_dead_member_had() -> None:
    """Even to within one shard; and each tells whose it was and how that is known."""
    group, loops = group_of(4, 12)
    left = die(group, loops, 1)
    settle(group, *left)
    assert shards(group) == {"m_0": 4, "m_2": 4, "m_3": 4}
    events = [event for event in told(group, "handover") if event["from"] == "m_1" != event["member"]]
    assert {event["evidence"] for event in events} == {"process_gone"}
    assert len(events) == 3


def test_one_who_knows_tells_the_others() -> None:
    """Only some watch its port: the end of its record wakes the rest, and they know how it ended."""
    group, loops = group_of(4, 12)
    loops[2].inbox.proved_gone(incarnation(loops[1]), 0.001)
    left = [loops[0], loops[2], loops[3]]
    group.turn(*left, times=6)
    assert shards(group) == {"m_0": 4, "m_2": 4, "m_3": 4}
    evidence = {event["evidence"] for event in told(group, "handover") if event["from"] == "m_1" != event["member"]}
    assert evidence == {"process_gone"}


def test_one_who_knows_and_is_due_nothing_tells_the_others_all_the_same() -> None:
    """It ends the dead one's record at once: where there are no seats there is no heir to be waited for."""
    group, loops = group_of(3, 2)
    idle = next(loop for loop in loops if loop.name not in shards(group))
    dead, other = (loop for loop in loops if loop is not idle)
    other.inbox.proved_gone(incarnation(dead), 0.001)
    group.turn(other, idle, times=4)
    assert shards(group) == {other.name: 1, idle.name: 1}


def test_one_that_stands_by_is_a_runner_once_there_is_room() -> None:
    """By the order of joining: nothing is voted for or claimed but the shards."""
    group = Group(runner=2, backup=None, shards=6)
    loops = [group.member() for _ in range(3)]
    settle(group, *loops)
    assert shards(group) == {"m_0": 3, "m_1": 3}
    left = die(group, loops, 0)
    settle(group, *left)
    assert shards(group) == {"m_1": 3, "m_2": 3}
    assert [loop.role for loop in left] == [Role.RUNNER, Role.RUNNER]


@pytest.mark.promise(7)
def test_the_last_one_takes_all_and_ends_the_work() -> None:
    """Slower, and alive: neither pace nor breaker stops the only one there is."""
    group, loops = group_of(5, 10)
    cluster = submit(group, 40)
    left = die(group, loops, 0, 1, 2, 3)
    settle(group, *left)
    assert shards(group) == {"m_4": 10}
    work_off(group, *left)
    assert cluster.job("j").progress().done == 40


@pytest.mark.promise(6)
def test_adoption_goes_a_few_shards_a_round() -> None:
    """Then a pause: what kills is met in small doses."""
    group, loops = group_of(3, 30, adopt=2)
    left = die(group, loops, 0)
    group.turn(*left, times=6)
    assert shards(group) == {"m_1": 12, "m_2": 12, None: 6}
    group.clock.advance(0.1)
    group.turn(*left, times=6)
    assert shards(group) == {"m_1": 14, "m_2": 14, None: 2}


def test_who_leaves_is_not_adopted_from_but_followed() -> None:
    """Nothing kills there: its shards are taken at once, and the breaker hears nothing of it."""
    group, loops = group_of(3, 30, adopt=2)
    loops[0].inbox.ask_to_leave()
    loops[0].run()
    group.turn(*loops[1:], times=4)
    assert shards(group) == {"m_1": 15, "m_2": 15}
    assert group.view().breaker.record.dead == {}


@pytest.mark.promise(6)
def test_the_breaker_opens_before_the_first_move_of_a_series() -> None:
    """Three of five within ten seconds: nobody takes what the third had, nor what was not taken yet."""
    group, loops = group_of(5, 10)
    loops = die(group, loops, 0)
    settle(group, *loops)
    loops = die(group, loops, 0)
    settle(group, *loops)
    before = shards(group)
    loops = die(group, loops, 0)
    settle(group, *loops, rounds=20)
    assert shards(group) == {"m_3": before["m_3"], "m_4": before["m_4"], None: before["m_2"]}
    assert group.view().breaker.record.open
    status = Cluster(group.backend, "g", clock=group.clock).status()
    assert (status["breaker"], len(status["unassigned"])) == ("open", before["m_2"])
    (event,) = told(group, "breaker")
    assert (event["state"], event["dead"]) == ("open", ["m_0", "m_1", "m_2"])
    (event,) = told(group, "unassigned")
    assert (event["why"], len(cast("list[int]", event["shards"]))) == ("breaker", before["m_2"])


def test_a_series_that_the_store_has_forgotten_is_one_all_the_same() -> None:
    """It goes back to when the dead had no shards yet: the breaker opens, and has no names to tell."""
    group = Group(runner=5, backup=None, shards=10)
    loops = [group.member()]
    settle(group, *loops)
    loops += [group.member() for _ in range(4)]
    past = group.store.past()
    settle(group, *loops)
    loops = die(group, loops, 1, 2, 3)
    group.turn(*loops, times=1)
    group.store.go_back(past)
    settle(group, *loops)
    assert group.view().breaker.record.open
    (event,) = told(group, "breaker")
    assert (event["state"], event["dead"]) == ("open", [])
    settle(group, *loops, rounds=60)
    assert shards(group) == {"m_0": 5, "m_4": 5}


@pytest.mark.promise(7)
def test_the_breaker_closes_when_nobody_has_died_for_a_while() -> None:
    """And the work goes on."""
    group, loops = group_of(5, 10)
    cluster = submit(group, 20)
    loops = die(group, loops, 0, 1, 2)
    settle(group, *loops)
    assert group.view().breaker.record.open
    settle(group, *loops, rounds=60)
    assert not group.view().breaker.record.open
    assert shards(group) == {"m_3": 5, "m_4": 5}
    assert [event["state"] for event in told(group, "breaker")] == ["open", "closed"]
    assert [bool(event["shards"]) for event in told(group, "unassigned")] == [True, False]
    work_off(group, *loops)
    assert cluster.job("j").progress().done == 20


def test_a_newcomer_takes_its_share_though_the_breaker_is_open() -> None:
    """It has nothing yet that the load of others could be added to."""
    group, loops = group_of(5, 12)
    loops = die(group, loops, 0, 1, 2)
    settle(group, *loops)
    loops.append(group.member("fresh"))
    settle(group, *loops)
    assert group.view().breaker.record.open
    assert shards(group)["fresh"] == 4


@pytest.mark.promise(6)
def test_what_is_beyond_all_capacity_is_unassigned_until_somebody_has_room() -> None:
    """Shown, told of, never forced on anybody, and taken by one that joins."""
    group, loops = group_of(4, 12, capacity=4)
    loops = die(group, loops, 0, 1)
    settle(group, *loops)
    assert shards(group) == {"m_2": 4, "m_3": 4, None: 4}
    event = told(group, "unassigned")[-1]
    assert (event["why"], len(cast("list[int]", event["shards"]))) == ("capacity", 4)
    loops.append(group.member("fresh", capacity=4))
    settle(group, *loops)
    assert shards(group) == {"m_2": 4, "m_3": 4, "fresh": 4}
    assert told(group, "unassigned")[-1]["why"] is None


def test_with_too_little_room_all_tasks_are_done_all_the_same() -> None:
    """A shard without tasks is given up for one that has some."""
    group = Group(runner=1, backup=None, shards=8)
    loop = group.member(capacity=2)
    cluster = submit(group, 60)
    for _ in range(100):
        work_off(group, loop, rounds=2)
        group.clock.advance(EXCHANGE_INTERVAL_SECONDS)
        group.renew(loop)
        assert sum(count for owner, count in shards(group).items() if owner) <= 2
    assert cluster.job("j").progress().done == 60


def test_while_the_breaker_is_open_no_orphan_is_exchanged_for() -> None:
    """That would be adopting it."""
    group, loops = group_of(5, 10, capacity=2)
    submit(group, 40)
    loops = die(group, loops, 0, 1, 2)
    settle(group, *loops)
    owners = group.owners()
    work_off(group, *loops, rounds=40)
    assert group.view().breaker.record.open
    assert group.owners() == owners


@pytest.mark.promise(6)
def test_in_the_other_shape_survivors_are_as_careful() -> None:
    """Where no Backup Runner is left, the load of the dead comes to those that have some."""
    group = Group(runner=3, backup=0, shards=30, pacing=Pacing(shards=2))
    loops = [group.member() for _ in range(3)]
    settle(group, *loops)
    left = die(group, loops, 0)
    group.turn(*left, times=6)
    assert shards(group) == {"m_1": 12, "m_2": 12, None: 6}


@pytest.mark.promise(6)
def test_a_backup_takes_no_more_than_it_has_room_for() -> None:
    """Its seat does not come with a licence to be overloaded."""
    group = Group(runner=1, backup=1, shards=8)
    first, second = group.member(), group.member(capacity=3)
    settle(group, first, second)
    second.inbox.proved_gone(incarnation(first), 0.001)
    settle(group, second)
    assert shards(group) == {"m_1": 3, None: 5}


@pytest.mark.promise(6)
@pytest.mark.parametrize("backup", [None, 0])
def test_a_gift_never_goes_past_capacity(backup: int | None) -> None:
    """The giver counts what the other owns once more, after reading the record that the gift compares."""
    group = Group(runner=2, backup=backup, shards=9)
    first = group.member()
    settle(group, first)
    second = group.member(capacity=2)
    settle(group, first, second)
    assert shards(group) == {"m_0": 7, "m_1": 2}


@pytest.mark.promise(6)
def test_a_giver_counts_once_more_what_the_other_owns() -> None:
    """Its picture is made of several reads, and may show the other's record newer than its shards."""
    group = Group(runner=2, backup=None, shards=6)
    first = group.member()
    settle(group, first)
    second = group.member(capacity=2)
    target = incarnation(second)
    assert first.life is not None
    first.life.read_and_act()
    view = first.life.view
    assert view is not None
    for number in (4, 5):  # As if it had claimed them in between.
        read = group.view().shards[number]
        assert read is not None
        put(group.backend, KEYS.shard(number), replace(read.record, owner=target).to_json())
    gifts = first.life._rebalancer  # pyright: ignore[reportPrivateUsage]
    gifts.plan(Plan(give=((0, target), (1, target))))
    assert gifts.transfer(view, first.life.me.record), "it was tried"
    assert shards(group) == {"m_0": 4, "m_1": 2}


@pytest.mark.promise(6)
@pytest.mark.parametrize(("capacity", "owned"), [(2, {"m_0": 2, None: 1}), (None, {"m_0": 3})])
def test_a_look_that_may_not_show_a_gift_is_followed_by_another(
    capacity: int | None, owned: dict[str | None, int]
) -> None:
    """Our record was read after our shards, and somebody has touched it meanwhile."""
    group = Group(runner=1, backup=None, shards=3)
    loop = group.member(capacity=capacity, join=False)
    loop.try_join()
    life = loop.life
    assert life is not None
    put(group.backend, KEYS.member(life.id), replace(life.me.record, id="gift").to_json())
    life.read_and_act()
    assert (life.settled, shards(group)) == (False, {None: 3}), "it only looks again"
    life.read_and_act()
    assert shards(group) == owned


def test_the_work_on_a_shard_leaves_the_shared_view_alone() -> None:
    """Records that have not changed in the store are shared by all views; the work has a copy of its own."""
    group = Group(runner=1, backup=None, shards=1)
    loop = group.member()
    group.turn(loop)
    life = loop.life
    assert life is not None
    given = replace(life.workload.works[0].record.copy(), epoch=9)
    put(group.backend, KEYS.shard(0), given.to_json())
    group.clock.advance(5.0)
    group.turn(loop)
    assert life.view is not None
    read = life.view.shards[0]
    assert read is not None
    assert read.record == life.workload.works[0].record == given
    assert read.record is not life.workload.works[0].record
