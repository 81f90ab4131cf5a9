"""Groups on a Redis Cluster: each lies on one node, and several share the nodes."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from cluster.group import Group, named
from redis.crc import key_slot
from redis_server import RedisCluster, RedisServer
from smoothcluster_redis import RedisBackend

from smoothcluster import JobHandle
from smoothcluster.backend import Create
from smoothcluster.errors import UnavailableError
from smoothcluster.testing.conformance.kit import Wakes, create, delete

pytestmark = pytest.mark.slow

TASKS = 200


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """Three nodes."""
    with RedisCluster() as nodes:
        yield nodes


class Homes:
    """Which node a group belongs on: that of the slot of its hash tag."""

    def __init__(self, cluster: RedisCluster, namespace: str = "smoothcluster") -> None:
        self._namespace = namespace
        self._ranges: list[tuple[int, int, RedisServer]] = []
        for line in cluster.servers[0].ask("CLUSTER", "NODES").splitlines():
            _, address, _, _, _, _, _, _, *slots = line.split()
            node = next(each for each in cluster.servers if address.startswith(f"{each.hosts}@"))
            for first, _, last in (each.partition("-") for each in slots):
                self._ranges.append((int(first), int(last or first), node))

    def of(self, group: str) -> RedisServer:
        """Its node."""
        slot: int = key_slot(f"{{{self._namespace}/{group}}}".encode())
        return next(node for first, last, node in self._ranges if first <= slot <= last)

    def all(self) -> dict[RedisServer, str]:
        """By node, the name of a group that belongs there."""
        return {self.of(name): name for name in (f"g{number}" for number in range(100))}


def test_every_group_is_found_from_any_node(cluster: RedisCluster) -> None:
    """Commits, leases and watches work in each part, through one client, whichever node it was told of."""
    homes = Homes(cluster).all()
    assert len(homes) == 3
    for node in cluster.servers:
        with closing(RedisBackend(node.hosts)) as backend:
            for part in (backend, *map(backend.for_group, homes.values())):
                wakes = Wakes()
                part.watch("g", wakes)
                lease = part.lease(10.0)
                part.commit([], [Create("g/1", b"", lease), Create("h/deep/2", b"", lease), Create("g/3", b"")])
                wakes.since(0)
                assert part.keys("g") == ["g/1", "g/3"]
                lease.revoke()
                delete(part, "g/3")
                assert part.keys("h") == []


def test_a_slot_that_moves_is_followed(cluster: RedisCluster) -> None:
    """A command sent to the node that had the slot was not applied; the next one finds the node that has it.

    Groups on other nodes do not notice.
    """
    homes = Homes(cluster, "moving")
    with closing(RedisBackend(cluster.hosts, namespace="moving")) as backend:
        part, former = backend.for_group("docs"), homes.of("docs")
        create(part, "a")
        delete(part, "a")
        resting = next(name for node, name in homes.all().items() if node is not former)
        create(backend.for_group(resting), "a")
        slot = former.ask("CLUSTER", "KEYSLOT", "{moving/docs}:meta")
        ids = [node.ask("CLUSTER", "MYID") for node in cluster.servers]
        target = next(node for node in cluster.servers if node is not former)
        for name in former.ask("KEYS", "{moving/docs}*").split():
            former.ask("DEL", name)
        for node in (target, former, *cluster.servers):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", ids[cluster.servers.index(target)])
        with pytest.raises(UnavailableError, match="moved"):
            part.commit([], [Create("b", b"")])
        assert backend.for_group(resting).get("a") is not None
        create(part, "b")
        assert "{moving/docs}:meta" in target.ask("KEYS", "{moving/docs}*").split()


def test_groups_of_one_namespace_share_the_nodes(cluster: RedisCluster, tmp_path: Path) -> None:
    """Two groups in one store, on two nodes: both work, hand over and finish, each where it lies and nowhere else."""
    url, homes = f"redis://{cluster.hosts}/0", Homes(cluster)
    for node in cluster.servers:
        node.ask("FLUSHALL")
    with ExitStack() as stack:
        groups: dict[RedisServer, Group] = {}
        while len(groups) < 2:
            (tmp_path / str(len(groups))).mkdir(exist_ok=True)
            group = stack.enter_context(Group(url, tmp_path / str(len(groups)), runner=1, backup=1))
            groups.setdefault(homes.of(group.name), group)
        jobs: dict[Group, JobHandle] = {}
        for group in groups.values():
            group.start(2)
            jobs[group] = group.submit(TASKS, nap=0.01)
        for group, job in jobs.items():
            group.progressed(TASKS // 10)
            (runner,) = group.runners()
            name = runner.name
            runner.kill()
            group.finish(job, named(TASKS))
            assert {each["evidence"] for each in group.handovers(name)} == {"process_gone"}
        for node in cluster.servers:
            names = node.ask("KEYS", "*").split()
            own = f"{{smoothcluster/{groups[node].name}}}:" if node in groups else "none"
            assert all(name.startswith(own) for name in names), names
            assert bool(names) == (node in groups)
