"""Stores that demand a password or a certificate: a group without the right one is refused, with it works."""

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cluster.guarded import GUARDED, GUESSED, SECRET, Guarded, Options
from cluster.stores import Kind

from smoothcluster import Cluster, ClusterCrawler, Task, TaskContext, connect
from smoothcluster.errors import AccessDeniedError, UnavailableError
from smoothcluster.testing import eventually

HANDLER = "def fetch(task, context):\n    return task.id\n"


@pytest.fixture(params=["password", "TLS"])
def guarded(kind: Kind, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guarded]:
    """A server of the test's own that demands one or the other."""
    start = GUARDED.get(kind.scheme, {}).get(request.param)
    if start is None:
        pytest.skip(f"{kind} demands no {request.param}")
    folder = tmp_path / "files"
    folder.mkdir()
    with start(folder) as server:
        yield server


def command(folder: Path, options: Options, *words: str) -> "subprocess.Popen[str]":
    """Start ``smoothcluster`` in a process of its own, with *options* from a file.

    No command rewrites a file of an earlier command: its process may be about to read that file.
    """
    if not (folder / "crawl.py").exists():
        (folder / "crawl.py").write_text(HANDLER)
    named = folder / f"options-{uuid.uuid4().hex}.json"
    named.write_text(json.dumps(options))
    named.chmod(0o600)
    return subprocess.Popen(
        [sys.executable, "-m", "smoothcluster", *words],
        cwd=folder,
        env=os.environ | {"SMOOTHCLUSTER_OPTIONS": named.name},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def handler(task: Task, context: TaskContext) -> object:
    """Nothing much."""
    return task.id


def shows_no_secret(text: str) -> bool:
    """Whatever else it tells."""
    return SECRET not in text and GUESSED not in text


def test_a_group_is_refused_or_works(guarded: Guarded, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Refused, a member's error says what is wrong, and no secret; with the right options it joins and works."""
    caplog.set_level("DEBUG")
    for what, options in guarded.wrong.items():
        with (
            closing(connect(guarded.url, **options)) as backend,
            pytest.raises((AccessDeniedError, UnavailableError), match=guarded.says) as caught,
        ):
            ClusterCrawler(backend=backend, runner=1, backup=0, handler=handler)
        assert shows_no_secret(str(caught.value)), what
    with closing(connect(guarded.url, **guarded.right)) as backend:
        with ClusterCrawler(backend=backend, runner=1, backup=0, handler=handler, lease_ttl=4.0):
            job = Cluster(backend).submit([Task(id=str(number)) for number in range(300)])
            assert job.wait(60).done == 300
        assert shows_no_secret(f"{backend!r} {backend.url}")
    assert shows_no_secret(caplog.text)


def test_commands_are_refused_or_work(guarded: Guarded, tmp_path: Path) -> None:
    """Refused: status 3 and one line, without a secret or a stack trace. With the right options all is as ever."""
    where = ["--backend", guarded.url]
    run = ["run", "crawl:fetch", "--runner", "1", "--backup", "0", *where]
    for what, options in guarded.wrong.items():
        with command(tmp_path, options, *run) as process:
            out, told = process.communicate(timeout=60)
        assert (process.returncode, out) == (3, ""), what
        line = told.splitlines()[-1]
        assert line.startswith("Error: "), what
        assert re.search(guarded.says, line), what
        assert "Traceback" not in told, what
        assert shows_no_secret(told), what
    with command(tmp_path, guarded.right, *run) as member:
        for words in (["submit", "http://localhost/1"], ["status", "--json"]):
            with command(tmp_path, guarded.right, *words, *where) as process:
                out, told = process.communicate(timeout=60)
            assert process.returncode == 0, told
            assert shows_no_secret(out + told)
        with closing(connect(guarded.url, **guarded.right)) as backend:
            cluster = Cluster(backend)
            eventually(lambda: member.poll() is not None or cluster.status()["tasks"]["done"] == 1, 60)
        member.send_signal(signal.SIGTERM)
        out, told = member.communicate(timeout=60)
    assert member.returncode == 0, told
    assert shows_no_secret(out + told)
