"""The ZooKeeper backend on real servers: the contract, and what only ZooKeeper does."""

# pyright: reportPrivateUsage=false

import gc
import re
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import Mock

import pytest
from certificates import make_certificates
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test  # pyright: ignore[reportUnknownVariableType]
from kazoo.client import KazooClient
from proxy import Proxy
from servers import free_port
from smoothcluster_zookeeper import ZookeeperBackend
from smoothcluster_zookeeper.driver import Driver, Pending
from smoothcluster_zookeeper.kazoo_handler import Handler
from smoothcluster_zookeeper.lease import SessionLease
from smoothcluster_zookeeper.session import Session
from zookeeper_server import ZookeeperEnsemble, ZookeeperServer

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
from smoothcluster.errors import (
    AccessDeniedError,
    BackendClosedError,
    BackendError,
    LeaseLostError,
    OutcomeUnknownError,
    UnavailableError,
    UsageError,
)
from smoothcluster.testing import Ability, BackendConformance, Faulty, backend_machine, eventually
from smoothcluster.testing.conformance.connection import ConnectionRules
from smoothcluster.testing.conformance.kit import Wakes, create, delete, refused

LONG_LEASES = {"tickTime": 100, "minSessionTimeout": 200, "maxSessionTimeout": 60_000}
SECRET = "open sesame"

Answer = TypeVar("Answer")


@contextmanager
def somebody(hosts: str, **options: Any) -> Generator[Any]:
    """A plain kazoo client."""
    kazoo: Any = KazooClient(hosts, **options)  # type: ignore[no-untyped-call]  # kazoo has no types
    kazoo.start()
    try:
        yield kazoo
    finally:
        kazoo.stop()
        kazoo.close()


def end_session(session: Session, hosts: str) -> None:
    """Have the servers end a session as an expiry does: somebody with its id and password closes it."""
    with somebody(hosts, client_id=(session.id, session.kazoo.password)):
        pass


def expire(lease: Lease, hosts: str) -> None:
    """End a lease's session and wait until its holder has noticed: until then it may raise OutcomeUnknownError."""
    session = session_of(lease)
    end_session(session, hosts)
    eventually(lambda: session.lost)


def reached(act: Callable[[], Answer]) -> Answer | None:
    """What *act* returns; None if the servers could not be asked or did not answer."""
    try:
        return act()
    except (OutcomeUnknownError, UnavailableError):
        return None


def reached_at_last(act: Callable[[], Answer]) -> Answer:
    """What *act* returns once it reaches the store."""
    answers: list[Answer] = []

    def try_once() -> bool:
        with suppress(BackendError):
            answers.append(act())
        return bool(answers)

    eventually(try_once, 60.0)
    return answers[0]


def session_of(owner: Lease | ZookeeperBackend) -> Session:
    """The session of a lease, or the one a backend reads through."""
    session = owner.session if isinstance(owner, SessionLease) else owner._connection.session  # type: ignore[union-attr]
    assert isinstance(session, Session)
    return session


class TestZookeeper(BackendConformance):
    """A server with short ticks that all tests share, each in a namespace of its own."""

    @pytest.fixture(autouse=True)
    def _server(self, zookeeper_hosts: str) -> None:
        self.hosts = zookeeper_hosts
        self.namespace = f"test-{secrets.token_hex(8)}"

    def connect(self) -> CoordinationBackend:
        """A client that can tell what the server grants."""
        client = ZookeeperBackend(self.hosts, namespace=self.namespace)
        client.sync()
        return client

    def expire(self, lease: Lease) -> None:
        """Take it away before its time."""
        expire(lease, self.hosts)


@pytest.fixture(scope="module")
def outage_server() -> Iterator[ZookeeperServer]:
    """A server that tests restart, kill and pause, one after another."""
    with ZookeeperServer(settings=LONG_LEASES) as server:
        yield server


class TestZookeeperOutages(ConnectionRules):
    """The rules for outages, on a server that can be restarted, through connections that can be cut."""

    abilities = frozenset({Ability.CUT, Ability.RESTART})

    server: ZookeeperServer

    @pytest.fixture(autouse=True)
    def _proxies(self, outage_server: ZookeeperServer) -> Iterator[None]:
        self.server = outage_server
        self.proxies: dict[CoordinationBackend, Proxy] = {}
        yield
        for proxy in self.proxies.values():
            proxy.close()

    def connect(self) -> CoordinationBackend:
        """A client with a proxy of its own."""
        proxy = Proxy(self.server.port)
        client = ZookeeperBackend(proxy.hosts, timeout=1.0)
        self.proxies[client] = proxy
        return client

    def expire(self, lease: Lease) -> None:
        """Take it away before its time."""
        end_session(session_of(lease), self.server.hosts)

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
def test_random_moves(zookeeper_hosts: str, expiring: bool) -> None:
    """Whatever two clients do, the store holds what a dict would, and wakes whom it should."""
    machine = backend_machine(
        lambda: ZookeeperBackend(zookeeper_hosts, namespace="test-machine"),
        (lambda lease: expire(lease, zookeeper_hosts)) if expiring else None,
    )
    run_state_machine_as_test(
        machine,
        settings=settings(
            deadline=None, max_examples=12, stateful_step_count=25, suppress_health_check=[HealthCheck.too_slow]
        ),
    )


@pytest.fixture
def connect(zookeeper_hosts: str) -> Iterator[Callable[..., ZookeeperBackend]]:
    """Makes clients of the shared server, in one namespace of this test, and closes them."""
    namespace = f"test-{secrets.token_hex(8)}"
    clients: list[ZookeeperBackend] = []

    def make(hosts: str = zookeeper_hosts, **options: object) -> ZookeeperBackend:
        clients.append(ZookeeperBackend(hosts, **{"namespace": namespace, **options}))  # type: ignore[arg-type]
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def backend(connect: Callable[..., ZookeeperBackend]) -> ZookeeperBackend:
    """A client of the shared server."""
    return connect()


@pytest.fixture
def server(outage_server: ZookeeperServer) -> ZookeeperServer:
    """A server that the test may kill, restart or pause. It serves, whatever tests before have done to it."""
    if outage_server.runs:
        outage_server.resume()
    else:
        outage_server.start()
    return outage_server


@pytest.fixture
def quiet_server() -> Iterator[ZookeeperServer]:
    """A server without sessions, watches and commits of others."""
    with ZookeeperServer(settings=LONG_LEASES) as own:
        yield own


# Sessions.


def test_no_key_is_ever_born_on_a_session_after_the_lease(
    zookeeper_hosts: str, connect: Callable[..., ZookeeperBackend]
) -> None:
    """Whoever goes on committing while its session expires is told, and leaves nothing that lives on."""
    backend, other = connect(), connect()

    def commit_until_lost(lease: Lease, directory: str) -> None:
        for number in range(100_000):
            with suppress(OutcomeUnknownError, UnavailableError):
                backend.commit([], [Create(f"{directory}/{number}", b"", lease)])

    for number in range(10):
        lease = backend.lease(10.0)
        end = threading.Thread(target=end_session, args=(session_of(lease), zookeeper_hosts))
        end.start()
        with pytest.raises(LeaseLostError):
            commit_until_lost(lease, f"{number}")
        end.join()
        other.sync()
        assert other.list(f"{number}") == []


def test_a_lease_is_not_revived_by_a_znode_made_again(
    zookeeper_hosts: str, connect: Callable[..., ZookeeperBackend]
) -> None:
    """The znode that stands for a lease means nothing without its session, whoever makes it again."""
    backend = connect()
    lease = backend.lease(10.0)
    assert isinstance(lease, SessionLease)
    end_session(lease.session, zookeeper_hosts)
    with somebody(zookeeper_hosts) as kazoo:
        eventually(lambda: not kazoo.exists(lease.znode))
        kazoo.create(lease.znode, b"")
        with pytest.raises(LeaseLostError):
            eventually(lambda: reached(lambda: backend.commit([], [Create("a", b"", lease)])))
        assert lease.renew() is False
        kazoo.delete(lease.znode)
    assert backend.get("a") is None


def test_without_its_znode_a_lease_is_lost(zookeeper_hosts: str, connect: Callable[..., ZookeeperBackend]) -> None:
    """Somebody who deletes it ends the lease: a commit applies nothing, and the lease's keys go with its session."""
    backend = connect()
    lease = backend.lease(10.0)
    assert isinstance(lease, SessionLease)
    create(backend, "a", b"", lease)
    with somebody(zookeeper_hosts) as kazoo:
        kazoo.delete(lease.znode)
    with pytest.raises(LeaseLostError):
        backend.commit([], [Create("b", b"", lease), Create("c", b"")])
    assert lease.renew() is False
    assert backend.get_many(["b", "c"]) == [None, None]


def test_reading_goes_on_after_the_main_session_expired(
    zookeeper_hosts: str, connect: Callable[..., ZookeeperBackend]
) -> None:
    """The session for reads is replaced by a new one, on which watches are armed again, and woken."""
    backend, other = connect(), connect()
    create(other, "a/1", b"old")
    wakes = Wakes()
    backend.watch("a", wakes)
    first = session_of(backend)
    end_session(first, zookeeper_hosts)
    other.commit([], [Update("a/1", b"missed")])
    wakes.since(0)
    eventually(lambda: reached(lambda: session_of(backend) is not first and backend.get("a/1")))
    backend.sync()
    before = wakes.count
    other.commit([], [Update("a/1", b"seen")])
    wakes.since(before)
    assert session_of(backend) is not first


def test_a_directorys_watch_hears_of_every_new_value_of_its_keys(connect: Callable[..., ZookeeperBackend]) -> None:
    """Of the same key again and again, of one that was deleted and made again, and of a new one."""
    backend, other = connect(), connect()
    create(other, "a/1")
    wakes = Wakes()
    backend.watch("a", wakes)
    acts: list[Callable[[], object]] = [
        lambda: other.commit([], [Update("a/1", b"new")]),
        lambda: other.commit([], [Update("a/1", b"newer")]),
        lambda: delete(other, "a/1"),
        lambda: create(other, "a/1"),
        lambda: other.commit([], [Update("a/1", b"again")]),
        lambda: create(other, "a/2"),
        lambda: other.commit([], [Update("a/2", b"new")]),
    ]
    for act in acts:
        backend.sync()
        settled(wakes)
        before = wakes.count
        act()
        wakes.since(before)


def settled(wakes: Wakes) -> None:
    """Wait until no further call comes for a while."""

    def quiet() -> bool:
        before = wakes.count
        SYSTEM_CLOCK.sleep(0.05)
        return wakes.count == before

    eventually(quiet)


def test_own_leased_commits_are_seen_by_own_reads(backend: ZookeeperBackend) -> None:
    """They go through another session than reads do, which catches up first."""
    lease = backend.lease(10.0)
    for number in range(50):
        create(backend, f"a/{number}", b"", lease)
        assert backend.get(f"a/{number}") is not None


def test_a_lease_outlives_a_restart_of_the_server(
    server: ZookeeperServer, connect: Callable[..., ZookeeperBackend]
) -> None:
    """Sessions are kept by the servers: a crash that is over in time loses neither lease nor keys."""
    with closing(connect(server.hosts)) as backend:
        lease = backend.lease(20.0)
        create(backend, "a", b"", lease)
        server.restart()
        assert eventually(lambda: reached(lease.renew)) is True
        entry = eventually(lambda: reached(lambda: backend.get("a")))
        assert isinstance(entry, Entry)
        assert entry.lease == lease.id


def test_a_lease_that_ran_out_while_the_server_was_away(
    server: ZookeeperServer, connect: Callable[..., ZookeeperBackend]
) -> None:
    """A lease that could not be renewed in time is lost for good, once the server can say so."""
    with closing(connect(server.hosts, timeout=0.5)) as backend:
        lease = backend.lease(0.5)
        create(backend, "a", b"", lease)
        server.kill()
        with pytest.raises((UnavailableError, OutcomeUnknownError)):
            lease.renew()
        server.start()
        eventually(lambda: reached(lambda: backend.get("a") is None))
        assert eventually(lambda: reached(lambda: [lease.renew()])) == [False]


@pytest.mark.slow
def test_a_renewal_is_one_write_if_made_in_time_and_two_if_late(
    backend: ZookeeperBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late one cannot count from the one before it, so it waits half a tick and makes certain."""
    lease = backend.lease(2.0)
    written: list[str] = []

    def write(driver: Driver, znode: str, value: bytes) -> Pending:
        written.append(znode)
        return original(driver, znode, value)

    original = Driver.set
    monkeypatch.setattr(Driver, "set", write)
    for _ in range(4):
        SYSTEM_CLOCK.sleep(lease.ttl / 3)
        assert lease.renew()
    assert lease.renew()
    assert len(written) == 5
    SYSTEM_CLOCK.sleep(lease.ttl / 2)
    assert lease.renew()
    assert len(written) == 7


# Several servers.


@pytest.fixture(scope="module")
def three_servers() -> Iterator[ZookeeperEnsemble]:
    """What `ensemble` is made of."""
    with ZookeeperEnsemble(tick_time=500) as servers:
        yield servers


@pytest.fixture
def ensemble(three_servers: ZookeeperEnsemble) -> ZookeeperEnsemble:
    """Three servers, all up, whatever tests have done to them before."""
    return three_servers.start()


@pytest.mark.slow
@pytest.mark.parametrize("pause", [1 / 3, 0.8], ids=["in time", "late"])
def test_a_renewed_lease_outlives_the_server_it_was_renewed_through(ensemble: ZookeeperEnsemble, pause: float) -> None:
    """Not the leader but another server heard of the renewal, and is lost at once: the time given still holds."""
    doomed = ensemble.followers[0]
    namespace = f"test-{pause}"
    with (
        closing(ZookeeperBackend(ensemble.leader.hosts, namespace=namespace)) as other,
        closing(ZookeeperBackend(doomed.hosts, namespace=namespace)) as backend,
    ):
        lease = backend.lease(4.0)
        create(backend, "a", b"", lease)
        before = SYSTEM_CLOCK.monotonic()
        for _ in range(2):
            SYSTEM_CLOCK.sleep(lease.ttl * pause)
            before = SYSTEM_CLOCK.monotonic()
            assert lease.renew() is True
        doomed.kill()
        eventually(lambda: other.get("a") is None)
        assert SYSTEM_CLOCK.monotonic() - before >= lease.ttl


@pytest.mark.slow
def test_what_was_acknowledged_survives_the_leader(ensemble: ZookeeperEnsemble) -> None:
    """The others elect one of them; leases, watches, own commits and what was read before are kept."""
    leader = ensemble.leader
    hosts = ",".join(server.hosts for server in (leader, *ensemble.followers))
    with (
        closing(ZookeeperBackend(hosts, namespace="test-leader")) as backend,
        closing(ZookeeperBackend(hosts, namespace="test-leader")) as other,
    ):
        lease = backend.lease(6.0)
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
def test_own_commits_are_seen_whichever_servers_they_go_through(ensemble: ZookeeperEnsemble) -> None:
    """A lease's session and the one for reads may be with different servers, one behind the other."""
    seen = 0
    for number in range(6):  # Servers are drawn by lot.
        with closing(ZookeeperBackend(ensemble.hosts, namespace="test-own", timeout=60.0)) as backend:
            lease = backend.lease(60.0)
            with suppress(OutcomeUnknownError):  # On a busy machine a server may drop a connection: try the next pair.
                for _ in range(20):
                    create(backend, f"{number}/a", b"", lease)
                    assert backend.get(f"{number}/a") is not None
                    delete(backend, f"{number}/a")
                    assert backend.get(f"{number}/a") is None
                    seen += 1
                lease.revoke()
    assert seen >= 20


def test_a_read_waits_until_the_server_has_caught_up(quiet_server: ZookeeperServer) -> None:
    """A leader answers a sync before it has applied a commit that a follower shows already: one sync is not enough."""
    with (
        closing(ZookeeperBackend(quiet_server.hosts, namespace="test-lag")) as backend,
        closing(ZookeeperBackend(quiet_server.hosts, namespace="test-lag")) as other,
        ThreadPoolExecutor(1) as thread,
    ):
        create(backend, "a")
        connection = backend._connection
        assert connection.session is not None
        kazoo, syncs, sync = connection.session.kazoo, list[str](), connection.session.kazoo.sync

        def slowly(znode: str) -> Pending:
            syncs.append(znode)
            if len(syncs) == 3:  # The commit with the number that the backend has seen arrives here.
                create(other, "b")
            return sync(znode)

        kazoo.sync = slowly  # type: ignore[method-assign]
        connection.timeline.advance(connection.session.zxid + 1, connection.timeline.mark())
        assert thread.submit(backend.get, "b").result(60) is not None
        assert len(syncs) == 3


def test_reads_go_on_after_the_store_was_restored(quiet_server: ZookeeperServer) -> None:
    """A store with older data never catches up: the history shows that, and reads show the data that there are."""
    with closing(ZookeeperBackend(quiet_server.hosts, namespace="test-restored")) as backend:
        create(backend, "a")
        before, timeline = backend.history(), backend._connection.timeline
        timeline.advance(timeline.position + 1_000_000, timeline.mark())
        assert backend.get("a") is not None
        after = backend.history()
        assert after != before
        assert backend.get("a") is not None
        assert backend.history() == after


@pytest.mark.slow
def test_a_commit_is_the_first_to_find_the_store_emptied() -> None:
    """The numbers of versions begin again: a commit with one from before is refused, though no read came before it."""
    with (
        ZookeeperServer(tick_time=200) as server,
        closing(ZookeeperBackend(server.hosts)) as backend,
        closing(ZookeeperBackend(server.hosts)) as other,
    ):
        for client in (backend, other):
            create(client, "a")
            for _ in range(5):
                client.commit([], [Update("a", b"x")])
            entry = client.get("a")
            assert entry is not None
            assert entry.version == "5"
            if client is backend:
                for number in range(100):
                    create(backend, f"b{number}")
                server.empty()
                assert reached_at_last(lambda: other.get("a")) is None
        told = reached_at_last(lambda: backend.commit([], [Update("a", b"y", "5")]))
        assert isinstance(told, Refused)
        assert "rollback 1 " in backend.history()


# A server that does not answer.


@pytest.mark.slow
def test_nothing_hangs_on_a_server_that_does_not_answer(
    server: ZookeeperServer, connect: Callable[..., ZookeeperBackend]
) -> None:
    """Every call ends in time with one of our errors; when the server goes on, so does the client."""
    with closing(connect(server.hosts, timeout=0.5)) as backend:
        lease = backend.lease(30.0)
        create(backend, "a", b"1", lease)
        server.pause()
        for act in (
            lambda: backend.get("a"),
            lambda: backend.keys("a"),
            lambda: backend.commit([], [Update("a", b"2")]),
            lambda: backend.commit([], [Create("b", b"", lease)]),
            lambda: backend.lease(1.0),
            backend.sync,
            lease.renew,
        ):
            start = SYSTEM_CLOCK.monotonic()
            with pytest.raises((UnavailableError, OutcomeUnknownError)):
                act()
            assert SYSTEM_CLOCK.monotonic() - start < 1.5
        backend.watch("a", Wakes())
        server.resume()
        assert eventually(lambda: reached(lease.renew)) is True
        eventually(lambda: reached(lambda: backend.get("a")))


def test_a_commit_given_up_on_may_still_be_applied(
    server: ZookeeperServer, connect: Callable[..., ZookeeperBackend]
) -> None:
    """No answer in time means that the outcome is unknown: the server had it, and gets to it later."""
    with closing(connect(server.hosts, timeout=0.5)) as backend:
        create(backend, "a", b"old")
        server.pause()
        with pytest.raises(OutcomeUnknownError):
            backend.commit([], [Update("a", b"late")])
        server.resume()
        entry = eventually(lambda: reached(lambda: (found := backend.get("a")) and found.value == b"late"))
        assert entry


def test_an_answer_lost_on_the_way_is_an_unknown_outcome(
    server: ZookeeperServer, connect: Callable[..., ZookeeperBackend]
) -> None:
    """The commit was applied; the caller is told that nobody knows, reads, and sees it."""
    proxy = Proxy(server.port)
    with closing(proxy), closing(connect(proxy.hosts, timeout=1.0)) as backend:
        create(backend, "a", b"old")
        proxy.swallow_answers(on=True)
        with pytest.raises(OutcomeUnknownError):
            backend.commit([], [Update("a", b"new")])
        proxy.swallow_answers(on=False)
        proxy.reset()
        eventually(lambda: reached(lambda: backend.keys("a") == []))
        entry = backend.get("a")
        assert entry is not None
        assert entry.value == b"new"


@pytest.mark.parametrize("again", ["reconnected", "restarted"])
def test_a_watch_hears_what_it_missed(
    server: ZookeeperServer, connect: Callable[..., ZookeeperBackend], again: str
) -> None:
    """What changed while its connection was broken, or its server down, wakes it on return; what follows too."""
    proxy = Proxy(server.port)
    with (
        closing(proxy),
        closing(connect(proxy.hosts)) as backend,
        closing(connect(server.hosts)) as other,
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
        backend.sync()
        before = wakes.count
        other.commit([], [Update("a/1", b"seen")])
        wakes.since(before)


def test_an_unreachable_server_is_named_in_time(caplog: pytest.LogCaptureFixture) -> None:
    """Who was asked, what came of it, and what to check; no secret."""
    port = free_port()
    with closing(ZookeeperBackend(f"127.0.0.1:{port}", timeout=0.5, username="me", password=SECRET)) as backend:
        start = SYSTEM_CLOCK.monotonic()
        with pytest.raises(UnavailableError, match=rf"127\.0\.0\.1:{port} .*refused.*check") as caught:
            backend.get("a")
        assert SYSTEM_CLOCK.monotonic() - start < 1.5
        assert SECRET not in str(caught.value)


def test_who_waits_for_a_server_is_told_of_the_close() -> None:
    """A call that has begun before the close does not wait for the connection any longer."""
    with closing(ZookeeperBackend(f"127.0.0.1:{free_port()}", timeout=3600.0)) as backend:
        errors: list[BaseException] = []

        def read() -> None:
            try:
                backend.get("a")
            except BackendClosedError as error:
                errors.append(error)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        eventually(lambda: backend._connection.session)  # pyright: ignore[reportPrivateUsage]
        backend.close()
        reader.join(60)
        assert [str(error).endswith("is closed") for error in errors] == [True]


def test_a_host_that_does_not_exist_is_named() -> None:
    """A name that does not resolve is told from a server that is down."""
    with (
        closing(ZookeeperBackend("no-such-host.invalid:2181", timeout=1.0)) as backend,
        pytest.raises(UnavailableError, match="no such host"),
    ):
        backend.get("a")


def test_one_silent_server_does_not_use_up_the_time_for_the_others(zookeeper_hosts: str) -> None:
    """A server that accepts and says nothing is left for the next within its share of the time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{silent.getsockname()[1]},{zookeeper_hosts}"
        for _ in range(3):  # In whichever order they are tried.
            with closing(ZookeeperBackend(hosts, timeout=2.0)) as backend:
                assert backend.get("a") is None


@pytest.mark.parametrize("through", ["main session", "lease"])
def test_a_server_that_falls_silent_is_left_for_another(
    server: ZookeeperServer, connect: Callable[..., ZookeeperBackend], through: str
) -> None:
    """After one call without an answer the next one goes elsewhere, though the old connection was never broken."""
    proxies = [Proxy(server.port), Proxy(server.port)]
    hosts = ",".join(proxy.hosts for proxy in proxies)
    with (
        closing(proxies[0]),
        closing(proxies[1]),
        closing(connect(hosts, timeout=2.0)) as backend,
        closing(connect(server.hosts)) as other,
    ):
        lease = backend.lease(30.0)
        create(other, "a")
        backend.sync()
        for silent in proxies:  # One of them is the one in use, and then the other is.
            silent.cut()
            assert eventually(lambda: reached(lease.renew if through == "lease" else lambda: backend.get("a")))
            silent.mend()


def test_reads_on_a_new_session_catch_up_first(
    zookeeper_hosts: str, backend: ZookeeperBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be with a server that is behind the one we read from before: it is told to sync, once."""
    synced: list[Driver] = []

    def sync(driver: Driver, znode: str) -> Pending:
        synced.append(driver)
        return original(driver, znode)

    original = Driver.sync
    monkeypatch.setattr(Driver, "sync", sync)
    create(backend, "a")
    assert synced == []
    end_session(session_of(backend), zookeeper_hosts)
    eventually(lambda: reached(lambda: backend.get("a")))
    for _ in range(3):
        backend.get("a")
    assert synced == [session_of(backend).kazoo]


def test_a_lease_is_silent_by_the_servers_clock(backend: ZookeeperBackend) -> None:
    """The znode of a lease holds the lease's time, and changes with each renewal; older versions leave it empty."""
    assert backend.silent_leases(["none"]) == set()  # Nobody has asked for a lease yet.
    lease = backend.lease(10.0)
    assert isinstance(lease, SessionLease)
    assert backend.silent_leases([lease.id]) == set()

    def write(value: bytes) -> None:
        assert isinstance(lease, SessionLease)
        lease.session.kazoo.set(lease.znode, value).get(timeout=10.0)

    write(b"0")
    assert backend.silent_leases([lease.id]) == {lease.id}
    assert backend.silent_leases(["none"]) == set()
    write(b"")
    assert backend.silent_leases([lease.id]) == set()
    write(b"0")
    assert lease.renew() is True
    assert backend.silent_leases([lease.id]) == set()


# What a commit may hold.


@pytest.mark.parametrize("length", [3, 400], ids=["short names", "long names"])
def test_the_largest_commit_is_one_that_the_server_takes(backend: ZookeeperBackend, length: int) -> None:
    """However its bytes are spread over names, values and operations, and on a lease."""
    lease = backend.lease(10.0)
    promised = backend.guarantees
    names = [f"a/{number:0{length}}" for number in range(promised.most_operations)]
    changes: list[Create] = []
    for name in names:
        if commit_size([], [Create(name, b"")]).bytes * (len(changes) + 2) > promised.largest_commit:
            break
        changes.append(Create(name, b"", lease))
    room = promised.largest_commit - commit_size([], changes).bytes
    changes[0] = Create(changes[0].key, b"x" * min(room, promised.largest_value), lease)
    assert isinstance(backend.commit([], changes), Committed)
    assert len(backend.keys("a")) == len(changes)


def test_a_foreign_lease_is_refused(backend: ZookeeperBackend, connect: Callable[..., ZookeeperBackend]) -> None:
    """A lease of some other backend cannot be meant."""
    for lease in (Faulty(backend).lease(1.0), connect().lease(1.0)):
        with pytest.raises(ValueError, match="not granted"):
            backend.commit([], [Create("a", b"", lease)])


@pytest.mark.parametrize("version", ["", "x", "-1", "2147483648"])
def test_a_version_that_is_none_of_zookeepers_is_a_value_error(backend: ZookeeperBackend, version: str) -> None:
    """Minus one, which stands for any, is not let through either."""
    create(backend, "a")
    with pytest.raises(ValueError, match=r"."):
        backend.commit([], [Update("a", b"", version)])
    assert backend.get("a") is not None


# Directories.


def znodes(backend: ZookeeperBackend, hosts: str) -> list[str]:
    """What lies in the namespace, leases aside."""
    found: list[str] = []
    with somebody(hosts) as kazoo:
        left = [backend._layout.root]  # pyright: ignore[reportPrivateUsage]
        while left:
            here = left.pop()
            # Only we know what a stand-in holds: it may not be read.
            names = kazoo.get_children(here) if not kazoo.exists(f"{here}/~") else ["~"]
            below = [f"{here}/{name}" for name in names if name != "~leases"]
            found += below
            left += below
    return found


def test_empty_directories_are_removed(zookeeper_hosts: str, backend: ZookeeperBackend) -> None:
    """The directories of deleted keys go, up to the first that holds something, with some commit that follows."""
    create(backend, "stays")
    create(backend, "a/b/c/1")
    create(backend, "a/b/c/2")
    before = len(znodes(backend, zookeeper_hosts))
    delete(backend, "a/b/c/1")
    backend.commit([], [Delete("a/b/c/2")])

    def removed() -> bool:
        backend.commit([], [Update("stays", b"")])
        return len(znodes(backend, zookeeper_hosts)) == 1

    assert before > 10
    eventually(removed)


def test_a_directory_left_empty_is_in_nobodys_way(
    zookeeper_hosts: str, connect: Callable[..., ZookeeperBackend]
) -> None:
    """Keys that went with a lease leave directories behind: they are not listed, and their names are free."""
    backend = connect()
    lease = backend.lease(10.0)
    create(backend, "a/b/1", b"", lease)
    create(backend, "a/c", b"", lease)
    lease.revoke()
    backend.sync()
    assert backend.keys("a") == []
    create(backend, "a/b", b"a key now")
    create(backend, "d", b"")
    assert backend.keys("a") == ["a/b"]
    assert refused(backend.commit([Exists("a")], [Update("d", b"")])) == "a"


def test_a_directory_is_no_key_to_any_commit(backend: ZookeeperBackend) -> None:
    """It cannot be found, updated, deleted or made; nor can a key be made a directory."""
    create(backend, "a/1")
    create(backend, "k")
    assert backend.commit([Exists("a")], [Create("b", b"")]) == Refused("a")
    assert backend.commit([AtVersion("a", "0")], [Create("b", b"")]) == Refused("a")
    assert backend.commit([], [Update("a", b"")]) == Refused("a")
    assert backend.commit([], [Delete("a")]) == Refused("a")
    with pytest.raises(ValueError, match="directory"):
        backend.commit([], [Create("a", b"")])
    with pytest.raises(ValueError, match="holds bytes"):
        backend.commit([], [Create("k/1", b"")])
    assert backend.keys("a") == ["a/1"]
    assert backend.get_many(["a", "b"]) == [None, None]


def test_directories_made_and_removed_by_many_at_once(connect: Callable[..., ZookeeperBackend]) -> None:
    """Nobody's removal of an empty directory fails another's creation in it."""
    errors: list[BaseException] = []

    def work(client: ZookeeperBackend, name: str) -> None:
        try:
            for _ in range(40):
                assert isinstance(client.commit([], [Create(f"a/b/{name}", b"")]), Committed)
                assert isinstance(client.commit([], [Delete(f"a/b/{name}")]), Committed)
        except BaseException as error:  # noqa: BLE001  # shown by the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(connect(), f"{number}")) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# Who may do what.


def test_credentials_keep_others_out(connect: Callable[..., ZookeeperBackend]) -> None:
    """What is made with a username and password is for them alone: others are denied, and no message tells secrets."""
    owner = connect(username="me", password=SECRET)
    lease = owner.lease(10.0)
    create(owner, "a/1", b"mine")
    create(owner, "a/2", b"", lease)
    assert [entry.value for entry in owner.list("a")] == [b"mine", b""]
    for credentials in ({}, {"username": "me", "password": "guessed"}, {"username": "you", "password": SECRET}):
        for act in _intrusions(connect(**credentials)):
            with pytest.raises(AccessDeniedError) as caught:
                act()
            assert SECRET not in str(caught.value)
            assert "guessed" not in str(caught.value)
    assert [entry.value for entry in owner.list("a")] == [b"mine", b""]


def _intrusions(intruder: ZookeeperBackend) -> list[Callable[[], object]]:
    return [
        lambda: intruder.get("a/1"),
        lambda: intruder.keys("a"),
        lambda: intruder.list("a"),
        lambda: intruder.commit([], [Update("a/1", b"")]),
        lambda: intruder.commit([], [Delete("a/1")]),
        lambda: intruder.commit([], [Create("a/3", b"")]),
        lambda: intruder.commit([], [Create("b/1", b"")]),
        lambda: intruder.commit([Exists("a/1")], [Create("b/1", b"")]),
        lambda: intruder.lease(1.0),
        lambda: intruder.watch("a", Wakes()),
    ]


def test_credentials_are_not_logged(connect: Callable[..., ZookeeperBackend], caplog: pytest.LogCaptureFixture) -> None:
    """Not at any level, nor shown by what can be printed."""
    caplog.set_level(1, "smoothcluster_zookeeper.kazoo")  # All that kazoo can say, which by default says nothing.
    owner = connect(username="me", password=SECRET)
    create(owner, "a")
    assert caplog.records
    assert SECRET not in caplog.text
    assert SECRET not in f"{owner!r} {owner.url} {vars(owner)!r}"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem and, signed by it, server.pem and client.pem with their .key; other-ca.pem signed neither."""
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder, "IP:127.0.0.1,DNS:localhost")
    (folder / "keystore.pem").write_text((folder / "server.key").read_text() + (folder / "server.pem").read_text())
    return folder


@pytest.fixture(scope="module")
def tls_hosts(certificates: Path) -> Iterator[str]:
    """A server that speaks TLS and wants a client's certificate, as is its default."""
    port = free_port()
    tls = {
        "secureClientPort": port,
        "secureClientPortAddress": "127.0.0.1",
        "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
        "ssl.keyStore.location": certificates / "keystore.pem",
        "ssl.keyStore.type": "PEM",
        "ssl.trustStore.location": certificates / "ca.pem",
        "ssl.trustStore.type": "PEM",
    }
    with ZookeeperServer(settings={**LONG_LEASES, **tls}):
        yield f"127.0.0.1:{port}"


def test_tls_with_a_clients_certificate(tls_hosts: str, certificates: Path) -> None:
    """Everything works over TLS, many answers at once and large ones too."""
    own = {"certfile": str(certificates / "client.pem"), "keyfile": str(certificates / "client.key")}
    with closing(ZookeeperBackend(tls_hosts, ca=str(certificates / "ca.pem"), **own)) as backend:  # type: ignore[arg-type]
        backend.commit([], [Create(f"a/{number}", b"x" * 3000) for number in range(300)])
        wakes = Wakes()
        backend.watch("a", wakes)
        lease = backend.lease(10.0)
        create(backend, "a/leased", b"", lease)
        wakes.since(0)
        assert len(backend.list("a")) == 301
        lease.revoke()
        assert backend.get("a/leased") is None


def test_what_tls_has_decrypted_already_is_seen(certificates: Path) -> None:
    """Two answers in one TLS record: with the first one read, nothing is left in the socket, and yet there is more."""
    here, there = socket.socketpair()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificates / "keystore.pem")
    with ThreadPoolExecutor() as pool:
        answering = pool.submit(server.wrap_socket, there, server_side=True)
        client = ssl.create_default_context(cafile=certificates / "ca.pem")
        with client.wrap_socket(here, server_hostname="localhost") as reader, answering.result() as writer:
            handler = Handler("test", 1.0, client)
            writer.sendall(b"one two")
            assert handler.select([reader], [], [], 5.0)[0] == [reader]
            assert reader.recv(3) == b"one"
            assert handler.select([reader], [], [], 0.0)[0] == [reader]
            assert reader.recv(9) == b" two"
            assert handler.select([reader], [], [], 0.0)[0] == []


def test_an_abandoned_connection_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed while kazoo's thread was about to connect: the socket made for that goes too."""
    handler = Handler("test", 1.0, None)
    handler.abandon()
    made: list[socket.socket] = []

    class Noted(socket.socket):
        def __init__(self, family: int) -> None:
            super().__init__(family)
            made.append(self)

    monkeypatch.setattr(socket, "socket", Noted)
    with pytest.raises(ConnectionAbortedError):
        handler.create_connection(("127.0.0.1", 1), "localhost")
    assert [each.fileno() for each in made] == [-1]


@pytest.mark.parametrize(
    ("ca", "own", "hostname"),
    [("other-ca.pem", True, ""), ("ca.pem", False, ""), ("ca.pem", True, "localhost.localdomain"), (None, True, "")],
    ids=["unknown authority", "no certificate of ours", "another name", "the system's authorities"],
)
def test_tls_that_does_not_agree(
    tls_hosts: str, certificates: Path, ca: str | None, own: bool, hostname: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that cannot prove who it is, or to whom we cannot, is not spoken to; the error says that it is TLS."""
    if hostname:
        port = int(tls_hosts.partition(":")[2])
        found = [(socket.AF_INET, 1, 6, "", ("127.0.0.1", port))]
        monkeypatch.setattr(socket, "getaddrinfo", Mock(return_value=found))
        tls_hosts = f"{hostname}:{port}"
    with (
        closing(
            ZookeeperBackend(
                tls_hosts,
                timeout=1.0,
                use_ssl=True,
                ca=ca and str(certificates / ca),
                certfile=str(certificates / "client.pem") if own else None,
                keyfile=str(certificates / "client.key") if own else None,
            )
        ) as backend,
        pytest.raises(UnavailableError, match="TLS"),
    ):
        backend.get("a")


def test_tls_and_plain_do_not_mix(tls_hosts: str, zookeeper_hosts: str) -> None:
    """The error says which of the two was spoken."""
    with closing(ZookeeperBackend(tls_hosts, timeout=0.5)) as plain, pytest.raises(UnavailableError, match="not TLS"):
        plain.get("a")
    with (
        closing(ZookeeperBackend(zookeeper_hosts, timeout=0.5, use_ssl=True)) as tls,
        pytest.raises(UnavailableError, match="speaks TLS"),
    ):
        tls.get("a")


# Addresses and closing.


def test_a_chroot_is_made_and_kept_to(zookeeper_hosts: str) -> None:
    """Everything lies under the chroot, and the URL leads back there, namespace and all."""
    chroot = f"/test-{secrets.token_hex(8)}/deep"
    with closing(ZookeeperBackend(zookeeper_hosts + chroot, namespace="other")) as backend:
        create(backend, "a/1")
        lease = backend.lease(5.0)
        create(backend, "a/2", b"", lease)
        assert backend.url == f"zookeeper://{zookeeper_hosts}{chroot}?namespace=other"
        with closing(ZookeeperBackend.from_url(backend.url)) as again:
            assert again.keys("a") == ["a/1", "a/2"]
        with somebody(zookeeper_hosts) as kazoo:
            assert kazoo.exists(f"{chroot}/other/a/1~")


@pytest.mark.parametrize(
    ("hosts", "options"),
    [
        ("", {}),
        ("h:port", {}),
        ("h:2181/a b", {}),
        (f"me:{SECRET}@h:2181", {}),
        ("h", {"namespace": ""}),
        ("h", {"namespace": "a~"}),
        ("h", {"namespace": "zookeeper"}),
        ("zookeeper://h", {}),
        ("h", {"username": "me"}),
        ("h", {"timeout": 0.0}),
        ("h", {"ca": "/no/such/file"}),
    ],
)
def test_wrong_settings_are_said_at_once(hosts: str, options: dict[str, object]) -> None:
    """Before anything is connected, and without showing a password."""
    with pytest.raises(UsageError) as caught:
        ZookeeperBackend(hosts, **options)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["zookeper://h", "zookeeper://h?tick=1", f"zookeeper://me:{SECRET}@h", "h:2181"])
def test_wrong_urls_are_said_at_once(url: str) -> None:
    """As settings are."""
    with pytest.raises(UsageError) as caught:
        ZookeeperBackend.from_url(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("state", ["connected", "never connected", "cut off", "silent"])
def test_closing_leaves_no_thread(zookeeper_hosts: str, server: ZookeeperServer, state: str) -> None:
    """Whatever it was doing, and soon."""
    before = set(threading.enumerate())
    hosts = f"127.0.0.1:{free_port()}" if state == "never connected" else server.hosts
    backend = ZookeeperBackend(hosts, timeout=1.0)
    if state == "never connected":
        with pytest.raises(UnavailableError):
            backend.get("a")
    else:
        backend.lease(10.0)
        backend.lease(10.0).revoke()
        backend.watch("a", Wakes())
    if state == "cut off":
        server.kill()
    if state == "silent":
        server.pause()
    start = SYSTEM_CLOCK.monotonic()
    backend.close()
    backend.close()
    assert SYSTEM_CLOCK.monotonic() - start < 2.0
    assert set(threading.enumerate()) <= before
    del backend
    gc.collect()  # Sockets left open would be warnings here, and warnings are errors.


def test_closing_revokes_nothing(connect: Callable[..., ZookeeperBackend]) -> None:
    """Leases that were not given back run out: their keys are there after the client has closed."""
    backend, other = connect(), connect()
    create(backend, "a", b"", backend.lease(10.0))
    backend.close()
    other.sync()
    assert other.get("a") is not None


def test_closed_watches_leave_nothing_on_the_server(quiet_server: ZookeeperServer) -> None:
    """A watch that never fires, as one on a key that is gone for good, would else stay as long as the connection."""
    with closing(ZookeeperBackend(quiet_server.hosts)) as backend:
        create(backend, "a/0")
        for number in range(20):
            for path in (f"a/{number}", "a"):
                backend.watch(path, Wakes()).close()
        backend.sync()
        # The one on a living key may stay: it fires when the key goes.
        assert re.search(r"Total watches:[01]\b", quiet_server.ask("wchs"))


def test_a_lease_takes_one_connection_more(quiet_server: ZookeeperServer) -> None:
    """One for reads, commits and watches, and one for each lease: servers limit them per address."""
    with closing(ZookeeperBackend(quiet_server.hosts)) as backend:
        backend.get("a")
        leases = [backend.lease(10.0) for _ in range(3)]
        assert quiet_server.ask("cons").count("sid=") == 4
        for lease in leases:
            lease.revoke()
        eventually(lambda: quiet_server.ask("cons").count("sid=") == 1)
