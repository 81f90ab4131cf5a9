"""A firewall that begins to reject, and a proxy that ends, are not the death of the members behind them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.group import Group, Member, NewGroup, named
from cluster.handlers import START
from cluster.stores import Kind
from firewall import Doors, connections, has_own_iptables, reject

from smoothcluster import Evidence, State
from smoothcluster.records.group import Member as MemberRecord
from smoothcluster.records.keys import Keys

HOST = "127.0.0.1"

SOME_RUN, ALL_RUN = {"runner": 3, "backup": 1}, {"runner": 4, "backup": None}
"""Four members. Each is watched by two others, or by all others."""


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    """Doors to the ports of members."""
    made = Doors(tmp_path)
    yield made
    made.close()


@pytest.fixture
def new_busy_group(new_group: NewGroup) -> NewGroup:
    """Make a group whose leases outlast the test, and whose suspects run in the members, if any are suspected."""

    def make(**shape: int | None) -> Group:
        return new_group(handler="bound_act", concurrency=2, lease_ttl=20.0, **shape)

    return make


def start(group: Group, doors: Doors) -> dict[Path, Member]:
    """Start four members, each behind a door, and wait until they are at work."""
    members = {door: group.spawn(door=str(door), listen=HOST) for door in (doors.new() for _ in range(4))}
    group.eventually(lambda: all(member.constructed for member in members.values()))
    group.converged()
    return members


def does(group: Group, job: str, meanwhile: Callable[[], None], nap: float = 0.1) -> None:
    """Have the group do a job, each task once, and *meanwhile* something else when it is busy."""
    tasks = named(24, job)
    handle = group.submit(len(tasks), job, job, nap=nap)
    group.all_running(4)
    meanwhile()
    assert {outcome.state for outcome in group.finish(handle, tasks)} == {State.DONE}
    assert sorted(line.task for line in group.log() if line.what == START and line.task in tasks) == sorted(tasks)


def alarms(group: Group) -> list[dict[str, Any]]:
    """The events that tell of a death, or of what follows from one."""
    kinds = {"lease_lost", "fenced", "breaker", "suspect", "quarantined"}
    return [dict(e) for e in group.cluster.events() if e["kind"] in kinds or e.get("evidence") == Evidence.PROCESS_GONE]


def ports(group: Group) -> dict[str, int]:
    """The ports that members have announced."""
    entries = group.backend.list(Keys(group.name).members)
    return {record.name: record.port for record in (MemberRecord.from_json(entry.value) for entry in entries)}


def a_death_is_proved(group: Group) -> None:
    """As ever."""
    victim = group.runners()[0]
    victim.kill()
    assert {event["evidence"] for event in group.handovers(victim.name)} == {Evidence.PROCESS_GONE}


@pytest.mark.promise(5)
@pytest.mark.promise(6)
@pytest.mark.parametrize(("shape", "watchers"), [(SOME_RUN, 2), (ALL_RUN, 3)], ids=["some run", "all run"])
def test_a_firewall_that_rejects_ends_nobody(
    new_busy_group: NewGroup, doors: Doors, kind: Kind, shape: dict[str, Any], watchers: int
) -> None:
    """However often: no member is removed, no task runs twice, no breaker opens, nothing is quarantined.

    When it lets connections through again, a death is proved as before.
    """
    if shape is ALL_RUN and kind.scheme != "sqlite":
        pytest.skip("who watches whom does not depend on the store")
    group = new_busy_group(**shape)
    members = start(group, doors)
    for flap in range(3):
        group.eventually(lambda: all(doors.held(door) >= watchers for door in members))
        does(group, f"flap{flap}", lambda: doors.reject(*members))
        doors.admit(*members)
    group.eventually(lambda: all(doors.held(door) >= watchers for door in members))
    assert alarms(group) == []
    a_death_is_proved(group)


def test_a_proxy_that_ends_costs_each_member_one_incarnation(new_busy_group: NewGroup, doors: Doors) -> None:
    """It looks like a death in all respects. Whoever was removed so announces no port any more, and says so."""
    group = new_busy_group(**SOME_RUN)
    members = start(group, doors)
    door, victim = next((door, member) for door, member in members.items() if member in group.runners())
    group.eventually(lambda: doors.held(door) >= 2)
    doors.end(door)
    (lost,) = group.eventually(lambda: group.events("lease_lost"))
    assert (lost["member"], "announces no port" in lost["why"]) == (victim.name, True)
    assert lost["why"] in victim.errors
    group.converged()
    assert {name: port == 0 for name, port in ports(group).items()} == {
        member.name: member is victim for member in members.values()
    }
    doors.admit(door)
    does(group, "job", lambda: doors.end(door))
    assert doors.held(door) == 0
    assert len(group.events("lease_lost")) == 1


@pytest.mark.skipif(
    not has_own_iptables(),
    reason="needs root, iptables and an empty network (unshare --net, ip link set lo up)",
)
@pytest.mark.parametrize("answer", ["tcp-reset", "icmp-port-unreachable", "icmp-host-prohibited"])
@pytest.mark.parametrize("shape", [SOME_RUN, ALL_RUN], ids=["some run", "all run"])
def test_the_kernels_firewall_ends_nobody(new_busy_group: NewGroup, shape: dict[str, Any], answer: str) -> None:
    """The kernel's own REJECT shows the same, once keepalive has met it."""
    group = new_busy_group(**shape)
    group.start(4, listen=HOST, keepalive=1)
    group.converged()
    for flap in range(2):
        group.eventually(lambda: all(connections(port) >= 2 for port in ports(group).values()))

        def rejected() -> None:
            with reject(ports(group).values(), answer):
                group.eventually(lambda: not any(connections(port) for port in ports(group).values()))

        does(group, f"flap{flap}", rejected, nap=0.5)
    group.eventually(lambda: all(connections(port) >= 2 for port in ports(group).values()))
    assert alarms(group) == []
    a_death_is_proved(group)
