"""What broke in the hands of users: one file for each kind of fault, on every store where the behaviour can differ."""

from pathlib import Path

import pytest
from cluster.fixtures import group, kind, mark_slow, new_group, own_store, plain_store, store, topology

__all__ = ["group", "kind", "new_group", "own_store", "plain_store", "store", "topology"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole groups take their time."""
    mark_slow(items, Path(__file__).parent)
