"""smoothcluster on ZooKeeper 3.6 or newer, through kazoo."""

from smoothcluster_zookeeper.adapter import ZookeeperBackend

__all__ = ["ZookeeperBackend"]
