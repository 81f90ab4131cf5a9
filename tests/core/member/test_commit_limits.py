"""Ownership on stores that take little: what grows with shards and members goes in as many commits as it takes."""

import pytest
from core_kit import Group, limits

from smoothcluster import Cluster

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
