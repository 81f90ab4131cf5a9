"""Coordination for clusters of crawlers: Runners do the work, Backup Runners take over.

The package imports each name at the first use: see decision 24.
"""

TYPE_CHECKING = False  # True for type checkers. Importing the real constant takes longer than this whole module.
if TYPE_CHECKING:
    from smoothcluster.cluster import Cluster
    from smoothcluster.crawler import ClusterCrawler
    from smoothcluster.group.breaker import Pacing
    from smoothcluster.jobs.handle import JobHandle
    from smoothcluster.jobs.progress import Progress
    from smoothcluster.model import Evidence, Outcome, Role, State, Task, TaskContext
    from smoothcluster.options import Isolation, Retries
    from smoothcluster.registry import connect
    from smoothcluster.zookeeper_crawler import ZookeeperCrawler
else:

    def __getattr__(name: str) -> object:
        home = _HOME_MODULES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        globals()[name] = value = getattr(import_module(f"{__name__}.{home}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


_HOME_MODULES = {
    "Cluster": "cluster",
    "ClusterCrawler": "crawler",
    "Evidence": "model",
    "Isolation": "options",
    "JobHandle": "jobs.handle",
    "Outcome": "model",
    "Pacing": "group.breaker",
    "Progress": "jobs.progress",
    "Retries": "options",
    "Role": "model",
    "State": "model",
    "Task": "model",
    "TaskContext": "model",
    "ZookeeperCrawler": "zookeeper_crawler",
    "connect": "registry",
}

__all__ = [
    "Cluster",
    "ClusterCrawler",
    "Evidence",
    "Isolation",
    "JobHandle",
    "Outcome",
    "Pacing",
    "Progress",
    "Retries",
    "Role",
    "State",
    "Task",
    "TaskContext",
    "ZookeeperCrawler",
    "connect",
]
