"""ZooKeeper with large directories and many watches: the requests that they cost, and watches after a reconnect."""

# pyright: reportPrivateUsage=false

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from kazoo.client import KazooClient
from proxy import Proxy
from smoothcluster_zookeeper import ZookeeperBackend
from smoothcluster_zookeeper.driver import Driver, Pending
from smoothcluster_zookeeper.kazoo_requests import MultiRead, Request
from smoothcluster_zookeeper.session import Session
from zookeeper_server import ZookeeperServer

from smoothcluster.backend import Committed, Update
from smoothcluster.errors import BackendError, UsageError
from smoothcluster.testing import eventually
from smoothcluster.testing.conformance.kit import Wakes, create, delete, fill


@pytest.fixture
def connect(zookeeper_hosts: str) -> Iterator[Callable[..., ZookeeperBackend]]:
    """Makes clients of the shared server, in one namespace of this test, and closes them."""
    namespace = f"test-{secrets.token_hex(8)}"
    clients: list[ZookeeperBackend] = []

    def make(hosts: str = zookeeper_hosts) -> ZookeeperBackend:
        clients.append(ZookeeperBackend(hosts, namespace=namespace))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The types of all requests sent by any client from now on."""
    requests: list[str] = []
    kazoo: Any = KazooClient  # It has no types.
    call = kazoo._call

    def counted(client: object, request: object, answer: object) -> object:
        requests.append(type(request).__name__)
        return call(client, request, answer)

    monkeypatch.setattr(kazoo, "_call", counted)
    return requests


def test_a_directory_costs_a_watch_no_request_for_each_key(
    connect: Callable[..., ZookeeperBackend], sent: list[str]
) -> None:
    """Neither when it is armed nor when a key comes, goes or gets a value."""
    backend, other = connect(), connect()
    names = fill(other, "a", 1000)
    backend.sync()
    wakes = Wakes()
    sent.clear()
    backend.watch("a", wakes)
    assert len(sent) <= 4
    changes: list[Callable[[], object]] = [
        lambda: other.commit([], [Update(names[500], b"new")]),
        lambda: create(other, "a/new"),
        lambda: delete(other, names[0]),
    ]
    for change in changes:
        before = wakes.count
        sent.clear()
        change()
        wakes.since(before)
        assert len(sent) <= 2  # The commit itself.


@pytest.mark.parametrize(
    "count", [pytest.param(300, id="short"), pytest.param(1000, id="long", marks=pytest.mark.long)]
)
def test_many_watches_are_armed_again_after_a_reconnect(
    zookeeper_hosts: str, connect: Callable[..., ZookeeperBackend], sent: list[str], count: int
) -> None:
    """Watches of keys beside as many of their directory: all wake on the return, and then hear of changes."""
    with closing(Proxy(int(zookeeper_hosts.rpartition(":")[2]))) as proxy:
        backend, other = connect(proxy.hosts), connect()
        names = fill(other, "a", count)
        backend.sync()
        of_keys, of_directory = [Wakes() for _ in names], [Wakes() for _ in names]
        for name, of_key, of_all in zip(names, of_keys, of_directory, strict=True):
            backend.watch(name, of_key)
            backend.watch("a", of_all)
        before = [wakes.count for wakes in (*of_keys, *of_directory)]
        sent.clear()
        proxy.reset()
        for wakes, count_before in zip((*of_keys, *of_directory), before, strict=True):
            wakes.since(count_before)
        # Two requests for each path; those under way when the connection broke may have been repeated.
        assert len(sent) <= 6 * count
        before = [wakes.count for wakes in (of_keys[7], *of_directory)]
        assert isinstance(other.commit([], [Update(names[7], b"new")]), Committed)
        for wakes, count_before in zip((of_keys[7], *of_directory), before, strict=True):
            wakes.since(count_before)


def test_a_failed_step_of_arming_is_repeated(
    zookeeper_hosts: str, connect: Callable[..., ZookeeperBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks again while watches are being armed: none is lost, and the steps done before stay done."""
    with closing(Proxy(int(zookeeper_hosts.rpartition(":")[2]))) as proxy:
        backend, other = connect(proxy.hosts), connect()
        names = fill(other, "a", 120)
        backend.sync()
        all_wakes = [Wakes() for _ in names]
        for name, wakes in zip(names, all_wakes, strict=True):
            backend.watch(name, wakes)
        armed = 0
        send: Callable[[Driver, Request], Pending] = Driver.send

        def failing(driver: Driver, request: Request) -> Pending:
            nonlocal armed
            armed += type(request).__name__ == "AddWatch"
            if armed == 150:
                armed += 1
                proxy.reset()
            return send(driver, request)

        monkeypatch.setattr(Driver, "send", failing)
        proxy.reset()
        eventually(lambda: armed > 150)
        eventually(lambda: backend._watches._armed.keys() >= {backend._layout.key(name) for name in names})
        backend.sync()
        before = [wakes.count for wakes in all_wakes]
        for name in names:
            assert isinstance(other.commit([], [Update(name, b"new")]), Committed)
        for wakes, count_before in zip(all_wakes, before, strict=True):
            wakes.since(count_before)


def test_watches_of_one_path_share_what_zookeeper_watches(connect: Callable[..., ZookeeperBackend]) -> None:
    """One for values after one without: both hear what they want, and closing either leaves the other."""
    backend, other = connect(), connect()
    create(other, "a/1")
    without, with_values, last = Wakes(), Wakes(), Wakes()
    backend.watch("a", without, values=False)
    first = backend.watch("a", with_values)
    before = with_values.count
    other.commit([], [Update("a/1", b"new")])
    with_values.since(before)
    backend.sync()
    first.close()
    before = without.count
    create(other, "a/2")
    without.since(before)
    backend.watch("a", last)
    for act in (lambda: other.commit([], [Update("a/1", b"newer")]), lambda: create(other, "a/3")):
        backend.sync()
        before = last.count
        act()
        last.since(before)


def test_a_watch_of_values_is_not_woken_for_what_lies_deeper(connect: Callable[..., ZookeeperBackend]) -> None:
    """ZooKeeper reports it, and it is passed over; what comes after it is not."""
    backend, other = connect(), connect()
    create(other, "a/b/1")
    wakes, control = Wakes(), Wakes()
    backend.watch("a", wakes)
    backend.watch("a/b", control)
    for number in range(5):
        before = control.count
        other.commit([], [Update("a/b/1", str(number).encode())])
        control.since(before)
    assert wakes.count == 0
    create(other, "a/2")
    wakes.since(0)


def test_a_closed_watch_is_not_armed_again(server_of_its_own: ZookeeperServer) -> None:
    """Nor left behind on the server, even if others of the path came and went at the same time."""
    with closing(ZookeeperBackend(server_of_its_own.hosts)) as backend:
        create(backend, "a/0")
        kept = backend.watch("a", Wakes())
        for number in range(20):
            backend.watch("a", Wakes(), values=number % 2 == 0).close()
            backend.watch(f"a/{number}", Wakes()).close()
        backend.sync()
        assert paths_watched(server_of_its_own) == 2
        kept.close()
        backend.sync()
        assert paths_watched(server_of_its_own) == 0
        wakes = Wakes()
        backend.watch("a", wakes)
        before = wakes.count
        create(backend, "a/new")
        wakes.since(before)


@pytest.fixture
def server_of_its_own() -> Iterator[ZookeeperServer]:
    """A server with nobody else's watches."""
    with ZookeeperServer(tick_time=100) as own:
        yield own


def paths_watched(server: ZookeeperServer) -> int:
    """The number of paths that some client watches."""
    return sum(line.startswith("/") for line in server.ask("wchp").splitlines())


def test_a_server_that_refuses_such_watches_is_named() -> None:
    """A watch that never wakes would be worse than an error. Else the server can be used."""
    manager = {"watchManagerName": "org.apache.zookeeper.server.watch.WatchManagerOptimized"}
    with (
        ZookeeperServer(tick_time=100, settings=manager) as server,
        closing(ZookeeperBackend(server.hosts)) as backend,
    ):
        create(backend, "a/1")
        with pytest.raises(UsageError, match="watchManagerName"):
            backend.watch("a", Wakes())
        assert backend.keys("a") == ["a/1"]


def test_a_listing_sends_few_requests_ahead(
    connect: Callable[..., ZookeeperBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent server is then left in time: kazoo would block a thread that had sent some hundreds."""
    backend = connect()
    names = fill(backend, "a", 3000)
    ahead = most = 0
    send: Callable[[Driver, Request], Pending] = Driver.send
    wait: Callable[..., Any] = Session.wait

    def counted(driver: Driver, request: Request) -> Pending:
        nonlocal ahead, most
        ahead += isinstance(request, MultiRead)
        most = max(most, ahead)
        return send(driver, request)

    def answered(session: Session, *args: Any) -> Any:
        nonlocal ahead
        ahead -= 1
        return wait(session, *args)

    monkeypatch.setattr(Driver, "send", counted)
    monkeypatch.setattr(Session, "wait", answered)
    assert [entry.key for entry in backend.list("a")] == names
    assert most <= 5


def test_a_watch_waits_for_a_server_that_is_away_for_long(
    server_of_its_own: ZookeeperServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One from before and one added meanwhile wake on its return, and then hear of everything."""
    caplog.set_level(logging.DEBUG, "smoothcluster_zookeeper")
    with (
        closing(ZookeeperBackend(server_of_its_own.hosts, timeout=0.5)) as backend,
        closing(ZookeeperBackend(server_of_its_own.hosts)) as other,
    ):
        create(other, "a/1")
        backend.sync()
        earlier, later = Wakes(), Wakes()
        backend.watch("a", earlier)
        server_of_its_own.kill()
        backend.watch("a/1", later)
        eventually(lambda: caplog.text.count("cannot arm the watches") > 1)
        server_of_its_own.start()
        for wakes in (earlier, later):
            wakes.since(0)
        before = earlier.count, later.count
        eventually(lambda: _committed(other))
        earlier.since(before[0])
        later.since(before[1])


def _committed(backend: ZookeeperBackend) -> bool:
    try:
        return isinstance(backend.commit([], [Update("a/1", b"new")]), Committed)
    except BackendError:  # Its own session is being restored.
        return False


@pytest.mark.parametrize("shown", [True, False], ids=["seen by another thread", "after a refused session"])
@pytest.mark.parametrize("values", [False, True], ids=["keys", "list"])
def test_a_listing_begins_again_after_a_rollback_between_two_requests(
    connect: Callable[..., ZookeeperBackend], monkeypatch: pytest.MonkeyPatch, values: bool, shown: bool
) -> None:
    """Else the answers would be of two stores. Every version is of the new era."""
    monkeypatch.setattr("smoothcluster_zookeeper.reads._READS_PER_REQUEST", 10)
    monkeypatch.setattr("smoothcluster_zookeeper.connection._MOST_SYNCS", 2)
    backend = connect()
    names = fill(backend, "a", 100)
    timeline, reads = backend._connection.timeline, list[Request]()
    send: Callable[[Driver, Request], Pending] = Driver.send

    def rolled_back(driver: Driver, request: Request) -> Pending:
        if isinstance(request, MultiRead):
            reads.append(request)
            if len(reads) == (8 if values else 1):
                if shown:
                    assert timeline.advance(1, timeline.mark())
                else:
                    timeline.advance(timeline.position + 2**20, timeline.mark())
                    driver.forget_state()
        return send(driver, request)

    monkeypatch.setattr(Driver, "send", rolled_back)
    if values:
        assert [(each.key, each.version.partition("~")[2]) for each in backend.list("a")] == [
            (name, "1") for name in names
        ]
    else:
        assert backend.keys("a") == names
    assert timeline.mark().era == 1
    assert len(reads) >= (19 if values else 2)
