"""etcd whose servers take less than etcd's defaults: the client learns the limits, the doctor says what to do."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from cluster.group import Group, child_environment
from etcd_server import EtcdServer
from smoothcluster_etcd import EtcdBackend

from smoothcluster.backend import Committed, Create
from smoothcluster.errors import CommitTooLargeError, UnavailableError

FEW_OPERATIONS: Mapping[str, object] = {"max-txn-ops": 40}
FEW_BYTES: Mapping[str, object] = {"max-request-bytes": 300_000}


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[EtcdServer]:
    """A server with the flags given as the parameter."""
    with EtcdServer(request.param) as server:
        yield server


@pytest.fixture
def backend(server: EtcdServer) -> Iterator[EtcdBackend]:
    """A client of it."""
    client = EtcdBackend(server.hosts)
    yield client
    client.close()


@pytest.mark.parametrize("server", [FEW_OPERATIONS], indirect=True)
def test_operations_that_a_server_refuses_lower_the_guarantee(backend: EtcdBackend) -> None:
    """The refused commit was not applied, and says what to set; a commit within the new limit is accepted."""
    changes = [Create(f"a/{number}", b"") for number in range(backend.guarantees.most_operations)]
    with pytest.raises(CommitTooLargeError, match="--max-txn-ops=128"):
        backend.commit([], changes)
    assert backend.keys("a") == []
    least = backend.guarantees.most_operations
    while not isinstance(_tried(backend, changes), Committed):
        assert backend.guarantees.most_operations < least
        least = backend.guarantees.most_operations
    assert least == 32, "with the comparison of the directory a few less than 40"
    found = backend.get_many([change.key for change in changes] * 3)
    assert [entry is not None for entry in found] == ([True] * least + [False] * (64 - least)) * 3


def _tried(backend: EtcdBackend, changes: list[Create]) -> object:
    try:
        return backend.commit([], changes[: backend.guarantees.most_operations])
    except CommitTooLargeError:
        return None


@pytest.mark.parametrize("server", [FEW_OPERATIONS], indirect=True)
def test_reads_are_made_in_smaller_requests(backend: EtcdBackend) -> None:
    """No caller has to know."""
    backend.commit([], [Create("a/0", b"x")])
    found = backend.get_many([f"a/{number}" for number in range(500)])
    assert [entry.value for entry in found if entry is not None] == [b"x"]
    assert len(found) == 500


@pytest.mark.parametrize("server", [{"max-txn-ops": 4}], indirect=True)
def test_a_server_that_takes_next_to_nothing_is_an_error_that_says_so(backend: EtcdBackend) -> None:
    """There is an end to making requests smaller."""
    with pytest.raises(UnavailableError, match="--max-txn-ops=128"):
        backend.get_many([f"a/{number}" for number in range(50)])
    for _ in range(5):
        with pytest.raises(CommitTooLargeError):
            backend.commit([], [Create(f"a/{number}", b"") for number in range(backend.guarantees.most_operations)])


@pytest.mark.parametrize("server", [FEW_BYTES], indirect=True)
@pytest.mark.parametrize("size", [900_000, 500_000], ids=["more than gRPC takes", "more than etcd takes"])
def test_bytes_that_a_server_refuses_lower_the_guarantees(backend: EtcdBackend, size: int) -> None:
    """Whether the server's gRPC refuses the request or etcd itself: nothing was applied."""
    with pytest.raises(CommitTooLargeError, match="--max-request-bytes=1572864"):
        backend.commit([], [Create("a", b"x" * size)])
    assert backend.get("a") is None
    promised = backend.guarantees
    assert promised.largest_value < promised.largest_commit <= size / 2 + 100


@pytest.mark.parametrize(
    ("server", "name", "advice"),
    [(FEW_OPERATIONS, "most_operations", "--max-txn-ops=128"), (FEW_BYTES, "largest_commit", "--max-request-bytes")],
    indirect=["server"],
)
def test_the_doctor_finds_the_real_limits(server: EtcdServer, name: str, advice: str) -> None:
    """It says how much the server takes, how much it should, and which flag to set."""
    done = subprocess.run(
        [sys.executable, "-m", "smoothcluster", "doctor", f"etcd://{server.hosts}", "--json"],
        env=child_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    limits = {limit["name"]: limit for limit in found["limits"]}
    assert limits[name]["found"] < limits[name]["promised"]
    (promise,) = [each for each in found["promises"] if each["verdict"] == "not held"]
    assert f"{name} is {limits[name]['found']}, and should be" in promise["why"]
    assert advice in promise["why"]


@pytest.mark.slow
@pytest.mark.parametrize("server", [FEW_OPERATIONS], indirect=True)
def test_a_group_works_on_such_a_server(server: EtcdServer, tmp_path: Path) -> None:
    """With smaller commits; the log says why, and does not say that the store is away."""
    with Group(f"etcd://{server.hosts}", tmp_path, runner=1, backup=0, shards=100) as group:
        member = group.start_one()
        job = group.submit(1, "page", spawn=150)
        group.finish(job, ["page-0", *(f"page-0/{number}" for number in range(150))])
        assert "--max-txn-ops=128" in member.errors
        assert "unavailable" not in member.errors
