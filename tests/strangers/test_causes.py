"""An error names the real cause, and what to do: on every store."""

import secrets

import pytest
from cluster.stores import Kind, Store

from smoothcluster import ClusterCrawler, Role, connect
from smoothcluster.errors import BackendClosedError, UsageError
from smoothcluster.model import Task, TaskContext
from smoothcluster.server_options import OPTIONS_VARIABLE
from smoothcluster.testing import eventually

SECRET = "correct-horse"

WITH_CREDENTIALS = [
    f"://:{SECRET}@host",
    f"://me:{SECRET}@host:1234/0",
    f"://me:{SECRET}@h1,h2/0?namespace=crawl",
    f"://me:{SECRET}/slash@host",
    f"://me:{SECRET}?mark@host/0",
    f"://me:{SECRET}#sharp@host",
    f"://me:{SECRET}@[::1",
    f"://host/0?password={SECRET}",
    f"://host?username=me&password={SECRET}&namespace=x",
]


def fetch(task: Task, context: TaskContext) -> object:
    """Return the task's id."""
    return task.id


@pytest.mark.quick
@pytest.mark.parametrize("rest", WITH_CREDENTIALS)
def test_credentials_in_a_url_are_refused_with_advice(kind: Kind, rest: str) -> None:
    """No message shows the password; where the store knows passwords, the message tells both ways to pass them."""
    url = f"{kind.scheme}{rest}"
    with pytest.raises(UsageError) as caught:
        connect(url).close()
    said = str(caught.value)
    assert SECRET not in said
    if kind.scheme in ("redis", "etcd", "zookeeper"):
        assert "password=" in said
        assert OPTIONS_VARIABLE in said


@pytest.mark.quick
def test_a_backend_closed_before_stop_is_named(store: str) -> None:
    """The member ends at once instead of waiting for its grace period, reports no role, and says what to do."""
    backend = connect(store)
    group = f"test-{secrets.token_hex(6)}"
    crawler = ClusterCrawler(backend=backend, runner=1, group=group, handler=fetch, lease_ttl=1.0, grace=20.0)
    roles = [crawler.role]
    crawler.start()
    backend.close()
    with pytest.raises(BackendClosedError, match=r"backend was closed before .* call stop\(\) first"):
        crawler.stop()
    roles.append(crawler.role)
    assert roles == [Role.RUNNER, None]
    with pytest.raises(BackendClosedError, match="is closed"):
        backend.get("any")


def test_a_member_cut_off_from_the_store_reports_no_role(own_store: Store) -> None:
    """Once its lease may be over. When the store is back, so is the role."""
    backend = connect(own_store.url, timeout=0.5)
    crawler = ClusterCrawler(backend=backend, runner=1, handler=fetch, lease_ttl=1.0)
    try:
        crawler.start()
        assert crawler.role is Role.RUNNER
        own_store.kill()
        eventually(lambda: crawler.role is None)
        own_store.start()
        eventually(lambda: crawler.role is Role.RUNNER, 60.0)
    finally:
        crawler.stop()
        backend.close()
