"""A `ClusterCrawler` with a ZooKeeper backend: a member of a group in one line of code."""

from typing import Any

from smoothcluster.arguments import check_text
from smoothcluster.crawler import ClusterCrawler
from smoothcluster.errors import UsageError
from smoothcluster.group.spec import INDEX_PLACEHOLDER
from smoothcluster.model import Handler, Task, TaskContext
from smoothcluster.registry import connect

ORIGINAL_ARGUMENTS = {
    "index_sep": "put <index> into the name",
    "initial": "use join=False to join later",
    "ensure_initial": "leave out the argument: a member joins in a single commit",
    "ensure_timeout": "leave out the argument: a member joins in a single commit",
    "ensure_wait": "leave out the argument: a member joins in a single commit",
    "heartbeat_update": "use lease_ttl",
    "heartbeat_update_timeout": "use lease_ttl",
    "heartbeat_dead_threshold": "use lease_ttl",
    "zk_converter": "leave out the argument: records are JSON",
    "attribute": "put <index> into the name",
    "election_strategy": "use order",
    "factory": "use handler, a function that calls your components",
}
"""Arguments of the class of the same name in smoothcrawler-cluster 0.2.0 that differ here, and the replacement."""


class ZookeeperCrawler(ClusterCrawler):
    """``ClusterCrawler(backend=ZookeeperBackend(zk_hosts), …)``, which closes the backend after leaving the group.

    Args:
        runner: how many members are Runners.
        backup: how many stand by; None if all are Runners.
        name: this member's name, with ``<index>`` filled in.
        zk_hosts: ``h1:2181,h2:2181/chroot``.
        handler: called with each task; if left out, the method `handle` of a subclass is called.
        settings: all other arguments of `ClusterCrawler`.

    Raise as `ClusterCrawler` does, UsageError if there is neither a handler nor a method `handle`, and
    MissingDriverError without ``smoothcluster[zookeeper]``.
    """

    def __init__(
        self,
        runner: int,
        backup: int | None = None,
        name: str = f"crawler_{INDEX_PLACEHOLDER}",
        zk_hosts: str = "localhost:2181",
        handler: Handler | None = None,
        **settings: Any,  # ClusterCrawler's own
    ) -> None:
        for argument in settings:
            if argument in ORIGINAL_ARGUMENTS:
                raise UsageError(f"there is no argument {argument}; {ORIGINAL_ARGUMENTS[argument]}")
        if handler is None:
            if getattr(self.handle, "__func__", None) is ZookeeperCrawler.handle:
                raise UsageError(_no_handler(self))
            handler = self.handle
        check_text("zk_hosts", zk_hosts)
        backend = connect(f"zookeeper://{zk_hosts}")
        try:
            super().__init__(backend=backend, runner=runner, backup=backup, name=name, handler=handler, **settings)
        except BaseException:
            backend.close()
            raise

    def handle(self, task: Task, context: TaskContext) -> object:
        """Handle *task*. Subclasses override this method; without an override, the constructor needs a handler."""
        raise NotImplementedError(_no_handler(self))

    def _close(self) -> None:
        super()._close()
        self._backend.close()


def _no_handler(crawler: object) -> str:
    name = type(crawler).__name__
    return f"{name} has neither a handler nor a method 'handle'; give handler=…, or define the method in a subclass"
