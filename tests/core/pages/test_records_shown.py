"""Examples of what commands print and of what lies in the store are whole: they have what the real thing has."""

import json
import secrets
from typing import Any, cast

from cli_kit import invoke_on
from pages import block

from smoothcluster import Cluster, ClusterCrawler, connect
from smoothcluster.records.shard import Shard
from smoothcluster.testing import eventually


def shape(value: Any) -> Any:
    """The names of an object's fields, at every level; of lists, the first element's."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [shape(each) for each in cast("list[object]", value)[:1]]
    return type(value).__name__


def test_status() -> None:
    """Of a group at work; jobs are named by whoever submits."""
    url = f"memory://{secrets.token_hex(8)}"
    backend = connect(url)
    with ClusterCrawler(backend=backend, runner=1, backup=0, handler=lambda task, context: None):
        eventually(lambda: not Cluster(backend).status()["unassigned"])
        invoke_on(url)("submit", "--job", "3d61b28a39bf", "http://h/")
        real = json.loads(invoke_on(url)("status", "--json").stdout)
    shown = json.loads(block("docs/reference/commands.md", "json", '"spec"'))
    assert (shown.pop("store").keys(), real.pop("store")) == ({"used", "limit", "what"}, None), "memory does not tell"
    assert shape(shown) == shape(real)


def test_a_shard() -> None:
    """It can be read, and is written as it stands there."""
    shown = block("docs/reference/records.md", "json", '"owner"')
    assert json.loads(Shard.from_json(shown.encode()).to_json()) == json.loads(shown)
