"""The etcd backend on real servers: the contract, and what only etcd does."""

import gc
import logging
import secrets
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from certificates import make_certificates
from etcd_server import QUICK, EtcdEnsemble, EtcdServer, rpc
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test  # pyright: ignore[reportUnknownVariableType]
from proxy import Proxy
from servers import free_port
from smoothcluster_etcd import EtcdBackend
from smoothcluster_etcd.connection import Connection
from smoothcluster_etcd.errors import translate_error
from smoothcluster_etcd.watches import Watches

from smoothcluster import ClusterCrawler, Task, TaskContext
from smoothcluster.backend import (
    AtVersion,
    Committed,
    CoordinationBackend,
    Create,
    Delete,
    Entry,
    Exists,
    Lease,
    Refused,
    Update,
    commit_size,
)
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import AccessDeniedError, LeaseLostError, OutcomeUnknownError, UnavailableError, UsageError
from smoothcluster.testing import Ability, BackendConformance, Faulty, backend_machine, eventually
from smoothcluster.testing.conformance.connection import ConnectionRules
from smoothcluster.testing.conformance.kit import Wakes, create

SECRET = "open sesame"

Answer = TypeVar("Answer")


def expire(lease: Lease, server: EtcdServer) -> None:
    """End it as an expiry does: by somebody else's doing."""
    server.ask("Lease", "LeaseRevoke", rpc.LeaseRevokeRequest(ID=int(lease.id, 16)))


def reached(act: Callable[[], Answer]) -> Answer | None:
    """What *act* returns; None if the servers could not be asked or did not answer."""
    try:
        return act()
    except (OutcomeUnknownError, UnavailableError):
        return None


class TestEtcd(BackendConformance):
    """A server with quick elections that all tests share, each in a namespace of its own."""

    @pytest.fixture(autouse=True)
    def _server(self, etcd_server: EtcdServer) -> None:
        self.server = etcd_server
        self.namespace = f"test-{secrets.token_hex(8)}"

    def connect(self) -> CoordinationBackend:
        """A client that can tell what the server grants."""
        client = EtcdBackend(self.server.hosts, namespace=self.namespace)
        client.get("a")
        return client

    def expire(self, lease: Lease) -> None:
        """Take it away before its time."""
        expire(lease, self.server)


@pytest.fixture(scope="module")
def outage_server() -> Iterator[EtcdServer]:
    """A server that one class's tests restart."""
    with EtcdServer(QUICK) as server:
        yield server


class TestEtcdOutages(ConnectionRules):
    """The rules for outages, on a server that can be restarted, through connections that can be cut."""

    abilities = frozenset({Ability.CUT, Ability.RESTART})

    server: EtcdServer

    @pytest.fixture(autouse=True)
    def _proxies(self, outage_server: EtcdServer) -> Iterator[None]:
        self.server = outage_server
        self.proxies: dict[CoordinationBackend, Proxy] = {}
        yield
        for proxy in self.proxies.values():
            proxy.close()

    def connect(self) -> CoordinationBackend:
        """A client with a proxy of its own."""
        proxy = Proxy(self.server.port)
        client = EtcdBackend(proxy.hosts, timeout=1.0)
        self.proxies[client] = proxy
        return client

    def expire(self, lease: Lease) -> None:
        """Take it away before its time."""
        expire(lease, self.server)

    def cut(self, backend: CoordinationBackend) -> None:
        """Both ends stay connected to the proxy, which lets nothing pass."""
        self.proxies[backend].cut()

    def mend(self, backend: CoordinationBackend) -> None:
        """What was held back arrives."""
        self.proxies[backend].mend()

    def restart_store(self) -> None:
        """SIGKILL, and start again."""
        self.server.restart()


@pytest.mark.slow
@pytest.mark.parametrize("expiring", [False, True], ids=["", "expiring"])
def test_random_moves(etcd_server: EtcdServer, expiring: bool) -> None:
    """Whatever two clients do, the store holds what a dict would, and wakes whom it should."""
    machine = backend_machine(
        lambda: EtcdBackend(etcd_server.hosts, namespace="test-machine"),
        (lambda lease: expire(lease, etcd_server)) if expiring else None,
    )
    run_state_machine_as_test(
        machine,
        settings=settings(
            deadline=None, max_examples=12, stateful_step_count=25, suppress_health_check=[HealthCheck.too_slow]
        ),
    )


@pytest.fixture
def connect(etcd_server: EtcdServer) -> Iterator[Callable[..., EtcdBackend]]:
    """Makes clients of the shared server, in one namespace of this test, and closes them."""
    namespace = f"test-{secrets.token_hex(8)}"
    clients: list[EtcdBackend] = []

    def make(hosts: str = etcd_server.hosts, **options: object) -> EtcdBackend:
        clients.append(EtcdBackend(hosts, **{"namespace": namespace, **options}))  # type: ignore[arg-type]
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def backend(connect: Callable[..., EtcdBackend]) -> EtcdBackend:
    """A client of the shared server."""
    return connect()


@pytest.fixture
def server() -> Iterator[EtcdServer]:
    """A server that the test may kill, restart or pause."""
    with EtcdServer(QUICK) as own:
        yield own


# Leases.


def test_the_time_granted_is_read_back(etcd_server: EtcdServer) -> None:
    """Whole seconds, no fewer than the server's elections allow; `guarantees` tells what that is, once connected."""
    with EtcdServer() as slow:
        for hosts, shortest in ((etcd_server.hosts, 1.0), (slow.hosts, 2.0)):
            with closing(EtcdBackend(hosts)) as backend:
                assert backend.guarantees.shortest_ttl == 2.0
                assert [backend.lease(asked).ttl for asked in (0.2, 2.2, 30.0)] == [shortest, 3.0, 30.0]
                assert backend.guarantees.shortest_ttl == shortest


def test_a_lease_outlives_a_restart_of_the_server(server: EtcdServer) -> None:
    """Leases are kept by the servers: a crash that is over in time loses neither lease nor keys."""
    with closing(EtcdBackend(server.hosts)) as backend:
        lease = backend.lease(20.0)
        create(backend, "a", b"", lease)
        server.restart()
        assert eventually(lambda: reached(lease.renew)) is True
        entry = eventually(lambda: reached(lambda: backend.get("a")))
        assert isinstance(entry, Entry)
        assert entry.lease == lease.id


def test_a_lease_that_ran_out_while_the_server_was_away(server: EtcdServer) -> None:
    """A lease that could not be renewed in time is lost for good, once the server can say so."""
    with closing(EtcdBackend(server.hosts, timeout=0.5)) as backend:
        lease = backend.lease(1.0)
        create(backend, "a", b"", lease)
        server.kill()
        with pytest.raises((UnavailableError, OutcomeUnknownError)):
            lease.renew()
        server.start()
        eventually(lambda: reached(lambda: backend.get("a") is None))
        assert eventually(lambda: reached(lambda: [lease.renew()])) == [False]


def test_a_lease_that_a_commit_found_lost_is_not_asked_for_again(server: EtcdServer) -> None:
    """A server that is behind could still say that it lives."""
    with closing(EtcdBackend(server.hosts)) as backend:
        lease = backend.lease(20.0)
        expire(lease, server)
        with pytest.raises(LeaseLostError):
            backend.commit([], [Create("a", b"", lease)])
        server.kill()
        assert lease.renew() is False


def test_a_foreign_lease_is_refused(backend: EtcdBackend, connect: Callable[..., EtcdBackend]) -> None:
    """A lease of some other backend cannot be meant."""
    for lease in (Faulty(backend).lease(1.0), connect().lease(1.0)):
        with pytest.raises(ValueError, match="not granted"):
            backend.commit([], [Create("a", b"", lease)])


# Several servers.


@pytest.fixture(scope="module")
def three_servers() -> Iterator[EtcdEnsemble]:
    """What `ensemble` is made of."""
    with EtcdEnsemble({"heartbeat-interval": 50, "election-timeout": 500}) as servers:
        yield servers


@pytest.fixture
def ensemble(three_servers: EtcdEnsemble) -> EtcdEnsemble:
    """Three servers, all up, whatever tests have done to them before."""
    return three_servers.start()


def new_leader(ensemble: EtcdEnsemble, former: EtcdServer) -> EtcdServer:
    """Wait until the others have elected one of them."""
    others = [server for server in ensemble.servers if server is not former]
    return eventually(lambda: [server for server in others if server.leads])[0]


def unread(server: EtcdServer) -> bool:
    """Whether it has received what it has not read."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(
        int(local.partition(":")[2], 16) == server.port and state == "01" and not queued.endswith(":00000000")
        for _, local, _, state, queued, *_ in lines
    )


@pytest.mark.slow
def test_what_was_acknowledged_survives_the_leader(ensemble: EtcdEnsemble) -> None:
    """The others elect one of them; leases, watches, own commits and what was read before are kept."""
    leader = ensemble.leader
    with (
        closing(EtcdBackend(ensemble.hosts, namespace="test-leader")) as backend,
        closing(EtcdBackend(ensemble.hosts, namespace="test-leader")) as other,
    ):
        lease = backend.lease(10.0)
        wakes = Wakes()
        backend.watch("a", wakes)
        versions = {f"a/{number}": create(backend, f"a/{number}", b"", lease) for number in range(50)}
        leader.kill()
        assert eventually(lambda: reached(lease.renew)) is True
        found = eventually(lambda: reached(lambda: backend.list("a")))
        assert found
        assert {entry.key: entry.version for entry in found} == versions
        before = wakes.count
        eventually(lambda: reached(lambda: isinstance(other.commit([], [Update("a/0", b"new")]), Committed)))
        wakes.since(before)


@pytest.mark.slow
def test_a_leader_that_was_replaced_renews_nothing(ensemble: EtcdEnsemble) -> None:
    """One that was paused, and goes on, believes to lead for a moment: what it says of a lease then does not count."""
    former = ensemble.leader
    with closing(EtcdBackend(former.hosts)) as backend, ThreadPoolExecutor() as pool:
        lease = backend.lease(60.0)
        former.pause()
        expire(lease, new_leader(ensemble, former))
        renewing = pool.submit(reached, lease.renew)
        eventually(lambda: unread(former))
        former.resume()
        assert renewing.result() is not True
        assert eventually(lambda: reached(lambda: [lease.renew()])) == [False]


@pytest.mark.slow
def test_a_server_cut_off_from_the_others_is_left_at_once(ensemble: EtcdEnsemble) -> None:
    """It knows no leader and says so: nothing was done, and another one is asked within the same call."""
    with closing(EtcdBackend(ensemble.hosts, timeout=10.0)) as backend:
        create(backend, "cut-off/a")
        lone, *rest = ensemble.servers
        for server in rest:
            server.pause()
        with closing(EtcdBackend(lone.hosts, timeout=5.0)) as alone:
            eventually(lambda: denied(alone))
            start = SYSTEM_CLOCK.monotonic()
            with pytest.raises(UnavailableError, match="no leader"):
                alone.commit([], [Create("cut-off/b", b"")])
            assert SYSTEM_CLOCK.monotonic() - start < 2.0
        for server in rest:
            server.resume()
        eventually(lambda: reached(lambda: backend.get("cut-off/a")))
        assert backend.get("cut-off/b") is None


def denied(backend: EtcdBackend) -> bool:
    """Whether its server knows that it has no leader."""
    try:
        backend.get("a")
    except UnavailableError as error:
        return "no leader" in str(error)
    return False


# A server that does not answer.


@pytest.mark.slow
def test_nothing_hangs_on_a_server_that_does_not_answer(server: EtcdServer) -> None:
    """Every call ends in time with one of our errors; when the server goes on, so does the client."""
    with closing(EtcdBackend(server.hosts, timeout=0.5)) as backend:
        lease = backend.lease(60.0)
        create(backend, "a", b"1", lease)
        server.pause()
        for act in (
            lambda: backend.get("a"),
            lambda: backend.keys("a"),
            lambda: backend.commit([], [Update("a", b"2")]),
            lambda: backend.commit([], [Create("b", b"", lease)]),
            lambda: backend.lease(1.0),
            lease.renew,
            lease.revoke,
        ):
            start = SYSTEM_CLOCK.monotonic()
            with pytest.raises((UnavailableError, OutcomeUnknownError)):
                act()
            assert SYSTEM_CLOCK.monotonic() - start < 1.5
        backend.watch("a", Wakes())
        server.resume()
        assert eventually(lambda: reached(lease.renew)) is True
        eventually(lambda: reached(lambda: backend.get("a")))


def test_an_answer_lost_on_the_way_is_an_unknown_outcome(server: EtcdServer) -> None:
    """The commit was applied; the caller is told that nobody knows, reads, and sees it."""
    proxy = Proxy(server.port)
    with closing(proxy), closing(EtcdBackend(proxy.hosts, timeout=1.0)) as backend:
        create(backend, "a", b"old")
        proxy.swallow_answers(on=True)
        with pytest.raises(OutcomeUnknownError):
            backend.commit([], [Update("a", b"new")])
        proxy.swallow_answers(on=False)
        proxy.reset()
        entry = eventually(lambda: reached(lambda: backend.get("a")))
        assert entry is not None
        assert entry.value == b"new"


def test_a_commit_to_a_server_that_is_gone_is_not_sent(server: EtcdServer) -> None:
    """Once the connection is known to be broken nothing is sent until the server has answered again."""
    with closing(EtcdBackend(server.hosts)) as backend:
        create(backend, "a")
        server.kill()
        with pytest.raises((UnavailableError, OutcomeUnknownError)):
            backend.commit([], [Update("a", b"1")])
        for _ in range(3):
            with pytest.raises(UnavailableError):
                backend.commit([], [Update("a", b"2")])


@pytest.mark.parametrize("again", ["reconnected", "restarted"])
def test_a_watch_hears_what_it_missed(server: EtcdServer, again: str) -> None:
    """What changed while its connection was broken, or its server down, wakes it on return; what follows too."""
    proxy = Proxy(server.port)
    with (
        closing(proxy),
        closing(EtcdBackend(proxy.hosts)) as backend,
        closing(EtcdBackend(server.hosts)) as other,
    ):
        create(other, "a/1", b"old")
        wakes = Wakes()
        backend.watch("a", wakes)
        if again == "reconnected":
            proxy.cut()
            proxy.reset()
        else:
            server.restart()
        eventually(lambda: reached(lambda: other.commit([], [Update("a/1", b"missed")])))
        proxy.mend()
        wakes.since(0)
        before = wakes.count
        other.commit([], [Update("a/1", b"seen")])
        wakes.since(before)


def test_a_watch_that_missed_nothing_is_not_woken(server: EtcdServer) -> None:
    """After a reconnect it goes on behind the last change it was told of: others' changes are not its own."""
    proxy = Proxy(server.port)
    with closing(proxy), closing(EtcdBackend(proxy.hosts)) as backend, closing(EtcdBackend(server.hosts)) as other:
        create(other, "a/1")
        create(other, "b/1")
        backend.get("a/1")
        quiet, wakes = Wakes(), Wakes()
        backend.watch("a", quiet)
        backend.watch("b", wakes)
        other.commit([], [Update("a/1", b"told")])
        quiet.since(0)
        for number in range(3):
            before = wakes.count
            proxy.reset()
            other.commit([], [Update("b/1", str(number).encode())])
            wakes.since(before)
        assert quiet.count == 1


def test_a_watch_whose_past_is_forgotten_wakes_and_goes_on(server: EtcdServer) -> None:
    """Where etcd has compacted what it missed, it is woken to read again, and hears of what follows."""
    proxy = Proxy(server.port)
    with closing(proxy), closing(EtcdBackend(proxy.hosts)) as backend, closing(EtcdBackend(server.hosts)) as other:
        create(other, "a/1")
        create(other, "b/1")
        backend.get("a/1")
        wakes, still = Wakes(), Wakes()
        backend.watch("a", wakes)
        backend.watch("c", still)
        proxy.cut()
        proxy.reset()
        other.commit([], [Update("a/1", b"missed")])
        for number in range(10):
            other.commit([], [Update("b/1", str(number).encode())])
        latest = other.get("b/1")
        assert latest is not None
        server.ask("KV", "Compact", rpc.CompactionRequest(revision=int(latest.version)))
        proxy.mend()
        wakes.since(0)
        still.since(0)
        before = wakes.count, still.count
        other.commit([], [Update("a/1", b"seen"), Create("c/1", b"")])
        wakes.since(before[0])
        still.since(before[1])


def test_a_watch_armed_while_nothing_is_known_wakes_once_it_is(server: EtcdServer) -> None:
    """Before the first connection there is no state to begin after: whatever was missed is made up for by a call."""
    proxy = Proxy(server.port)
    with closing(proxy), closing(EtcdBackend(proxy.hosts)) as backend, closing(EtcdBackend(server.hosts)) as other:
        proxy.cut()
        wakes = Wakes()
        backend.watch("a", wakes)
        create(other, "a/1")
        proxy.mend()
        wakes.since(0)
        before = wakes.count
        create(other, "a/2")
        wakes.since(before)


def test_a_call_that_has_ended_is_let_go_of_at_once(server: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to the garbage collector, gRPC's takes a lock at Python's end, for ever if a thread was stopped with it."""
    calls: list[weakref.ref[Any]] = []
    opened = Watches._open  # pyright: ignore[reportPrivateUsage]

    def noted(self: Watches, stream: Any) -> None:
        opened(self, stream)
        calls.append(weakref.ref(stream.call))

    monkeypatch.setattr(Watches, "_open", noted)
    gc.disable()
    try:
        with closing(EtcdBackend(server.hosts, timeout=1.0)) as backend:
            backend.watch("a", Wakes())
            eventually(lambda: calls)
            server.restart()
            eventually(lambda: len(calls) > 1)
        assert [call() for call in calls] == [None] * len(calls)
    finally:
        gc.enable()


def test_a_watch_is_not_woken_for_what_lies_deeper(connect: Callable[..., EtcdBackend]) -> None:
    """Nor by siblings whose names begin alike; one without values not by them."""
    backend, other = connect(), connect()
    create(other, "a/1")
    backend.get("a/1")
    wakes, last = Wakes(), Wakes()
    backend.watch("a", wakes, values=False)
    backend.watch("z", last)
    create(other, "a/deep/1")
    create(other, "a-b/1")
    create(other, "a.b")
    other.commit([], [Update("a/1", b"new")])
    create(other, "z")
    last.since(0)
    assert wakes.count == 0


def test_closed_watches_leave_nothing_on_the_server(server: EtcdServer) -> None:
    """Whether they were armed by then or not."""
    with closing(EtcdBackend(server.hosts)) as backend:
        create(backend, "a/0")
        backend.watch("a", Wakes())
        for number in range(20):
            backend.watch(f"a/{number}", Wakes()).close()
        eventually(lambda: watchers(server) == 1)


def watchers(server: EtcdServer) -> int:
    """How many watches it knows."""
    with socket.create_connection(("127.0.0.1", server.port), 5.0) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    return int(float(text.partition("\netcd_debugging_mvcc_watcher_total ")[2].split()[0]))


def test_an_unreachable_server_is_named_in_time() -> None:
    """Who was asked, what came of it, and what to check; no secret."""
    port = free_port()
    with closing(EtcdBackend(f"127.0.0.1:{port}", timeout=0.5, username="me", password=SECRET)) as backend:
        start = SYSTEM_CLOCK.monotonic()
        with pytest.raises(UnavailableError, match=rf"127\.0\.0\.1:{port} .*refused.*check") as caught:
            backend.get("a")
        assert SYSTEM_CLOCK.monotonic() - start < 1.5
        assert SECRET not in str(caught.value)


class Said(grpc.RpcError):
    """An error as gRPC has it."""

    def __init__(self, code: str, details: str) -> None:
        self._code, self._details = getattr(grpc.StatusCode, code), details

    def code(self) -> Any:
        """As gRPC's."""
        return self._code

    def details(self) -> str:
        """As gRPC's."""
        return self._details


@pytest.mark.parametrize(
    ("code", "details", "meaning"),
    [
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", UnavailableError),
        ("RESOURCE_EXHAUSTED", "etcdserver: too many requests", UnavailableError),
        ("UNAVAILABLE", "etcdserver: no leader", UnavailableError),
        ("UNAVAILABLE", "failed to connect to all addresses; last error: ...", UnavailableError),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", UnavailableError),
        ("NOT_FOUND", "etcdserver: requested lease not found", LeaseLostError),
        ("PERMISSION_DENIED", "etcdserver: permission denied", AccessDeniedError),
        ("UNAVAILABLE", "etcdserver: request timed out", OutcomeUnknownError),
        ("UNAVAILABLE", "etcdserver: leader changed", OutcomeUnknownError),
        ("UNAVAILABLE", "Socket closed", OutcomeUnknownError),
        ("RESOURCE_EXHAUSTED", "Received message larger than max", OutcomeUnknownError),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", OutcomeUnknownError),
        ("CANCELLED", "Channel closed!", OutcomeUnknownError),
        ("INTERNAL", "", OutcomeUnknownError),
    ],
)
def test_what_an_error_means_to_a_commit(code: str, details: str, meaning: type[Exception]) -> None:
    """Only what etcd refuses, and what never left, is certain; of all else nobody knows what became."""
    assert type(translate_error(Said(code, details), "h", OutcomeUnknownError)) is meaning


def test_a_host_that_does_not_exist_is_named() -> None:
    """A name that does not resolve is told from a server that is down."""
    with (
        closing(EtcdBackend("no-such-host.invalid:2379", timeout=2.0)) as backend,
        pytest.raises(UnavailableError, match=r"no-such-host\.invalid"),
    ):
        backend.get("a")


def test_one_silent_server_does_not_use_up_the_time_for_the_others(etcd_server: EtcdServer) -> None:
    """A server that accepts and says nothing is left for the next within its share of the time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{silent.getsockname()[1]},{etcd_server.hosts}"
        for _ in range(6):  # In whichever order they are tried.
            with closing(EtcdBackend(hosts, timeout=1.0)) as backend:
                assert backend.get("a") is None


def test_a_server_that_falls_silent_is_left_for_another(server: EtcdServer) -> None:
    """After one call without an answer the next one goes elsewhere, and watches move with it."""
    proxies = [Proxy(server.port), Proxy(server.port)]
    hosts = ",".join(proxy.hosts for proxy in proxies)
    with (
        closing(proxies[0]),
        closing(proxies[1]),
        closing(EtcdBackend(hosts, timeout=2.0)) as backend,
        closing(EtcdBackend(server.hosts)) as other,
    ):
        create(other, "a")
        backend.get("a")
        wakes = Wakes()
        backend.watch("a", wakes)
        for silent in proxies:  # One of them is the one in use, and then the other is.
            silent.cut()
            assert eventually(lambda: reached(lambda: backend.get("a")))
            before = wakes.count
            other.commit([], [Update("a", b"")])
            wakes.since(before)
            silent.mend()


def test_a_server_that_is_killed_is_left_for_another(etcd_server: EtcdServer, server: EtcdServer) -> None:
    """A read goes on to the next one within the same call."""
    for _ in range(3):  # In whichever order they are tried.
        with closing(EtcdBackend(f"{server.hosts},{etcd_server.hosts}")) as backend:
            backend.get("a")
            server.kill()
            assert backend.get("a") is None
            server.start()


# What a commit may hold.


@pytest.mark.parametrize("length", [3, 400], ids=["short names", "long names"])
def test_the_largest_commit_is_one_that_the_server_takes(backend: EtcdBackend, length: int) -> None:
    """However its bytes are spread over names, values and operations, each key in a new directory, on a lease."""
    lease = backend.lease(10.0)
    promised = backend.guarantees
    names = [f"a/{number:0{length}}/b" for number in range(promised.most_operations)]
    changes = [Create(name, b"", lease) for name in names]
    room = promised.largest_commit - commit_size([], changes).bytes
    changes[0] = Create(changes[0].key, b"x" * min(room, promised.largest_value), lease)
    assert isinstance(backend.commit([], changes), Committed)
    assert len(backend.keys("a")) == len(changes)


def test_keys_in_more_directories_than_can_be_compared(backend: EtcdBackend) -> None:
    """They are made all the same."""
    names = [f"{number}/b/c/d/e" for number in range(backend.guarantees.most_operations)]
    assert isinstance(backend.commit([], [Create(name, b"") for name in names]), Committed)
    assert None not in backend.get_many(names)


def test_many_keys_are_read_with_few_requests(backend: EtcdBackend) -> None:
    """More than one transaction holds, in order."""
    names = [f"a/{number:03}" for number in range(300)]
    for start in range(0, 300, 60):
        backend.commit([], [Create(name, name.encode()) for name in names[start : start + 60]])
    found = backend.get_many([*reversed(names), "none"])
    assert [entry and entry.value.decode() for entry in found] == [*reversed(names), None]


@pytest.mark.parametrize("version", ["", "x", "9223372036854775808"])
def test_a_version_that_is_none_of_etcds_is_a_value_error(backend: EtcdBackend, version: str) -> None:
    """Nothing is sent."""
    create(backend, "a")
    with pytest.raises(ValueError, match=r"."):
        backend.commit([], [Update("a", b"", version)])


def test_no_version_stands_for_an_absent_key(backend: EtcdBackend) -> None:
    """Revision 0 is what etcd compares a key with that is not there."""
    create(backend, "b")
    for version in ("0", "-1"):
        assert backend.commit([AtVersion("a", version)], [Update("b", b"")]) == Refused("a")


def test_a_commit_whose_obstacle_goes_before_it_is_looked_at_is_made(
    backend: EtcdBackend, connect: Callable[..., EtcdBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was refused, nobody can say any more by what, and nothing is in its way."""
    other = connect()
    create(other, "a")
    call, sent = Connection.call, list[Any]()

    def quicker(self: Connection, method: str, request: Any, *rest: Any) -> Any:
        sent.append(request)
        if len(sent) == 2:  # This one asks why; its own is the third.
            other.commit([], [Delete("a")])
        return call(self, method, request, *rest)

    monkeypatch.setattr(Connection, "call", quicker)
    outcome, entries = backend.commit_and_list([], [Create("a", b"made"), Create("d/1", b"")], "d")
    assert isinstance(outcome, Committed)
    assert [entry.key for entry in entries] == ["d/1"]
    assert sent[0] == sent[3]


# Directories.


def test_a_directory_is_no_key_to_any_commit(backend: EtcdBackend) -> None:
    """It cannot be found, updated, deleted or made; nor can a key be made a directory."""
    create(backend, "a/1")
    create(backend, "k")
    assert backend.commit([Exists("a")], [Create("b", b"")]) == Refused("a")
    assert backend.commit([AtVersion("a", "1")], [Create("b", b"")]) == Refused("a")
    assert backend.commit([], [Update("a", b"")]) == Refused("a")
    with pytest.raises(ValueError, match="'a' is a directory"):
        backend.commit([], [Create("a", b"")])
    with pytest.raises(ValueError, match="'k' holds bytes"):
        backend.commit([], [Create("k/1/2", b"")])
    with pytest.raises(ValueError, match="'n' cannot hold bytes and"):
        backend.commit([], [Create("n", b""), Create("n/1", b"")])
    assert backend.keys("a") == ["a/1"]
    assert backend.get_many(["a", "b", "k/1/2", "n"]) == [None, None, None, None]


def test_of_a_key_and_a_directory_of_one_name_one_is_made(connect: Callable[..., EtcdBackend]) -> None:
    """However closely the two creations follow each other."""
    clients = connect(), connect()

    def make(client: EtcdBackend, key: str) -> bool:
        try:
            return isinstance(client.commit([], [Create(key, b"")]), Committed)
        except ValueError:
            return False

    with ThreadPoolExecutor() as pool:
        for number in range(30):
            made = [
                pool.submit(make, client, f"{number}{more}") for client, more in zip(clients, ("", "/x"), strict=True)
            ]
            assert sorted(each.result() for each in made) == [False, True]


def test_what_others_have_put_there_is_passed_over(etcd_server: EtcdServer, backend: EtcdBackend) -> None:
    """Keys that are none of ours, in our namespace, are neither listed nor in the way."""
    create(backend, "a/1", b"ours")
    namespace = backend.url.partition("=")[2]
    for key in (b"a/x", b"a/\xff/", b"a//", b"a", b"/", b"a/ b/c/"):
        etcd_server.ask("KV", "Put", rpc.PutRequest(key=f"{namespace}/".encode() + key, value=b"theirs"))
    assert backend.keys("a") == ["a/1"]
    assert [entry.value for entry in backend.list("a")] == [b"ours"]
    assert isinstance(backend.commit([], [Create("a/2", b"")]), Committed)


def test_a_listing_steps_over_what_lies_deep(backend: EtcdBackend) -> None:
    """However much there is, and whatever the names beside it."""
    for start in range(0, 1200, 60):
        backend.commit([], [Create(f"a/deep/{start + number:04}", b"") for number in range(60)])
    for name in ("deep-", "deep.", "deep0", "deeper", "z"):
        create(backend, f"a/{name}")
    assert backend.keys("a") == ["a/deep", "a/deep-", "a/deep.", "a/deep0", "a/deeper", "a/z"]
    assert [entry.key for entry in backend.list("a")] == ["a/deep-", "a/deep.", "a/deep0", "a/deeper", "a/z"]
    assert len(backend.list("a/deep")) == 1200


# Who may do what.


@pytest.fixture(scope="module")
def guarded() -> Iterator[EtcdServer]:
    """A server that knows two users, each with keys of its own, and whose tokens are soon forgotten."""
    with EtcdServer(QUICK | {"auth-token-ttl": 1, "bcrypt-cost": 4}) as own:
        own.demand_passwords("root's", {"me": ("mine/", SECRET), "you": ("yours/", "guessed")})
        yield own


def mine(server: EtcdServer, **options: Any) -> EtcdBackend:
    """A client for what is mine."""
    return EtcdBackend(server.hosts, namespace="mine", **options)


WRONG = [{}, {"username": "me", "password": "guessed"}, {"username": "you", "password": "guessed"},
         {"username": "nobody", "password": SECRET}]  # fmt: skip


@pytest.mark.parametrize("credentials", WRONG, ids=["none", "wrong password", "another user", "unknown user"])
def test_credentials_keep_others_out(guarded: EtcdServer, credentials: dict[str, str]) -> None:
    """Whoever may not is told so, for whatever it tries, and no message tells secrets."""
    with closing(mine(guarded, **credentials)) as intruder:
        for act in (
            lambda: intruder.get("a/1"),
            lambda: intruder.keys("a"),
            lambda: intruder.list("a"),
            lambda: intruder.commit([], [Create("a/3", b"")]),
            lambda: intruder.commit([Exists("a/1")], [Update("a/2", b"")]),
            lambda: intruder.lease(1.0),
        ):
            with pytest.raises(AccessDeniedError, match=r"password|permi|may not") as caught:
                act()
            assert SECRET not in str(caught.value)
            assert "guessed" not in str(caught.value)


def test_who_may_not_write_any_more_cannot_renew_a_lease(guarded: EtcdServer) -> None:
    """So a member that could not take over is none before long."""
    with closing(mine(guarded, username="me", password=SECRET)) as backend:
        lease = backend.lease(2.0)
        backend.commit([], [Create("lease/1", b"", lease)])
        assert lease.renew()
        guarded.permit("me", "root's", allowed=False)
        try:
            with pytest.raises(AccessDeniedError):
                lease.renew()
        finally:
            guarded.permit("me", "root's", allowed=True)
        lease.revoke()


def test_a_group_without_credentials_is_refused(guarded: EtcdServer) -> None:
    """A member is told what is missing, at once; with credentials it joins."""

    def handler(task: Task, context: TaskContext) -> object:
        return None

    with closing(mine(guarded)) as backend, pytest.raises(AccessDeniedError, match="requires credentials"):
        ClusterCrawler(backend=backend, runner=1, backup=0, handler=handler)
    with closing(mine(guarded, username="me", password=SECRET)) as backend:
        crawler = ClusterCrawler(backend=backend, runner=1, backup=0, handler=handler)
        assert crawler.role == "runner"
        crawler.stop()


def test_credentials_where_nobody_asks_are_a_mistake(backend: EtcdBackend, etcd_server: EtcdServer) -> None:
    """A server that knows no users protects nothing: better to be told."""
    with (
        closing(EtcdBackend(etcd_server.hosts, username="me", password=SECRET)) as mistaken,
        pytest.raises(AccessDeniedError, match="leave out"),
    ):
        mistaken.get("a")


@pytest.mark.slow
def test_a_token_that_has_expired_is_replaced(guarded: EtcdServer) -> None:
    """Calls notice and ask for another; a watch that outlives its token hears on, over a reconnect, too."""
    proxy = Proxy(guarded.port)
    with (
        closing(proxy),
        closing(EtcdBackend(proxy.hosts, namespace="mine", username="me", password=SECRET)) as backend,
        closing(mine(guarded, username="me", password=SECRET)) as other,
    ):
        lease = backend.lease(60.0)
        create(backend, "expiry/a")
        wakes = Wakes()
        backend.watch("expiry", wakes)
        for step in range(3):
            SYSTEM_CLOCK.sleep(2.5)  # There is no other way to let a token expire.
            before = wakes.count
            if step == 1:
                proxy.reset()
            other.commit([], [Update("expiry/a", str(step).encode())])
            wakes.since(before)
            assert eventually(lambda: reached(lambda: backend.get("expiry/a"))) is not None
            assert lease.renew()


@pytest.mark.slow
def test_a_watch_alone_notices_that_its_token_has_expired(guarded: EtcdServer) -> None:
    """One that is added to a stream begun with a token that is good no longer hears all the same, and so do others."""
    with (
        closing(mine(guarded, username="me", password=SECRET)) as backend,
        closing(mine(guarded, username="me", password=SECRET)) as other,
    ):
        create(backend, "alone/a")
        wakes, later = Wakes(), Wakes()
        backend.watch("alone", wakes)
        SYSTEM_CLOCK.sleep(2.5)  # There is no other way to let a token expire.
        backend.watch("alone/b", later)
        for watching in (wakes, later):
            before = watching.count
            other.commit([], [Update("alone/a", b"")])
            if watching is later:
                create(other, "alone/b")
            watching.since(before)


def test_tokens_that_a_restart_forgets_are_replaced(guarded: EtcdServer) -> None:
    """They are kept in memory by etcd: reads, commits, leases and watches live through the loss of them."""
    with (
        closing(mine(guarded, username="me", password=SECRET)) as backend,
        closing(mine(guarded, username="me", password=SECRET)) as other,
    ):
        lease = backend.lease(60.0)
        create(backend, "restart/a", b"", lease)
        wakes = Wakes()
        backend.watch("restart", wakes)
        guarded.restart()
        eventually(lambda: reached(lambda: isinstance(other.commit([], [Update("restart/a", b"new")]), Committed)))
        wakes.since(0)
        assert eventually(lambda: reached(lease.renew)) is True


def test_credentials_are_not_logged(guarded: EtcdServer, caplog: pytest.LogCaptureFixture) -> None:
    """Not at any level, nor shown by what can be printed."""
    caplog.set_level(logging.NOTSET)
    with closing(mine(guarded, username="me", password=SECRET)) as owner:
        create(owner, "logged/a")
        inside = [vars(part) for part in vars(owner).values() if isinstance(part, Connection)]
        assert inside
        assert SECRET not in f"{caplog.text} {owner!r} {owner.url} {vars(owner)!r} {inside!r}"


# TLS.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make_certificates` names them."""
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def tls_server(certificates: Path) -> Iterator[EtcdServer]:
    """A server that speaks TLS and wants a client's certificate."""
    files = {"cert-file": "server.pem", "key-file": "server.key", "trusted-ca-file": "ca.pem", "authority": "ca.pem"}
    tls = {name: certificates / file for name, file in files.items()}
    with EtcdServer(QUICK | {"client-cert-auth": "true"}, tls=tls) as server:
        yield server


def test_tls_with_a_clients_certificate(tls_server: EtcdServer, certificates: Path) -> None:
    """Everything works over TLS, large answers too."""
    with closing(EtcdBackend(tls_server.hosts, **own_files(certificates))) as backend:
        for start in range(0, 300, 60):
            backend.commit([], [Create(f"a/{start + number}", b"x" * 3000) for number in range(60)])
        wakes = Wakes()
        backend.watch("a", wakes)
        lease = backend.lease(10.0)
        create(backend, "a/leased", b"", lease)
        wakes.since(0)
        assert len(backend.list("a")) == 301
        lease.revoke()
        assert backend.get("a/leased") is None


def own_files(folder: Path, ca: str | None = "ca.pem", name: str | None = "client") -> dict[str, Any]:
    """The options that lead to *folder*'s files."""
    files = {"ca": ca} if name is None else {"ca": ca, "certfile": f"{name}.pem", "keyfile": f"{name}.key"}
    return {option: str(folder / file) for option, file in files.items() if file}


@pytest.mark.parametrize(
    ("options", "host", "said"),
    [
        ({"ca": "other-ca.pem"}, "127.0.0.1", "CERTIFICATE_VERIFY_FAILED"),
        ({"ca": None}, "127.0.0.1", "CERTIFICATE_VERIFY_FAILED"),
        ({}, "localhost", "ostname"),
        ({"name": None}, "127.0.0.1", "(?i)unwrap|handshake|alert|closed|reset"),
        ({"name": "other-ca"}, "127.0.0.1", "(?i)unwrap|handshake|alert|closed|reset"),
    ],
    ids=["unknown authority", "grpc's authorities", "another name", "no certificate", "a stranger's certificate"],
)
def test_tls_that_does_not_agree(
    tls_server: EtcdServer, certificates: Path, options: dict[str, Any], host: str, said: str
) -> None:
    """A server that cannot prove who it is, or to whom we cannot, is not spoken to; the error says so."""
    hosts = tls_server.hosts.replace("127.0.0.1", host)
    with (
        closing(EtcdBackend(hosts, timeout=1.0, **own_files(certificates, **options))) as backend,
        pytest.raises(UnavailableError, match=said) as caught,
    ):
        backend.get("a")
    assert f"{hosts} (TLS)" in str(caught.value)


def test_tls_and_plain_do_not_mix(tls_server: EtcdServer, etcd_server: EtcdServer, certificates: Path) -> None:
    """The error says which of the two was spoken, in time."""
    with (
        closing(EtcdBackend(tls_server.hosts, timeout=1.0)) as plain,
        pytest.raises(UnavailableError, match="plain TCP, not TLS"),
    ):
        plain.get("a")
    with (
        closing(EtcdBackend(etcd_server.hosts, timeout=1.0, ca=str(certificates / "ca.pem"))) as tls,
        pytest.raises(UnavailableError, match=r"\(TLS\)"),
    ):
        tls.get("a")


# Addresses and closing.


def test_the_url_leads_back(etcd_server: EtcdServer) -> None:
    """Namespace and all."""
    namespace = f"test-{secrets.token_hex(8)}/deep"
    with closing(EtcdBackend(etcd_server.hosts, namespace=namespace)) as backend:
        create(backend, "a/1")
        assert backend.url == f"etcd://{etcd_server.hosts}?namespace={namespace}"
        with closing(EtcdBackend.from_url(backend.url)) as again:
            assert again.keys("a") == ["a/1"]
        kept = etcd_server.ask("KV", "Range", rpc.RangeRequest(key=f"{namespace}/a/1/".encode()))
        assert len(kept.kvs) == 1


def test_ports_and_addresses_are_understood() -> None:
    """A port may be left out; an address may be one of IPv6."""
    with closing(EtcdBackend("one, two:1,[::1]:2,[::2]")) as backend:
        assert backend.url == "etcd://one:2379,two:1,[::1]:2,[::2]:2379"


@pytest.mark.parametrize(
    ("hosts", "options"),
    [
        ("", {}),
        ("h:port", {}),
        ("h:2379/a", {}),
        (f"me:{SECRET}@h:2379", {}),
        ("h", {"namespace": ""}),
        ("h", {"namespace": "a b"}),
        ("etcd://h", {}),
        ("h", {"username": "me"}),
        ("h", {"timeout": 0.0}),
        ("h", {"ca": "/no/such/file"}),
        ("h", {"certfile": __file__}),
    ],
)
def test_wrong_settings_are_said_at_once(hosts: str, options: dict[str, object]) -> None:
    """Before anything is connected, and without showing a password."""
    with pytest.raises(UsageError) as caught:
        EtcdBackend(hosts, **options)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["etc://h", "etcd://h?tick=1", "etcd://h/path", f"etcd://me:{SECRET}@h", "h:2379"])
def test_wrong_urls_are_said_at_once(url: str) -> None:
    """As settings are."""
    with pytest.raises(UsageError) as caught:
        EtcdBackend.from_url(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("state", ["connected", "never connected", "cut off", "silent"])
def test_closing_leaves_no_thread(server: EtcdServer, state: str) -> None:
    """Whatever it was doing, and soon."""
    before = set(threading.enumerate())
    hosts = f"127.0.0.1:{free_port()}" if state == "never connected" else server.hosts
    backend = EtcdBackend(hosts, timeout=5.0)
    backend.watch("a", Wakes())
    if state != "never connected":
        backend.lease(60.0)
        backend.watch("b", Wakes())
        backend.lease(10.0).revoke()
    if state == "cut off":
        server.kill()
    if state == "silent":
        server.pause()
    start = SYSTEM_CLOCK.monotonic()
    backend.close()
    backend.close()
    assert SYSTEM_CLOCK.monotonic() - start < 2.0
    eventually(lambda: set(threading.enumerate()) <= before)
    with pytest.raises(UnavailableError):
        backend.watch("a", Wakes())
    del backend
    gc.collect()  # Sockets left open would be warnings here, and warnings are errors.


def test_closing_revokes_nothing(connect: Callable[..., EtcdBackend]) -> None:
    """Leases that were not given back run out: their keys are there after the client has closed."""
    backend, other = connect(), connect()
    create(backend, "a", b"", backend.lease(10.0))
    backend.close()
    assert other.get("a") is not None


def test_closing_frees_who_waits(server: EtcdServer) -> None:
    """A call under way ends with one of our errors, long before its time."""
    with ThreadPoolExecutor() as pool:
        backend = EtcdBackend(server.hosts, timeout=60.0)
        create(backend, "a")
        server.pause()
        waiting = pool.submit(backend.commit, [], [Update("a", b"")])
        eventually(lambda: unread(server))
        backend.close()
        with pytest.raises((UnavailableError, OutcomeUnknownError)):
            waiting.result(10.0)
