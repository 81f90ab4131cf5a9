"""What an etcd server refuses, and the error that says why and what to do."""

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import grpc
import pytest
from etcd_server import QUICK, EtcdServer, rpc
from smoothcluster_etcd import EtcdBackend
from smoothcluster_etcd.errors import translate_error
from smoothcluster_etcd.lease import EtcdLease

from smoothcluster import Cluster, ClusterCrawler, Task, TaskContext
from smoothcluster.backend import Create, Delete
from smoothcluster.errors import OutcomeUnknownError, UnavailableError
from smoothcluster.testing import eventually

QUOTA = 4_000_000
ADVICE = r"full \(alarm NOSPACE\).*compact the history.*defrag.*alarm disarm.*quota-backend-bytes"


@pytest.fixture
def server() -> Iterator[EtcdServer]:
    """A server that is soon full."""
    with EtcdServer(QUICK | {"quota-backend-bytes": QUOTA}) as server:
        yield server


def fill(backend: EtcdBackend) -> None:
    """Write until the server refuses more."""

    def write() -> None:
        for number in range(100):
            backend.commit([], [Create(f"fill/{number}", bytes(200_000))])

    with pytest.raises(UnavailableError, match=ADVICE):
        write()


def make_room(server: EtcdServer, backend: EtcdBackend) -> None:
    """As the error says."""
    for key in backend.keys("fill"):
        backend.commit([], [Delete(key)])  # Needs no memory.
    header = server.ask("KV", "Range", rpc.RangeRequest(key=b"any")).header
    server.ask("KV", "Compact", rpc.CompactionRequest(revision=header.revision, physical=True))
    server.ask("Maintenance", "Defragment", rpc.DefragmentRequest())
    disarm: Any = {"action": rpc.AlarmRequest.DEACTIVATE, "memberID": header.member_id, "alarm": rpc.NOSPACE}
    server.ask("Maintenance", "Alarm", rpc.AlarmRequest(**disarm))


@pytest.mark.slow
def test_a_full_server_is_one_outage(
    server: EtcdServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases are renewed and reads answered meanwhile, and neither ends the outage; a member goes on afterwards."""
    renewals = 0
    renew = EtcdLease.renew

    def counted(lease: EtcdLease) -> bool:
        nonlocal renewals
        alive = renew(lease)
        renewals += alive
        return alive

    monkeypatch.setattr(EtcdLease, "renew", counted)
    gate = threading.Event()

    def run(task: Task, context: TaskContext) -> str:
        gate.wait(60.0)
        return task.id

    with closing(EtcdBackend(server.hosts)) as backend, closing(EtcdBackend(server.hosts)) as other:
        cluster = Cluster(other)
        with ClusterCrawler(backend=backend, runner=1, handler=run, lease_ttl=1.0, concurrency=2):
            job = cluster.submit([Task(id=str(number)) for number in range(50)], "j")
            eventually(lambda: cluster.status()["tasks"]["running"])
            fill(other)
            gate.set()
            eventually(lambda: caplog.messages)
            before = renewals
            eventually(lambda: renewals >= before + 6)
            assert [each["role"] for each in cluster.status()["members"]] == ["runner"]
            make_room(server, other)
            assert job.wait(60.0).done == 50
    outage = [message for message in caplog.messages if "the store is" in message]
    assert "alarm NOSPACE" in outage[0]
    assert [message for message in outage if "available again" in message] == outage[-1:]


class Refused(grpc.RpcError):
    """An error as gRPC has it."""

    def __init__(self, code: Any, details: str) -> None:
        self._code, self._details = code, details

    def code(self) -> Any:
        """Its status."""
        return self._code

    def details(self) -> str:
        """The words of the server."""
        return self._details


STATUS: Any = grpc.StatusCode


@pytest.mark.parametrize(
    ("error", "says", "kind"),
    [
        (Refused(STATUS.UNAVAILABLE, "etcdserver: no leader"), "have no leader", UnavailableError),
        (Refused(STATUS.DATA_LOSS, "etcdserver: corrupt cluster"), "alarm CORRUPT", OutcomeUnknownError),
        (Refused(STATUS.RESOURCE_EXHAUSTED, "etcdserver: too many requests"), "overloaded", UnavailableError),
        (Refused(STATUS.UNIMPLEMENTED, "unknown service etcdserverpb.KV"), "no etcd 3.4 or newer", UnavailableError),
    ],
    ids=["no leader", "corrupt", "overloaded", "another server"],
)
def test_other_refusals_tell_what_to_do(error: grpc.RpcError, says: str, kind: type[Exception]) -> None:
    """And are sorted by what was done."""
    found = translate_error(error, "h:1", OutcomeUnknownError)
    assert (type(found), says in str(found)) == (kind, True)
    assert "check the addresses" not in str(found)
