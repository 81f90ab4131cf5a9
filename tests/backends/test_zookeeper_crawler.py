"""`ZookeeperCrawler` is a `ClusterCrawler` that brings its backend."""

import secrets
from typing import Any

import pytest

from smoothcluster import Cluster, Role, Task, TaskContext, ZookeeperCrawler, connect
from smoothcluster.errors import BackendError, UsageError


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


@pytest.mark.parametrize(
    ("crawler", "options", "says"),
    [
        (ZookeeperCrawler, {}, "ZookeeperCrawler has neither a handler nor a method 'handle'; give handler=…"),
        (type("Mine", (ZookeeperCrawler,), {}), {"handler": None}, "Mine has neither a handler nor a method 'handle'"),
        (Shouter, {"handler": 5}, "handler must be a function of a task and a context, not 5"),
        (Shouter, {"zk_hosts": None}, "zk_hosts must be text, not None"),
        (Shouter, {"zk_hosts": ["h1:2181"]}, "zk_hosts must be text, not ['h1:2181']"),
        (Shouter, {"ensure_initial": True}, "there is no argument ensure_initial; leave out the argument: a member"),
        (Shouter, {"factory": object()}, "there is no argument factory; use handler"),
        (Shouter, {"heartbeat_update": 0.5}, "there is no argument heartbeat_update; use lease_ttl"),
    ],
)
def test_a_crawler_that_could_not_work_is_not_made(
    zookeeper_hosts: str, crawler: type[ZookeeperCrawler], options: dict[str, Any], says: str
) -> None:
    """The constructor says so, before it has joined: else every task would fail."""
    group = secrets.token_hex(6)
    defaults: dict[str, Any] = {"runner": 1, "zk_hosts": zookeeper_hosts, "group": group}
    with pytest.raises(UsageError) as caught:
        crawler(**defaults | options)
    assert says in str(caught.value)
    assert Cluster(connect(f"zookeeper://{zookeeper_hosts}"), group).absent()


def test_a_handler_may_be_put_on_the_object(zookeeper_hosts: str) -> None:
    """By a constructor that does more; the class need not have the method."""

    class Late(ZookeeperCrawler):
        def __init__(self, **options: Any) -> None:
            self.handle = lambda task, context: "late"  # type: ignore[method-assign]
            super().__init__(**options)

    group = secrets.token_hex(6)
    with Late(runner=1, zk_hosts=zookeeper_hosts, group=group):
        job = Cluster(connect(f"zookeeper://{zookeeper_hosts}"), group).submit([Task(id="a")])
        assert job.wait(60).done == 1
