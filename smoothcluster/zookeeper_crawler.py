"""A `ClusterCrawler` with a ZooKeeper backend: a member of a group in one line of code."""

from typing import Any

from smoothcluster.crawler import ClusterCrawler
from smoothcluster.group.spec import INDEX_PLACEHOLDER
from smoothcluster.model import Handler, Task, TaskContext
from smoothcluster.registry import connect


class ZookeeperCrawler(ClusterCrawler):
    """``ClusterCrawler(backend=ZookeeperBackend(zk_hosts), …)``, which closes the backend after leaving the group.

    Args:
        runner: how many members are Runners.
        backup: how many stand by; None if all are Runners.
        name: this member's name, with ``<index>`` filled in.
        zk_hosts: ``h1:2181,h2:2181/chroot``.
        handler: called with each task; if left out, the method `handle` of a subclass is called.
        settings: all other arguments of `ClusterCrawler`.

    Raise as `ClusterCrawler` does, and MissingDriverError without ``smoothcluster[zookeeper]``.
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
        backend = connect(f"zookeeper://{zk_hosts}")
        try:
            super().__init__(
                backend=backend, runner=runner, backup=backup, name=name, handler=handler or self.handle, **settings
            )
        except BaseException:
            backend.close()
            raise

    def handle(self, task: Task, context: TaskContext) -> object:
        """Handle *task*. Subclasses override this method; without an override, every task fails."""
        raise NotImplementedError(
            f"{type(self).__name__} has neither a handler nor a method 'handle'; give a handler, or define the method"
        )

    def _close(self) -> None:
        super()._close()
        self._backend.close()
