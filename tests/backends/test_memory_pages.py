"""What the pages about groups in memory say to type and to write."""

import signal
import sys
from pathlib import Path

import pytest
from cluster.group import PATIENCE
from cluster.place import Place
from pages import block

pytestmark = pytest.mark.slow


def test_the_command_that_serves(tmp_path: Path) -> None:
    """What it serves is reached by its URL, and Ctrl-C ends it well."""
    path = tmp_path / "store.sock"
    place = Place(tmp_path, f"memory://{path}")
    command = block("docs/howto/run-on-memory.md", "sh", "python -m").replace("/var/tmp/crawl.sock", str(path))
    with place.start("bash", "-c", f"exec {command}") as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == f"memory://{path}\n"
            assert "the store's present history" in place.type("smoothcluster doctor")
            server.send_signal(signal.SIGINT)
            assert server.wait(PATIENCE) == 0
        finally:
            server.kill()


def test_the_tests_of_a_crawler(tmp_path: Path) -> None:
    """Pytest passes them: one that calls the handler, and one of a whole group."""
    (tmp_path / "test_handler.py").write_text(block("docs/howto/test-a-crawler.md", "python", "task_context("))
    (tmp_path / "test_crawl.py").write_text(block("docs/howto/test-a-crawler.md", "python", "MemoryServer("))
    place = Place(tmp_path, "memory://")
    run = place.start(sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), str(tmp_path))
    out = run.communicate(timeout=PATIENCE)[0]
    assert run.returncode == 0, out
    assert "2 passed" in out
