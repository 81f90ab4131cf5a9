"""Owners look for tasks now and then, so a wake-up that never comes costs time, and no more."""

from collections.abc import Callable

from core.by_hand import submit
from core_kit import KEYS, Group

from smoothcluster.backend import Watch
from smoothcluster.member.loop import MemberLoop
from smoothcluster.member.task_search import LEAST_SEARCH_SHARE, SEARCH_ROUND_SECONDS
from smoothcluster.memory import MemoryBackend


def without_wakeups(group: Group) -> MemoryBackend:
    """A client of the store whose watches never wake anybody."""
    backend = MemoryBackend(group.store)
    watch = backend.watch

    def silent(path: str, _: Callable[[], None], *, values: bool = True) -> Watch:
        return watch(path, lambda: None, values=values)

    vars(backend)["watch"] = silent
    return backend


def counting(group: Group, listed: list[str]) -> MemoryBackend:
    """A client of the store that adds each directory of tasks that is listed to *listed*."""
    backend = MemoryBackend(group.store)
    keys = backend.keys

    def count(directory: str) -> list[str]:
        listed.append(directory)
        return keys(directory)

    vars(backend)["keys"] = count
    return backend


def pass_time(group: Group, loop: MemberLoop, seconds: float) -> None:
    """Let the loop run for so long, each turn when it is due."""
    until = group.clock.monotonic() + seconds
    while group.clock.monotonic() < until:
        group.turn(loop, times=3)
        group.pool(loop).finish()
        due = loop.step()
        group.clock.advance(min(max(due, 0.001), 3.0, max(0.001, until - group.clock.monotonic())))
        group.renew(loop)


def test_a_task_is_found_without_a_wake_up() -> None:
    """In every shard, within one round."""
    group = Group()
    loop = group.member(backend=without_wakeups(group))
    pass_time(group, loop, 1.0)
    cluster = submit(group, 12)
    pass_time(group, loop, SEARCH_ROUND_SECONDS + 1.0)
    assert cluster.job("j").progress().finished


def test_at_rest_each_shard_is_listed_once_in_a_round_and_not_all_at_once() -> None:
    """What a group at rest costs is bounded, and spread over the round."""
    group, listed = Group(shards=20), list[str]()
    loop = group.member(backend=counting(group, listed))
    pass_time(group, loop, 1.0)
    listed.clear()
    pass_time(group, loop, SEARCH_ROUND_SECONDS)
    assert set(listed) == {KEYS.tasks(number) for number in range(20)}
    assert len(listed) <= 20 / LEAST_SEARCH_SHARE + 1
    listed.clear()
    pass_time(group, loop, SEARCH_ROUND_SECONDS / 10)
    assert 1 <= len(listed) <= 4


def test_many_shards_at_rest_cost_no_more_than_a_listing_each_second() -> None:
    """Their round takes longer."""
    group, listed = Group(shards=64), list[str]()
    loop = group.member(backend=counting(group, listed))
    pass_time(group, loop, 1.0)
    listed.clear()
    pass_time(group, loop, SEARCH_ROUND_SECONDS)
    assert len(listed) <= SEARCH_ROUND_SECONDS + 1
    pass_time(group, loop, 70.0 - SEARCH_ROUND_SECONDS)
    assert set(listed) == {KEYS.tasks(number) for number in range(64)}


def test_a_busy_member_searches_nothing() -> None:
    """While all its workers have tasks, it could start nothing that it finds, and its empty shards count as empty."""
    group, listed = Group(), list[str]()
    loop = group.member(backend=counting(group, listed))
    submit(group, 2)
    group.turn(loop)
    assert len(group.pool(loop).start()) == 2
    group.turn(loop)
    listed.clear()
    assert loop.life is not None
    for _ in range(40):
        group.clock.advance(1.0)
        group.renew(loop)
        group.turn(loop, times=2)
        assert any(work.drained() for work in loop.life.workload.works.values())
    assert listed == []
    assert not any(work.backlog.stale for work in loop.life.workload.works.values())


def test_a_member_without_shards_is_not_woken_for_a_search() -> None:
    """A Backup Runner has nothing to search."""
    group = Group(backup=1)
    first, standby = group.member(), group.member()
    group.turn(first, standby)
    assert standby.life is not None
    assert not standby.life.workload.works
    assert standby.step() > SEARCH_ROUND_SECONDS / 10
