"""`status` says how full the store is, long before the store refuses writes."""

import json

import pytest
from cli_kit import invoke_on
from cluster.stores import Kind

from smoothcluster import Cluster, Task, connect
from smoothcluster.backend import CoordinationBackend, StoreUsage


def test_status_says_how_full_the_store_is(store: str, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """For scripts always, where the store tells; for people once it is worth a thought."""
    backend = connect(store)
    Cluster(backend, "full").submit([Task(id="t")])
    told = json.loads(invoke_on(store)("status", "--group", "full", "--json").stdout)["store"]
    backend.close()
    if kind.scheme in ("zookeeper", "memory"):
        assert told is None
        return
    assert 0 < told["used"] < told["limit"]
    assert " full (" not in invoke_on(store)("status", "--group", "full").stdout
    usage = StoreUsage(8 * 1024**3, 10 * 1024**3, told["what"])

    def almost_full(_: CoordinationBackend) -> StoreUsage:
        return usage

    monkeypatch.setattr(type(backend), "usage", almost_full)
    assert (
        f"the store is 80% full (8.0 GiB of 10.0 GiB, {told['what']})"
        in invoke_on(store)("status", "--group", "full").stdout
    )
