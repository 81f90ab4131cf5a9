"""Tests of the files backend: the conformance tests of all backends, and tests for folders alone."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test  # pyright: ignore[reportUnknownVariableType]
from smoothcluster_files import FilesBackend
from smoothcluster_files.state import State

from smoothcluster import Cluster, ClusterCrawler, Task, TaskContext, connect
from smoothcluster.backend import Committed, CoordinationBackend, Create, Lease
from smoothcluster.errors import BackendError, UnavailableError, UsageError
from smoothcluster.testing import BackendConformance, backend_machine, eventually
from smoothcluster.testing.conformance.kit import create, gone


def expire(folder: Path, lease: Lease) -> None:
    """End *lease* in the same way as an expiry in the store."""
    backend = FilesBackend(folder)
    backend._folder.change(lambda state: state.end(lease.id))  # pyright: ignore[reportPrivateUsage]
    backend.close()


class TestFiles(BackendConformance):
    """The conformance tests, with a folder for each test. There is no server to restart, and no connection to cut."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "store"

    def connect(self) -> CoordinationBackend:
        """Return a new client of the folder."""
        return FilesBackend(self.folder)

    def expire(self, lease: Lease) -> None:
        """Have the store end *lease*."""
        expire(self.folder, lease)


@pytest.mark.parametrize("expiring", [False, True], ids=["", "expiring"])
def test_random_moves(tmp_path: Path, expiring: bool) -> None:
    """After random calls of two clients, the store has the same contents as a dict, and has woken the right watches."""

    def end(lease: Lease) -> None:
        expire(tmp_path / "store", lease)

    run_state_machine_as_test(
        backend_machine(lambda: FilesBackend(tmp_path / "store"), end if expiring else None),
        settings=settings(
            deadline=None, max_examples=5, stateful_step_count=20, suppress_health_check=[HealthCheck.too_slow]
        ),
    )


def test_its_url_leads_to_it(tmp_path: Path) -> None:
    """`connect` finds the backend by the entry point of this distribution."""
    backend = connect(f"files://{tmp_path}/a folder", timeout=1.0)
    assert isinstance(backend, FilesBackend)
    create(backend, "a", b"1")
    again = connect(backend.url)
    entry = again.get("a")
    assert entry is not None
    assert entry.value == b"1"


@pytest.mark.parametrize(
    "url", ["files://", "files:///", "files://host/folder", "files:///folder?x=1", "files://me:se[cret@h"]
)
def test_a_url_that_names_no_folder(url: str) -> None:
    """The error shows a valid URL, and no part of this one: it may be a password."""
    with pytest.raises(UsageError, match="use files:///absolute/folder") as caught:
        connect(url)
    assert "cret" not in str(caught.value)


def test_a_group(tmp_path: Path) -> None:
    """Two members share the tasks of a job."""

    def handler(task: Task, context: TaskContext) -> object:
        return task.id

    backends = [FilesBackend(tmp_path) for _ in range(2)]
    crawlers = [ClusterCrawler(backend=each, runner=2, group="g", handler=handler).start() for each in backends]
    job = Cluster(backends[0], "g").submit([Task(id=str(number)) for number in range(50)])
    job.wait(60)
    assert sorted(int(outcome.task_id) for outcome in job.results()) == list(range(50))
    for crawler in crawlers:
        crawler.stop()


def test_a_process_killed_while_it_changes_the_store(tmp_path: Path) -> None:
    """The last change is stored wholly or not at all, and no process waits for the dead process."""
    program = """
        import sys
        from smoothcluster.backend import Create
        from smoothcluster_files import FilesBackend
        backend = FilesBackend(sys.argv[1])
        for number in range(10**6):
            backend.commit([], [Create(f"a/{number}", b"x" * 1000)])
            print(number, flush=True)
    """
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), tmp_path], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(5)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout.read().splitlines()]
    writer.wait()
    writer.stdout.close()
    backend = FilesBackend(tmp_path)
    assert len(backend.keys("a")) - len(acknowledged) in (0, 1)
    assert isinstance(backend.commit([], [Create("b", b"")]), Committed)


def test_a_process_stopped_while_it_changes_the_store(tmp_path: Path) -> None:
    """Other processes get an error within the timeout, and no lease has expired when the process goes on."""
    backend = FilesBackend(tmp_path, timeout=0.3)
    lease = backend.lease(0.5)
    create(backend, "a", b"", lease)
    folder = backend._folder  # pyright: ignore[reportPrivateUsage]
    lock = folder._take()  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(UnavailableError, match="locked by another process"):
        eventually(lambda: backend.commit([], [Create("b", b"")]))
    for _ in range(8):  # Far longer than the lease.
        with pytest.raises(UnavailableError):
            backend.commit([], [Create("b", b"")])
    os.close(lock)
    assert lease.renew() is True
    gone(backend, "a")


def test_another_boot_gives_every_lease_its_full_time_again() -> None:
    """The time between two boots of the machine is unknown. But a lease renewed before the boot is silent."""
    state = State()
    state.pass_time(1000.0, "one")
    state.grant("lease", 2.0)
    state.pass_time(1000.4, "one")
    assert state.silent(["lease", "none"], 1000.9, "one") == set()
    assert state.silent(["lease", "none"], 1001.0, "one") == {"lease"}
    assert state.silent(["lease"], 3.0, "two") == {"lease"}
    state.pass_time(5.0, "two")
    assert state.leases["lease"] == (state.clock + 2.0, 2.0)
    assert state.silent(["lease"], 5.0, "two") == {"lease"}
    state.grant("lease", 2.0)
    assert state.silent(["lease"], 5.0, "two") == set()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"keys": 1, "leases": {}}', b"[" * 100_000])
def test_garbage_in_the_file_is_an_error_of_ours(tmp_path: Path, data: bytes) -> None:
    """A damaged file raises an error, and is not repaired by guessing."""
    (tmp_path / "store.json").write_bytes(data)
    with pytest.raises(BackendError, match="written by somebody else"):
        FilesBackend(tmp_path).keys("a")


def test_the_file_is_json(tmp_path: Path) -> None:
    """People can read the file."""
    backend = FilesBackend(tmp_path)
    create(backend, "a/b", b"value")
    assert json.loads((tmp_path / "store.json").read_text())["keys"]["a/b"][1:] == ["1", 1, None]
