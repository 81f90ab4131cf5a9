"""The distribution that users install holds what it must, and nothing else."""

import configparser
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ADAPTERS = {"smoothcluster_etcd", "smoothcluster_redis", "smoothcluster_sqlite", "smoothcluster_zookeeper"}
PACKAGES = {"smoothcluster", *ADAPTERS}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel, built from the source distribution, which so is shown to be complete."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def metadata(wheel: zipfile.ZipFile, name: str) -> str:
    """The text of one file of the wheel's ``.dist-info``."""
    (path,) = (path for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


def test_it_holds_the_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """The core and each adapter are packages side by side; tests and folders of ours stay at home."""
    tops = {path.partition("/")[0] for path in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    assert not [path for path in wheel.namelist() if "test_" in path or "conftest" in path or "__pycache__" in path]


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_each_package_is_whole_and_typed(wheel: zipfile.ZipFile, package: str) -> None:
    """Every module of the checkout is there, and type checkers are told to look inside."""
    (home,) = [path for path in (ROOT / package, *ROOT.glob(f"backends/*/{package}")) if path.is_dir()]
    modules = {str(path.relative_to(home.parent)) for path in home.rglob("*") if path.suffix in (".py", ".lua")}
    assert modules <= set(wheel.namelist())
    assert {f"{package}/__init__.py", f"{package}/py.typed"} <= set(wheel.namelist())


def test_every_adapter_is_shipped() -> None:
    """An adapter's folder under ``backends`` is a package of the distribution."""
    assert {path.parent.name for path in ROOT.glob("backends/*/*/__init__.py")} == ADAPTERS


def test_entry_points_lead_to_files_in_it(wheel: zipfile.ZipFile) -> None:
    """Each registered backend, and the command, is a module that the wheel holds."""
    points = configparser.ConfigParser()
    points.read_string(metadata(wheel, "entry_points.txt"))
    assert set(points["smoothcluster.backends"]) >= {"etcd", "memory", "redis", "sqlite", "zookeeper"}
    assert set(points["console_scripts"]) == {"smoothcluster"}
    for target in [*points["smoothcluster.backends"].values(), *points["console_scripts"].values()]:
        path = target.partition(":")[0].replace(".", "/")
        assert {f"{path}.py", f"{path}/__init__.py"} & set(wheel.namelist()), target


def test_drivers_are_extras(wheel: zipfile.ZipFile) -> None:
    """Installing the core brings no driver; each adapter's extra is named as its package is."""
    fields = Parser().parsestr(metadata(wheel, "METADATA"))
    plain = [line for line in fields.get_all("Requires-Dist", []) if "extra" not in line]
    assert {line.partition(">")[0] for line in plain} == {"click", "rich", "tenacity"}
    adapters = {name.removeprefix("smoothcluster_") for name in ADAPTERS - {"smoothcluster_sqlite"}}
    assert adapters | {"all", "files", "sql", "testing"} == set(fields.get_all("Provides-Extra", []))


def test_license_goes_with_it(wheel: zipfile.ZipFile) -> None:
    """The licence is named and its text is inside."""
    assert "License-Expression: Apache-2.0" in metadata(wheel, "METADATA")
    assert "Apache License" in metadata(wheel, "licenses/LICENSE")
