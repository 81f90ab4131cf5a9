"""Groups in which all members are Runners, each the backup of the others, on real stores: what they survive."""

import random
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from cluster.group import Group, Member, NewGroup, meanwhile, named

from smoothcluster import Evidence, Pacing, State, Task

CONCURRENCY = 8
"""What members have if they are not told otherwise."""

QUICK = {"window": 2.0, "quiet": 2.0}
"""A breaker that closes within the patience of a test."""


@pytest.fixture
def five(new_group: NewGroup) -> Group:
    """Five members, all of them Runners, that have shared the shards."""
    group = new_group(runner=5, backup=None, pacing=QUICK)
    group.start(5)
    group.converged()
    return group


@pytest.mark.quick
def test_all_are_runners_and_share_all_shards_as_they_come(new_group: NewGroup) -> None:
    """Each is a Runner when its constructor returns; three of five do all the work, and the others get their shares."""
    group = new_group(runner=5, backup=None)
    members = group.start(3)
    assert {member.role for member in members} == {"runner"}
    group.converged()
    job = group.submit(300, nap=0.01)
    group.progressed(20)
    late = group.start(2)
    assert {member.role for member in late} == {"runner"}
    group.converged()
    assert sorted(group.shards().values()) == [6, 6, 6, 7, 7]
    assert [each["seat"] for each in group.status()["members"]] == [None] * 5
    outcomes = group.finish(job, named(300))
    assert {outcome.attempts for outcome in outcomes} == {1}, "a shard that moves finishes what runs"
    (extra,) = group.start(1)
    assert extra.role == "backup-runner"


def kill_at_random(group: Group, victims: int, seed: int) -> None:
    """Five members, 500 tasks of 50 ms; some are killed at moments that *seed* decides: all is done, nothing twice."""
    chance = random.Random(seed)
    job = group.submit(500, f"s{seed}", nap=0.05)
    for moment in sorted(chance.randrange(450) for _ in range(victims)):
        group.eventually(lambda moment=moment: group.ended() >= moment)  # type: ignore[misc]  # mypy cannot infer it
        victim = chance.choice(group.living)
        victim.kill()
        victim.status()  # Else it may be chosen twice.
    outcomes = group.finish(job, named(500, f"s{seed}"))
    assert Counter(outcome.state for outcome in outcomes) == {State.DONE: 500}
    assert group.status()["tasks"]["quarantined"] == 0
    assert len(group.living) == 5 - victims
    assert max(map(group.has_run, group.members)) == CONCURRENCY, "whatever they adopt"


@pytest.mark.promise(3, 6)
@pytest.mark.parametrize("victims", [pytest.param(2, marks=pytest.mark.quick), 4])
def test_survivors_do_what_the_dead_have_left(five: Group, victims: int) -> None:
    """Two die, or all but one: the others go on, slower and alive."""
    kill_at_random(five, victims, seed=victims)


@pytest.mark.promise(3, 6)
@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("victims", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(20))
def test_survivors_do_what_the_dead_have_left_whenever_they_die(new_group: NewGroup, victims: int, seed: int) -> None:
    """Twenty times each."""
    group = new_group(runner=5, backup=None)
    group.start(5)
    group.converged()
    kill_at_random(group, victims, seed)


@pytest.mark.promise(7)
def test_of_several_that_die_at_once_all_are_noticed(five: Group) -> None:
    """Whoever is left watches the ports of those that joined before it: nobody waits for a lease."""
    job = five.submit(200, nap=0.02)
    five.busy(*five.runners())
    dead = five.runners()[:3]
    for member in dead:
        member.kill()
    five.finish(job, named(200))
    five.converged()
    for member in dead:
        told = five.handovers(member.name)
        assert {event["evidence"] for event in told} == {"process_gone"}, told
    assert sum(five.shards().values()) == 32


@pytest.mark.promise(6)
def test_the_breaker_stops_survivors_and_no_newcomer(new_group: NewGroup) -> None:
    """The third of five that dies opens it, before any of its shards is taken; one that joins helps at once.

    So does the last one that is left.
    """
    group = new_group(runner=5, backup=None, pacing={"window": 30.0, "quiet": 30.0})
    group.start(5)
    group.converged()
    job = group.submit(60, hold="gate")
    group.busy(*group.runners())
    for member in group.runners()[:2]:
        member.kill()
        member.status()
        group.converged()
    before, third = group.shards(), group.runners()[0]
    third.kill()
    left = before.pop(third.pid)
    group.eventually(lambda: group.status()["breaker"] == "open" and group.shards().keys() == before.keys())
    assert (group.shards(), len(group.status()["unassigned"])) == (before, left)
    assert group.eventually(lambda: group.events("unassigned"))[-1]["why"] == "breaker"
    fresh = group.start_one()
    group.eventually(lambda: group.shards()[fresh.pid] >= 32 // 3)
    assert {pid: count for pid, count in group.shards().items() if pid in before} == before
    group.start(2)
    group.open("gate")
    group.finish(job, named(60))
    assert group.status()["unassigned"] == []
    last = group.living[0]
    for member in group.living[1:]:
        member.kill()
    group.eventually(lambda: group.shards() == {last.pid: 32})
    assert group.status()["breaker"] == "open"
    group.eventually(lambda: [event["state"] for event in group.events("breaker")] == ["open"])


@pytest.mark.promise(6, 7)
def test_the_breaker_closes_and_the_work_goes_on(five: Group) -> None:
    """Though nobody joins."""
    job = five.submit(100, nap=0.01)
    for member in five.runners()[:3]:
        member.kill()
    five.finish(job, named(100))
    five.converged()
    assert five.status()["breaker"] == "closed"
    for survivor in five.living:
        assert most_at_once(five, survivor) <= Pacing().shards


def most_at_once(group: Group, member: Member) -> int:
    """How many shards of the dead *member* has adopted in one round, at most, by its own events."""

    def adopted() -> list[dict[str, Any]]:
        mine = [event for event in group.events("handover") if event["member"] == member.name == event["to"]]
        return [event for event in mine if event["evidence"] != Evidence.LEFT]

    dead = group.eventually(adopted)
    rounds = [[each for each in dead if abs(each["at"] - event["at"]) < Pacing().pause / 50] for event in dead]
    return max(sum(len(each["shards"]) for each in events) for events in rounds)


@pytest.mark.promise(6)
@pytest.mark.quick
def test_what_nobody_has_room_for_is_shown_and_taken_by_who_comes(new_group: NewGroup) -> None:
    """Eight members with room for seven's share; two die: nobody goes past its capacity, and all is done in the end."""
    group = new_group(runner=8, backup=None, capacity=5, concurrency=2)
    group.start(8)
    group.converged()
    job = group.submit(200, hold="gate")
    group.busy(*group.runners())
    for member in group.runners()[:2]:
        member.kill()
    group.eventually(lambda: within(group, 5) == [5] * 6)
    assert len(group.status()["unassigned"]) == 2
    assert group.eventually(lambda: [e for e in group.events("unassigned") if len(e["shards"]) == 2])
    group.spawn()
    group.eventually(lambda: sum(within(group, 5)) == 32 and not group.status()["unassigned"])
    group.open("gate")
    group.eventually(lambda: within(group, 5) and job.progress().finished)
    group.finish(job, named(200))


def within(group: Group, capacity: int) -> list[int]:
    """How many shards each member owns, which must never be more than so many."""
    owned = list(group.shards().values())
    assert max(owned) <= capacity
    return owned


@pytest.mark.promise(6)
def test_with_room_for_few_shards_all_tasks_end(new_group: NewGroup) -> None:
    """A shard without tasks is exchanged for one that has some."""
    group = new_group(runner=2, backup=None, capacity=4, shards=16)
    group.start(2)
    job = group.submit(100)
    group.finish(job, named(100))
    assert max(group.shards().values()) <= 4


def restart(group: Group, member: Member) -> Member:
    """Ask a member to leave, wait for that, and start it again under its name."""
    name = member.name
    member.signal(signal.SIGTERM)
    assert member.status() == 0
    return group.start_one(name=name)


def test_a_rolling_restart_loses_and_repeats_nothing(new_group: NewGroup) -> None:
    """One by one, under load, under the same names."""
    group = new_group(runner=5, backup=None)
    members = [group.start_one(name=f"c{number}") for number in range(5)]
    group.converged()
    job = group.submit(1500, nap=0.03)
    group.busy(*members)
    for member in members:
        restart(group, member)
        group.converged()
    outcomes = group.finish(job, named(1500))
    assert {outcome.attempts for outcome in outcomes} == {1}, "what ran was finished before its member left"
    assert not [event for event in group.events("handover") if event["evidence"] != "left"]


def restarting(group: Group) -> Iterator[None]:
    """Start another member for each that has died, at each step."""
    while True:
        for _ in range(5 - len(group.living)):
            group.spawn()
        yield


@pytest.mark.promise(5, 7)
def test_a_workload_that_kills_a_member_every_second_does_not_end_the_group(five: Group) -> None:
    """While members are started again: what kills is quarantined, all else is done, and afterwards all is well."""
    names = named(200)
    job = five.cluster.submit([Task(id=name, meta={"nap": 0.1}) for name in names])
    jobs = {job: names}
    with meanwhile(restarting(five), 0.1):
        for number in range(4):
            bad = f"bad-{number}"
            jobs[five.cluster.submit([Task(id=bad, meta={"dies": "exit"})])] = [bad]
            five.eventually(lambda number=number: five.dead > number)  # type: ignore[misc]  # mypy cannot infer it
        for job, tasks in jobs.items():
            (state,) = {outcome.state for outcome in five.finish(job, tasks)}
            assert state is (State.QUARANTINED if tasks[0].startswith("bad") else State.DONE)
        five.eventually(lambda: len(five.living) == 5)
        five.converged()
    assert five.dead == 4, "one for each task that kills"
