"""Servers shared by the tests of one run."""

import os
import signal
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest
from memory_store import MemoryStore
from redis_server import RedisServer
from servers import logs
from zookeeper_server import ZookeeperServer

if TYPE_CHECKING:
    from etcd_server import EtcdServer  # Needs its driver, which is not always there.

REDIS_VARIABLE = "SMOOTHCLUSTER_TEST_REDIS"
ZOOKEEPER_VARIABLE = "SMOOTHCLUSTER_TEST_ZOOKEEPER"


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start: a script ignores it for its background, which hands that on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Slow proofs have a command of their own, and a short form among the other tests."""
    parser.addoption("--long", action="store_true", help="run the tests marked `long`, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow proofs out unless they are asked for."""
    if config.getoption("--long"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the servers of fixtures wrote, if a test failed: it may be for their sake, and they end with it."""
    report = yield
    if report.failed:
        report.sections += logs()
    return report


@pytest.fixture(scope="session")
def own_zookeeper() -> Iterator[ZookeeperServer]:
    """A server of our own with short ticks: leases from 0.2 to 60 seconds. Not to be stopped or paused."""
    server = ZookeeperServer(tick_time=100, settings={"minSessionTimeout": 200, "maxSessionTimeout": 60_000})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def zookeeper_hosts(request: pytest.FixtureRequest) -> str:
    """Hosts of the server that tests share: the one that SMOOTHCLUSTER_TEST_ZOOKEEPER names, or our own."""
    named = os.environ.get(ZOOKEEPER_VARIABLE)
    if named:
        return named.removeprefix("zookeeper://")
    server: ZookeeperServer = request.getfixturevalue("own_zookeeper")
    return server.hosts


@pytest.fixture(scope="session")
def etcd_server() -> Iterator["EtcdServer"]:
    """An etcd server of our own that grants leases of a second. Not to be stopped or paused."""
    from etcd_server import QUICK, EtcdServer

    server = EtcdServer(QUICK)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def own_redis() -> Iterator[RedisServer]:
    """A server of our own. Not to be stopped or paused."""
    server = RedisServer({"appendfsync": "everysec"})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_hosts(request: pytest.FixtureRequest) -> str:
    """Hosts of the server that tests share: the one that SMOOTHCLUSTER_TEST_REDIS names, or our own."""
    named = os.environ.get(REDIS_VARIABLE)
    if named:
        return named.removeprefix("redis://")
    server: RedisServer = request.getfixturevalue("own_redis")
    return server.hosts


@pytest.fixture(scope="session")
def memory_store() -> Iterator[MemoryStore]:
    """A process of our own that serves a store in memory. Not to be stopped or paused."""
    store = MemoryStore().start()
    yield store
    store.stop()
