"""A stranger's backend: a distribution of its own, installed beside ours in an environment where nothing else is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import block

from smoothcluster.testing import eventually

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "files"


def run(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=cwd, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def outside() -> dict[str, str]:
    """The variables of something that sees neither this checkout nor this environment."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with the wheels of both distributions, and what their tests need."""
    out, home = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("environment")
    for project in (ROOT, EXAMPLE):
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, project)
    run(sys.executable, "-m", "venv", "--without-pip", home)
    wheels = [f"{wheel}[testing]" for wheel in out.glob("*.whl")]
    run(sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "--quiet", *wheels)
    return home / "bin" / "python"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_passes_the_conformance_kit(python: Path, tmp_path: Path) -> None:
    """By the name of its class; and its own tests."""
    tests = EXAMPLE / "tests" / "test_files.py"
    command = [python, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-c", EXAMPLE / "pyproject.toml", tests]
    told = run(*command, cwd=tmp_path, env=outside())
    assert told.count("TestFiles::test_") > 80
    assert " failed" not in told


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_its_readme(python: Path, tmp_path: Path) -> None:
    """The folder that it names is made with the first change."""
    code = block("examples/files/README.md", "python", "connect(").replace("/var/tmp/crawl", f"{tmp_path}/store")
    change = "from smoothcluster.backend import Create; backend.commit([], [Create('g/a', b'')])"
    assert run(python, "-c", f"{code}\n{change}\nprint(backend.keys('g'))", cwd=tmp_path, env=outside()) == "['g/a']\n"
    assert (tmp_path / "store").is_dir()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_our_commands_take_its_url(python: Path, tmp_path: Path) -> None:
    """A group meets there; nothing of ours knows the name."""
    (tmp_path / "crawl.py").write_text("def fetch(task, context):\n    return task.id\n")
    command, store = python.parent / "smoothcluster", f"files://{tmp_path}/store"

    def ours(*words: str) -> str:
        return run(command, *words, cwd=tmp_path, env=outside())

    ours("submit", "--backend", store, "http://localhost/1", "http://localhost/2")
    group = ["--runner", "1", "--backup", "0", "--backend", store]
    member = subprocess.Popen([command, "run", "crawl:fetch", *group], cwd=tmp_path, env=outside())
    try:
        eventually(lambda: ours("results", "--backend", store).count('"done"') == 2, 60)
    finally:
        member.terminate()
    assert member.wait(60) == 0
    told = ours("doctor", store)
    assert " held " in told
    assert " weaker " not in told
