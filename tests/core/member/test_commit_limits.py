"""Ownership on stores that take little: what grows with shards and members goes in as many commits as it takes."""

from dataclasses import replace
from typing import cast

import pytest
from core_kit import KEYS, Group, limits, put, store_of

from smoothcluster import Cluster
from smoothcluster.errors import CommitTooLargeError
from smoothcluster.group.events import EventLog, read_events
from smoothcluster.memory import MemoryBackend, MemoryStore
from smoothcluster.model import Role
from smoothcluster.records.shard import Shard

ETCD = limits(most_operations=64)


@pytest.mark.promise(7)
@pytest.mark.parametrize("shape", [(2, 0), (2, None)], ids=["seats", "all run"])
def test_a_newcomer_gets_its_half_in_several_commits(shape: tuple[int, int | None]) -> None:
    """However many shards that is."""
    group = Group(*shape, shards=300, guarantees=ETCD)
    first = group.member()
    group.turn(first, times=20)
    assert group.owners() == ["m_0"] * 300
    second = group.member()
    group.turn(second, first, times=20)
    assert (group.owners().count("m_0"), group.owners().count("m_1")) == (150, 150)


@pytest.mark.promise(7)
def test_a_newcomer_with_a_capacity_gets_no_more_than_that() -> None:
    """Counted over all commits."""
    group = Group(2, 0, shards=300, guarantees=ETCD)
    first = group.member()
    group.turn(first, times=20)
    second = group.member(capacity=100)
    group.turn(second, first, times=20)
    assert (group.owners().count("m_0"), group.owners().count("m_1")) == (200, 100)


@pytest.mark.promise(7)
def test_who_is_no_runner_any_more_hands_all_over() -> None:
    """To several members, with several commits for each."""
    group = Group(3, None, shards=300, guarantees=ETCD)
    members = [group.member() for _ in range(3)]
    group.turn(*members, times=20)
    Cluster(group.backend, "g").change_spec(runner=2)
    group.turn(*members, times=20)
    owners = group.owners()
    assert [owners.count(name) for name in ("m_0", "m_1", "m_2")] == [150, 150, 0]


@pytest.mark.promise(7)
def test_who_leaves_releases_all_shards_at_once() -> None:
    """Not as many as fit into one commit, and the rest when the lease runs out."""
    group = Group(2, 0, shards=300, guarantees=ETCD)
    first = group.member()
    group.turn(first, times=20)
    assert first.life is not None
    assert first.life.release()
    view = group.view()
    assert (view.owned(None), view.members) == (list(range(300)), {})


@pytest.mark.promise(1)
def test_seats_are_closed_in_as_many_commits_as_their_bytes_take() -> None:
    """A store may take many operations, and then the bytes are what bounds a step."""
    group = Group(40, 0, shards=1, guarantees=limits(most_operations=4000, largest_commit=4000, largest_value=4000))
    members = [group.member() for _ in range(20)]
    steps: list[int] = []
    group.store.observers.append(lambda step: steps.append(len(step.after)) if "g/spec" in step.after else None)
    Cluster(group.backend, "g", clock=group.clock).change_spec(runner=2)
    assert len(steps) > 3
    group.turn(*members, times=10)
    assert sum(member.role == Role.RUNNER for member in members) == 2


def test_an_event_larger_than_a_value_is_cut() -> None:
    """The longest fields, which it names; and all other events are written."""
    backend = MemoryBackend(MemoryStore(guarantees=limits(largest_value=2000)))
    log = EventLog(store_of(backend), "m")
    log.add("before")
    log.add("handover", shards=list(range(4096)), epochs={str(shard): 1 for shard in range(4096)}, to="m", why="x" * 99)
    log.add("after")
    log.flush()
    before, event, after = read_events(store_of(backend))
    assert [before["kind"], event["kind"], after["kind"]] == ["before", "handover", "after"]
    assert event["cut"] == ["epochs", "shards"]
    shards = cast("list[int]", event["shards"])
    assert 50 < len(shards) < 400
    assert shards == list(range(len(shards)))
    assert (event["to"], event["why"]) == ("m", "x" * 99)
    assert "cut" not in before


def test_a_commit_too_large_is_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    """The store is there: the log says what is wrong, once a minute, and never that the store is away, or is back."""
    group = Group(shards=1)
    loop = group.member()
    group.turn(loop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryBackend, "commit", _too_large)
        for _ in range(20):
            loop.inbox.wake.set()
            assert loop.life is not None
            loop.life.me.read = replace(loop.life.me.read, record=replace(loop.life.me.record, running=False))
            group.clock.advance(1.0)
            group.renew(loop)
            loop.step()
    group.clock.advance(1.0)
    group.turn(loop)
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "a commit is too large for the store, which answers otherwise"
    ]


def _too_large(backend: MemoryBackend, conditions: object, changes: object) -> object:
    raise CommitTooLargeError("too large, the server says")


@pytest.mark.promise(7)
def test_a_shard_that_no_commit_can_take_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The member claims all others, and goes on; it tries again once the record has changed."""
    group = Group(shards=4, guarantees=limits(largest_commit=8000, largest_value=8000))
    huge = Shard(counts={f"job-{number}": {"done": 1} for number in range(430)})
    group.store.guarantees = limits()
    put(group.backend, KEYS.shard(2), huge.to_json())
    group.store.guarantees = group.guarantees
    loop = group.member()
    commits: list[object] = []
    group.turn(loop, times=10)
    group.store.observers.append(commits.append)
    group.turn(loop, times=10)
    assert group.owners() == ["m_0", "m_0", None, "m_0"]
    assert commits == []
    assert caplog.messages == ["shard 2 has no owner: no commit is large enough for the shard's record"]
    put(group.backend, KEYS.shard(2), Shard().to_json())
    group.clock.advance(10 / 3)
    group.turn(loop, times=10)
    assert group.owners() == ["m_0"] * 4


@pytest.mark.promise(7)
def test_a_shard_that_no_commit_can_transfer_stays_and_is_worked_on(caplog: pytest.LogCaptureFixture) -> None:
    """The others are transferred."""
    group = Group(2, 0, shards=4, guarantees=limits(largest_commit=8000, largest_value=8000))
    first = group.member()
    group.turn(first, times=10)
    assert first.life is not None
    works = first.life.workload.works
    works[0].record.counts = {f"job-{number}": {"done": 1} for number in range(430)}
    second = group.member()
    group.turn(second, first, times=20)
    assert group.owners() == ["m_0", "m_1", "m_0", "m_0"]
    assert [work.moving for work in works.values()] == [False] * 3
    assert caplog.messages.count("shard 0 stays with its owner: no commit is large enough for the shard's record") == 1
