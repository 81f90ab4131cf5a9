"""The sqlite backend on real files, shared by real processes: the contract, and what only sqlite does."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test  # pyright: ignore[reportUnknownVariableType]
from smoothcluster_sqlite import SqliteBackend

from smoothcluster.backend import CoordinationBackend, Lease
from smoothcluster.testing import Ability, BackendConformance, Faulty, backend_machine, eventually


def end_lease(path: Path, lease: Lease) -> None:
    """Have its time be over, and wait until some client has noticed."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE leases SET expires = 0 WHERE id = ?", (lease.id,))
        eventually(lambda: not connection.execute("SELECT 1 FROM leases WHERE id = ?", (lease.id,)).fetchall())


class TestSqlite(BackendConformance):
    """One file for each test, through connections that can be cut."""

    abilities = frozenset({Ability.CUT})

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "cluster.db"

    def connect(self) -> CoordinationBackend:
        """A new client of this test's file."""
        return Faulty(SqliteBackend(self.path))

    def expire(self, lease: Lease) -> None:
        """Take it away before its time."""
        end_lease(self.path, lease)

    def cut(self, backend: CoordinationBackend) -> None:
        """As the wrapper does it."""
        assert isinstance(backend, Faulty)
        backend.cut()

    def mend(self, backend: CoordinationBackend) -> None:
        """As the wrapper does it."""
        assert isinstance(backend, Faulty)
        backend.mend()


@pytest.mark.parametrize("expiring", [False, True], ids=["", "expiring"])
def test_random_moves(tmp_path: Path, expiring: bool) -> None:
    """Whatever two clients do, the store holds what a dict would, and wakes whom it should."""
    path = tmp_path / "cluster.db"

    def expire(lease: Lease) -> None:
        end_lease(path, lease)

    machine = backend_machine(lambda: SqliteBackend(path), expire if expiring else None)
    run_state_machine_as_test(
        machine,
        settings=settings(deadline=None, max_examples=12, stateful_step_count=25, suppress_health_check=[HealthCheck.too_slow]),
    )
