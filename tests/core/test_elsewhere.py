"""What machines lack: `scripts/test` names it, and `scripts/elsewhere.py` makes surroundings that lack it."""

import importlib.util
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT, block
from servers import WITHOUT, not_installed


@pytest.fixture(scope="module")
def script() -> Any:
    """`scripts/elsewhere.py`."""
    spec = importlib.util.spec_from_file_location("elsewhere", ROOT / "scripts" / "elsewhere.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Its dataclass looks there.
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("arguments", "names", "others"),
    [
        ("debian c-locale+no-root -e sim", ["debian", "c-locale+no-root"], ["-e", "sim"]),
        ("debian -e sim -- tests", ["debian"], ["-e", "sim", "--", "tests"]),
        ("debian -- -e sim", ["debian"], ["-e", "sim"]),
        ("debian", ["debian"], []),
    ],
)
def test_names_come_before_what_scripts_test_takes(
    script: Any, arguments: str, names: list[str], others: list[str]
) -> None:
    """The first dash parts them."""
    assert script.parsed(arguments.split()) == (names, others)


def test_without_a_name_each_has_its_turn(script: Any) -> None:
    """Also with arguments for `scripts/test`."""
    assert script.parsed(["-e", "sim"]) == (list(script.KNOWN_SURROUNDINGS), ["-e", "sim"])


@pytest.mark.parametrize("name", ["c-local", "debian+c-local", "", "debian+"])
def test_an_unknown_name_is_a_mistake(script: Any, name: str) -> None:
    """The message has those that there are."""
    with pytest.raises(SystemExit, match=r"unknown surroundings.*c-locale, auckland"):
        script.parsed(["debian", name])


def test_contributors_are_told_of_each(script: Any) -> None:
    """By the names that the script takes, and the commands that they are shown are right."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert [name for name in script.KNOWN_SURROUNDINGS if f"| `{name}` |" not in text] == []
    for line in block("CONTRIBUTING.md", "sh", "scripts/elsewhere.py").splitlines():
        assert script.parsed(shlex.split(line, comments=True)[2:])


def test_variables_of_the_caller_stay_behind(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but those that lead pip to its registry."""
    monkeypatch.setenv("OF_THE_CALLER", "1")
    monkeypatch.setenv("PIP_RETRIES", "3")
    variables = script.Surroundings(frozenset({"c-locale", "auckland"}), tmp_path).variables
    assert "OF_THE_CALLER" not in variables
    assert [variables[name] for name in ("LC_ALL", "TZ", "PIP_RETRIES")] == ["C", "Pacific/Auckland", "3"]
    assert not {"LC_ALL", "TZ"} & set(script.Surroundings(frozenset({"odd-folder"}), tmp_path).variables)


def test_hidden_programs_are_not_on_the_path(script: Any, tmp_path: Path) -> None:
    """All others are."""
    try:
        path = script.Surroundings(frozenset({"no-servers"}), tmp_path).variables["PATH"]
    except script.NotHereError as error:
        pytest.skip(str(error))
    assert [
        name for name in ("etcd", "etcdctl", "redis-server", "java", "dot", "sudo") if shutil.which(name, path=path)
    ] == []
    assert shutil.which("bash", path=path)


def test_a_server_that_could_not_be_installed_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other that is missing fails the test."""
    monkeypatch.setenv(WITHOUT, "zookeeper redis-server")
    with pytest.raises(pytest.skip.Exception, match="redis-server"):
        not_installed("redis-server", "redis-server")
    with pytest.raises(pytest.fail.Exception, match="apt-get install etcd-server"):
        not_installed("etcd", "etcd-server")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A checkout whose tox tells what it is told, and in `bin` the programs of a machine without apt, Redis and dot."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("etcd", "etcdctl", "java", "zsh", "fish"):
        (programs / name).touch(mode=0o755)
    for name in ("bash", "dirname", "env", "rm"):
        (programs / name).symlink_to(str(shutil.which(name)))
    tox = tmp_path / ".venv" / "bin" / "tox"
    tox.parent.mkdir(parents=True)
    tox.write_text(f'#!/usr/bin/env bash\necho "without: ${WITHOUT}, left out: $TOX_SKIP_ENV"\n')
    tox.chmod(0o755)
    return tmp_path


def test_what_cannot_be_installed_is_said(bare: Path) -> None:
    """And the tests, and tox, are told so that they leave it out."""
    environment = {"PATH": str(bare / "bin"), "HOME": str(bare)}
    command = [str(bare / "scripts" / "test"), "-e", "docs"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, told, again = done.stdout.splitlines()
    assert again == said, "at the end, too, after all that tox has written"
    assert "skipped: tests that need" in said
    assert "redis-server" in said
    assert "etcd" not in said
    assert "redis-server graphviz" in told
    assert told.endswith("left out: ^docs$")


def test_in_ci_nothing_is_left_out(bare: Path) -> None:
    """There it is a failure, before any test runs."""
    environment = {"PATH": str(bare / "bin"), "HOME": str(bare), "CI": "true"}
    done = subprocess.run([bare / "scripts" / "test"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "CI leaves no test out" in done.stderr
    assert "redis-server" in done.stderr
    assert done.stdout == ""
