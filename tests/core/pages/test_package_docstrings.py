"""Package docstrings: the names that they mention exist."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from pages import ROOT

PACKAGES = sorted(
    path.parent.relative_to(ROOT)
    for folder in ("smoothcluster", "backends")
    for path in (ROOT / folder).rglob("__init__.py")
)
DRIVERS = {"backends/etcd": "etcd3", "backends/redis": "redis", "backends/zookeeper": "kazoo"}


def names(package: Path) -> list[str]:
    """The dotted names in single backticks in the docstring of a package."""
    docstring = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))) or ""
    return re.findall(r"(?<!`)`([A-Za-z_]\w*(?:\.\w+)+)`(?!`)", docstring)


def exists(module: str, name: str) -> bool:
    """Whether *name* is a module or an attribute: in *module*, in the contract of backends, or by the whole name."""
    for start in (f"{module}.{name}", f"smoothcluster.backend.{name}", name):
        parts = start.split(".")
        for length in range(len(parts), 0, -1):
            try:
                found: object = importlib.import_module(".".join(parts[:length]))
            except ModuleNotFoundError:
                continue
            for part in parts[length:]:
                found = getattr(found, part, None) or getattr(found, "__annotations__", {}).get(part)
            if found is not None:
                return True
    return False


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_the_docstring_of_a_package_names_what_there_is(package: Path) -> None:
    """A module that moved, or a function with a new name, takes the docstring along."""
    for folder, driver in DRIVERS.items():
        if str(package).startswith(folder):
            pytest.importorskip(driver)
    parts = package.parts[2:] if package.parts[0] == "backends" else package.parts
    module = ".".join(parts)
    assert [name for name in names(package) if not exists(module, name)] == []
