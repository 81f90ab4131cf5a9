"""Groups with more shards than a commit has operations: on etcd that is a group for 16 Runners."""

import signal
from typing import Any

import pytest
from cluster.group import NewGroup

LINKS = [f"page-0/{number}" for number in range(500)]


@pytest.mark.promise(7)
def test_a_page_with_many_links_is_recorded(new_group: NewGroup) -> None:
    """The links lie in all shards, so they take several commits where a commit has 64 operations."""
    group = new_group(runner=40, backup=0)
    group.start_one()
    assert group.cluster.spec()["shards"] == 160
    job = group.submit(1, "page", spawn=len(LINKS))
    group.finish(job, ["page-0", *LINKS])
    assert group.events("garbage") == []


@pytest.mark.promise(7)
def test_many_shards_change_their_owner(new_group: NewGroup) -> None:
    """A newcomer gets its half, 150 shards, and a leaver's half goes to the other member at once."""
    group = new_group(runner=2, backup=0, shards=300)
    first = group.start_one()
    group.eventually(lambda: group.shards() == {first.pid: 300})
    second = group.start_one()
    group.eventually(lambda: group.shards() == {first.pid: 150, second.pid: 150})
    second.signal(signal.SIGTERM)
    assert second.status() == 0
    group.eventually(lambda: group.shards() == {first.pid: 300})

    def claimed() -> list[dict[str, Any]]:
        return [event for event in group.events("handover") if event["to"] == first.name]

    # An event follows the commit that the event tells of.
    group.eventually(lambda: sum(len(event["shards"]) for event in claimed()) == 150)
    assert {event["evidence"] for event in claimed()} == {"left"}, "not when the lease ran out"
    assert [member.errors for member in group.members if "too large" in member.errors] == []
