"""A Ctrl-C that finds the main thread with the connection to the file in use."""

from contextlib import AbstractContextManager, closing
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any

import pytest
from smoothcluster_sqlite import SqliteBackend
from smoothcluster_sqlite.connection import FileConnection

from smoothcluster import ClusterCrawler


class Interrupted:
    """A context manager that is entered, and Ctrl-C comes before the block begins."""

    def __init__(self, manager: AbstractContextManager[Any]) -> None:
        self.manager = manager

    def __enter__(self) -> None:
        self.manager.__enter__()
        raise KeyboardInterrupt

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise AssertionError("the block has not begun")


def test_an_interrupt_does_not_keep_the_connection_from_the_leaving_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may raise at any line, also between the lock and the block that it is for: the traceback holds both."""
    locks: list[Lock] = []
    free: list[bool] = []
    locked: Any = getattr(FileConnection, "_locked")  # noqa: B009  # private
    stop = ClusterCrawler.stop

    def locked_once(connection: Any, deadline: float) -> Any:
        manager = locked(connection, deadline)
        if locks:
            return manager
        locks.append(connection._lock)
        return Interrupted(manager)

    def stop_and_look(crawler: ClusterCrawler) -> None:
        free.append(locks[0].acquire(timeout=30.0))
        if free[0]:
            locks[0].release()
        stop(crawler)

    monkeypatch.setattr(FileConnection, "_locked", locked_once)
    monkeypatch.setattr(ClusterCrawler, "stop", stop_and_look)
    with closing(SqliteBackend(tmp_path / "store.db")) as backend, pytest.raises(KeyboardInterrupt):
        ClusterCrawler(backend=backend, runner=1, handler=print)
    assert free == [True]
