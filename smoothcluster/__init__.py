"""Coordination for clusters of crawlers: Runners that work, Backup Runners that take over."""

from smoothcluster.breaker import Pacing
from smoothcluster.cluster import Cluster, JobHandle
from smoothcluster.crawler import ClusterCrawler
from smoothcluster.jobs import Progress
from smoothcluster.model import Evidence, Outcome, Role, State, Task, TaskContext
from smoothcluster.registry import connect
from smoothcluster.zookeeper_crawler import ZookeeperCrawler

__all__ = [
    "Cluster",
    "ClusterCrawler",
    "Evidence",
    "JobHandle",
    "Outcome",
    "Pacing",
    "Progress",
    "Role",
    "State",
    "Task",
    "TaskContext",
    "ZookeeperCrawler",
    "connect",
]
