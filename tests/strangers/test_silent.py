"""Members whose leases are not renewed are silent in `status`, although no client was there to end the leases."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any

from cluster.group import Group, NewGroup
from cluster.stores import Kind

from smoothcluster import Cluster, connect
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.testing import eventually

TTL = 1.0


def silences(status: dict[str, Any]) -> list[bool]:
    """For each listed member, whether the member is silent."""
    return [each["silent"] for each in status["members"]]


def printed(group: Group, url: str) -> list[bool]:
    """The silences printed by ``status --json``, which has only just connected."""
    command = [sys.executable, "-m", "smoothcluster", "status", "--json", "--backend", url, "--group", group.name]
    return silences(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout))


def seen_anew(group: Group, url: str) -> list[bool]:
    """For each member that a new client lists, whether the member is silent."""
    with closing(connect(url)) as backend:
        return silences(Cluster(backend, group.name).status())


def at_a_single_look(condition: Callable[[], bool], kind: Kind) -> bool:
    """Whether *condition* holds at once; or soon on etcd, whose server ends leases, on a busy machine late."""
    return condition() or (kind.scheme == "etcd" and eventually(condition, 60.0))


def pass_the_time_of_the_lease(since: float) -> None:
    """Wait until a lease that was last renewed at *since* must be silent."""
    eventually(lambda: SYSTEM_CLOCK.monotonic() > since + TTL + 2.0)


def test_members_that_were_all_killed(new_group: NewGroup, store: str, kind: Kind) -> None:
    """A living group has no silent member. After SIGKILL to all, a look finds each silent, and so does another."""
    group = new_group(runner=1, backup=1, lease_ttl=TTL)
    group.start(2)
    group.converged()
    group.eventually(lambda: silences(group.status()) == [False, False])
    group.backend.close()  # No client is left.
    killed = max(member.kill() for member in group.members)
    pass_the_time_of_the_lease(killed)
    assert at_a_single_look(lambda: all(printed(group, store)), kind)
    assert all(seen_anew(group, store))


def test_a_member_that_was_paused(new_group: NewGroup, store: str, kind: Kind) -> None:
    """The only member is silent, or its lease has ended, while stopped; not any more once it goes on."""
    group = new_group(runner=1, backup=0, lease_ttl=TTL)
    member = group.start_one()
    group.converged()
    stopped = member.pause()
    group.backend.close()
    pass_the_time_of_the_lease(stopped)
    assert at_a_single_look(lambda: all(seen_anew(group, store)), kind)
    member.resume()
    eventually(lambda: seen_anew(group, store) == [False], 60.0)
