"""What users import stays where it is: these names are promises."""

import importlib
import subprocess
import sys
from importlib.util import find_spec

import pytest

PUBLIC = {
    "Cluster", "ClusterCrawler", "Evidence", "JobHandle", "Outcome", "Pacing", "Progress", "Role", "State", "Task",
    "TaskContext", "ZookeeperCrawler", "connect",
}  # fmt: skip

ELSEWHERE = [
    ("smoothcluster.errors", "SmoothclusterError"),
    ("smoothcluster.memory", "MemoryBackend"),
    ("smoothcluster_etcd", "EtcdBackend"),
    ("smoothcluster_redis", "RedisBackend"),
    ("smoothcluster_sqlite", "SqliteBackend"),
    ("smoothcluster_zookeeper", "ZookeeperBackend"),
]

DRIVERS = {"smoothcluster_etcd": "etcd3", "smoothcluster_redis": "redis", "smoothcluster_zookeeper": "kazoo"}


def test_the_package_offers_exactly_the_public_names() -> None:
    """`from smoothcluster import *` gives the public names, all of them and no others."""
    package = importlib.import_module("smoothcluster")
    assert set(package.__all__) == PUBLIC
    assert set(vars(package)) >= PUBLIC


@pytest.mark.parametrize(("module", "name"), ELSEWHERE)
def test_name_is_where_it_is_promised(module: str, name: str) -> None:
    """Backends and errors are imported from their own modules."""
    if module in DRIVERS and find_spec(DRIVERS[module]) is None:
        pytest.skip(f"needs {DRIVERS[module]}")
    assert hasattr(importlib.import_module(module), name)


def test_importing_the_package_imports_no_driver() -> None:
    """A driver is imported when its backend is asked for, not before: it may not be installed."""
    code = "import smoothcluster, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()).isdisjoint([*DRIVERS, *DRIVERS.values()])
