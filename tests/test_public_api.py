"""What users import stays where it is: these names are promises."""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from smoothcluster import errors
from smoothcluster.errors import SmoothclusterError

PUBLIC = {
    "Cluster", "ClusterCrawler", "Evidence", "Isolation", "JobHandle", "Outcome", "Pacing", "Progress",
    "Retries", "Role", "State", "Task",
    "TaskContext", "ZookeeperCrawler", "connect",
}  # fmt: skip

ELSEWHERE = [
    ("smoothcluster.errors", "BackendClosedError"),
    ("smoothcluster.errors", "GarbageError"),
    ("smoothcluster.errors", "SmoothclusterError"),
    ("smoothcluster.lifetime", "ClientLifetime"),
    ("smoothcluster.memory", "MemoryBackend"),
    ("smoothcluster.memory", "SocketBackend"),
    ("smoothcluster.memory.server", "MemoryServer"),
    ("smoothcluster.recipes", "Lock"),
    ("smoothcluster.recipes", "Session"),
    ("smoothcluster.testing", "task_context"),
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
    assert set(dir(package)) >= PUBLIC
    assert all(hasattr(package, name) for name in PUBLIC)
    assert not hasattr(package, "Nonsense")


@pytest.mark.parametrize(("module", "name"), ELSEWHERE)
def test_name_is_where_it_is_promised(module: str, name: str) -> None:
    """Backends, errors and recipes are imported from their own modules."""
    if module in DRIVERS and find_spec(DRIVERS[module]) is None:
        pytest.skip(f"needs {DRIVERS[module]}")
    assert hasattr(importlib.import_module(module), name)


def modules_after(code: str) -> set[str]:
    """What Python has imported once it has run *code*."""
    command = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_importing_all_names_imports_no_driver() -> None:
    """A driver is imported when its backend is asked for, not before: it may not be installed."""
    imported = {name.partition(".")[0] for name in modules_after("from smoothcluster import *")}
    assert imported.isdisjoint([*DRIVERS, *DRIVERS.values()])


def test_importing_the_package_imports_nothing() -> None:
    """Before the command's own first line, nothing takes long enough for a Ctrl-C to hit it."""
    assert modules_after("import smoothcluster") - modules_after("pass") == {"smoothcluster"}


def kinds(error: type[SmoothclusterError]) -> Iterator[type[SmoothclusterError]]:
    """All errors derived from *error*."""
    for kind in error.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_every_error_that_can_be_caught_is_in_the_list() -> None:
    """None is hidden in a module that users do not import, and the list names them all."""
    for module in ("smoothcluster.crawler", "smoothcluster.cluster", "smoothcluster.cli", "smoothcluster.memory"):
        importlib.import_module(module)
    # An adapter may refine an error for its own use; users catch the error in the list.
    found = {kind for kind in kinds(SmoothclusterError) if kind.__module__.partition(".")[0] == "smoothcluster"}
    assert {kind.__module__ for kind in found} == {"smoothcluster.errors"}
    listed = set(re.findall(r"\w+Error", errors.__doc__ or ""))
    assert {kind.__name__ for kind in found} | {"SmoothclusterError"} == listed
