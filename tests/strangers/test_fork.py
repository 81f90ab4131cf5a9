"""A fork, which is the default of `multiprocessing` on Linux: a client works in its own process, or says so at once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster.stores import Kind

FORKER = Path(__file__).with_name("forker.py")


def forking(url: str, scenario: str) -> Any:
    """What a process reports that forks in this *scenario*."""
    ran = subprocess.run(
        [sys.executable, FORKER, url, scenario], capture_output=True, text=True, check=False, timeout=240
    )
    assert ran.stdout, ran.stderr
    return json.loads(ran.stdout)


def test_a_forked_child_is_told_at_once(store: str) -> None:
    """Every call on what the parent made is UsageError with advice, and both processes get no wrong answer."""
    report = forking(store, "use")
    assert report["parent"] == []
    assert isinstance(report["child"], dict), report["child"]
    for call, said in report["child"].items():
        assert said.startswith("UsageError: "), (call, said)
        assert "which was forked" in said, (call, said)
        assert "spawn" in said, (call, said)


def test_a_child_that_ends_leaves_its_parent_alone(store: str) -> None:
    """It may close what it inherited, drop it, or just end: nothing hangs, and the parent has all that it had."""
    report = forking(store, "leave")
    closed = report["child"].pop("close"), report["child"].pop("close, to the end")
    assert all("which was forked" in said for said in closed), closed
    assert report == {"child": {"exit": "went", "collect": "collected", "multiprocessing": 0}, "parent": []}


def test_a_child_may_make_a_client_of_its_own(kind: Kind, store: str) -> None:
    """That is the advice; on sqlite, whose locks do not survive a fork, the advice is to spawn."""
    report = forking(store, "renew")
    assert report["parent"] == []
    if kind.scheme == "sqlite":
        assert report["child"].startswith("UsageError: ")
        assert "spawn" in report["child"]
    else:
        assert report["child"] == "returned b'child'"


def test_a_fork_in_the_middle_of_calls_hangs_nothing(store: str) -> None:
    """Locks that the parent's other threads hold at that moment are never waited for."""
    assert forking(store, "busy") == {"child": ["refused"], "parent": []}
