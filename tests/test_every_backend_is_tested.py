"""Forgetting is impossible: every backend that can be connected to has been put to the contract."""

import ast
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

BACKENDS = sorted({re.split("[._]", point.module)[-1] for point in entry_points(group="smoothcluster.backends")})
"""By the last part of their package's name: one backend may have several schemes."""


def _conforming(path: Path) -> list[str]:
    """Names of the test classes in the file at *path* that are a `BackendConformance`, directly or by another."""
    conforming = {"BackendConformance"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            bases = {base.id if isinstance(base, ast.Name) else getattr(base, "attr", "") for base in node.bases}
            if bases & conforming:
                conforming.add(node.name)
    return sorted(name for name in conforming if name.startswith("Test"))


def test_there_are_backends() -> None:
    """The distribution registers those it ships."""
    assert {"etcd", "memory", "zookeeper"} <= set(BACKENDS)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_registered_backend_has_a_conformance_class(backend: str) -> None:
    """tests/backends/test_<name>.py holds a subclass of `BackendConformance` that pytest collects."""
    path = Path(__file__).parent / "backends" / f"test_{backend}.py"
    assert path.exists(), f"{backend} is registered and has no {path.name}"
    assert _conforming(path), f"{path.name} has no test class that inherits BackendConformance"


def test_a_class_that_inherits_another_way_counts(tmp_path: Path) -> None:
    """The check sees through a class in between, and is not taken in by a name or a comment."""
    path = tmp_path / "test_x.py"
    path.write_text("class Kit(conformance.BackendConformance): ...\nclass TestX(Kit): ...\nclass TestY(Other): ...\n")
    assert _conforming(path) == ["TestX"]
    path.write_text("class BackendConformance: ...\n# class TestX(BackendConformance): ...\nclass TestX: ...\n")
    assert _conforming(path) == []
