"""The tutorial does what it says when it is typed, block by block, into a shell in an empty folder."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import final

import pytest
from pages import blocks

from smoothcluster import Cluster, connect
from smoothcluster.testing import eventually

DEADLINE = 90.0
PAGES = 60
"""Instead of a thousand."""


@final
class Shell:
    """A shell in which blocks are typed."""

    def __init__(self, folder: Path) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with (folder / "errors").open("w") as errors:
            self._process = subprocess.Popen(
                ["bash"], cwd=folder, env=os.environ | {"PATH": path}, text=True, start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip

    def type(self, block: str) -> str:
        """Type *block*; what it has printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{block}\necho --- $?\n")
        self._process.stdin.flush()
        lines: list[str] = []
        while not (line := self._process.stdout.readline()).startswith("--- "):
            assert line, "the shell has ended"
            lines.append(line)
        assert line == "--- 0\n", f"{block}\n{lines}"
        return "".join(lines)

    def close(self) -> None:
        """End all that it has begun."""
        os.killpg(self._process.pid, 9)
        self._process.communicate()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in an empty folder, in which `smoothcluster` is found."""
    shell = Shell(tmp_path)
    yield shell
    shell.close()


def adapted() -> list[str]:
    """The page's blocks, for fewer pages, and a port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shown = blocks("docs/tutorial/first-cluster.md")
    return [each.replace("$(seq 1000)", f"$(seq {PAGES})").replace("8000", str(port)) for each in shown]


@pytest.mark.slow
def test_it_works_as_typed(shell: Shell, tmp_path: Path) -> None:
    """A Runner is killed, the Backup Runner takes over, and every page has its one outcome."""
    install, site, handler, members, joined, submit, kill, told, results, stop = adapted()
    assert "pip install" in install, "scripts/try_readme does that"
    shell.type(site)
    (tmp_path / "crawl.py").write_text(handler, encoding="utf-8")
    shell.type(members)

    cluster = Cluster(connect(f"sqlite:///{tmp_path}/first.db"))
    eventually(lambda: (tmp_path / "first.db").exists() and not cluster.absent(), DEADLINE)
    eventually(lambda: sum(member["running"] for member in cluster.status()["members"]) == 3, DEADLINE)
    roles = {line.split()[1] for line in joined.splitlines()}
    assert {member["role"] for member in cluster.status()["members"]} == roles == {"runner", "backup-runner"}

    assert "pages (sealed)" in shell.type(submit)
    eventually(lambda: cluster.job("pages").progress().done > 5, DEADLINE)
    shell.type(kill)
    count, *shown = [line for line in shell.type(results).splitlines() if not line.startswith("crawler_")]
    assert count.strip() == str(PAGES)
    assert len(shown) == 3
    assert cluster.job("pages").progress().done == PAGES
    errors = (tmp_path / "errors").read_text(encoding="utf-8")
    assert "GET /" not in errors, "the web server's lines are not among the members'"
    assert (tmp_path / "web.log").read_text(encoding="utf-8").count("GET /") >= PAGES
    for line in told.splitlines():
        assert line.split(" ", 2)[2][:15] in errors, "it says so, if in other numbers"
    shell.type(f"{stop}true")
    eventually(lambda: cluster.status()["members"] == [], DEADLINE)
