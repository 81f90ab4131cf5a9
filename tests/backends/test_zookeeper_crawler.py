"""`ZookeeperCrawler` is a `ClusterCrawler` that brings its backend."""

import secrets

import pytest

from smoothcluster import Cluster, Role, Task, TaskContext, ZookeeperCrawler, connect
from smoothcluster.errors import BackendError


class Shouter(ZookeeperCrawler):
    """A crawler whose handler is a method."""

    def handle(self, task: Task, context: TaskContext) -> object:
        """Shout."""
        return task.id.upper()


def test_it_works_with_a_handler_or_a_method_of_its_own(zookeeper_hosts: str) -> None:
    """Roles, names and results are as those of any crawler, and the backend is closed in the end."""
    group = secrets.token_hex(6)
    with (
        Shouter(runner=1, backup=1, name="crawler_<index>", zk_hosts=zookeeper_hosts, group=group) as first,
        ZookeeperCrawler(1, 1, zk_hosts=zookeeper_hosts, group=group, handler=lambda task, context: None) as second,
    ):
        assert [(each.name, each.role) for each in (first, second)] == [
            ("crawler_0", Role.RUNNER),
            ("crawler_1", Role.BACKUP_RUNNER),
        ]
        job = Cluster(connect(f"zookeeper://{zookeeper_hosts}"), group).submit([Task(id="a")])
        assert job.wait(60).done == 1
        assert [outcome.value for outcome in job.results()] == ["A"]
        backend = first._backend  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(BackendError, match="closed"):
        backend.sync()


def test_without_either_every_task_fails_and_says_why(zookeeper_hosts: str) -> None:
    """Nothing is lost by a mistake that is soon found."""
    group = secrets.token_hex(6)
    with ZookeeperCrawler(1, zk_hosts=zookeeper_hosts, group=group):
        job = Cluster(connect(f"zookeeper://{zookeeper_hosts}"), group).submit([Task(id="a")])
        assert job.wait(60).failed == 1
        (outcome,) = job.results()
    assert "neither a handler nor a method 'handle'; give a handler" in str(outcome.error)
