"""The Redis backend on real servers: the contract, and what only Redis does."""

import logging
import os
import secrets
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest
from certificates import make_certificates
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test  # pyright: ignore[reportUnknownVariableType]
from pages import block
from proxy import Proxy
from redis.exceptions import ResponseError
from redis_server import RedisSentinels, RedisServer
from servers import free_port
from smoothcluster_redis import RedisBackend
from smoothcluster_redis.connection import CLOCK_STEP_CAP_SECONDS, StoreConnection
from smoothcluster_redis.errors import translate_error
from smoothcluster_redis.lease import RedisLease
from smoothcluster_redis.servers import Servers

from smoothcluster import Cluster, Task
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
)
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import (
    AccessDeniedError,
    OutcomeUnknownError,
    UnavailableError,
    UsageError,
)
from smoothcluster.testing import Ability, BackendConformance, Faulty, backend_machine, eventually
from smoothcluster.testing.conformance.connection import ConnectionRules
from smoothcluster.testing.conformance.kit import Wakes, create, delete, refused

SECRET = "open sesame"

Answer = TypeVar("Answer")


def reached(act: Callable[[], Answer]) -> Answer | None:
    """What *act* returns; None if the server could not be asked or did not answer."""
    try:
        return act()
    except (OutcomeUnknownError, UnavailableError):
        return None


def number(version: str) -> int:
    """The commit that made it."""
    return int(version.partition("-")[0])


def servers_of(backend: CoordinationBackend) -> Servers:
    """How a backend, or a part of it, reaches its server."""
    assert isinstance(backend, RedisBackend)
    return backend.servers


def expire(lease: Lease, hosts: str) -> None:
    """Have the store end a lease, as when its time is over."""
    assert isinstance(lease, RedisLease)
    namespace, _, group = lease.servers.prefix.strip("{}:").partition("/")
    with closing(RedisBackend(hosts, namespace=namespace)) as other:
        servers_of(other.for_group(group) if group else other).run("revoke", [lease.id])


class TestRedis(BackendConformance):
    """A server that all tests share, each in a namespace of its own; each client through a proxy that can be cut."""

    abilities = frozenset({Ability.CUT})

    @pytest.fixture(autouse=True)
    def _server(self, redis_hosts: str) -> Iterator[None]:
        self.hosts = redis_hosts
        self.namespace = f"test-{secrets.token_hex(8)}"
        self.proxies: dict[CoordinationBackend, Proxy] = {}
        yield
        for proxy in self.proxies.values():
            proxy.close()

    def connect(self) -> CoordinationBackend:
        """A client with a proxy of its own, in the part of a group: what a group relies on is tried there."""
        proxy = Proxy(int(self.hosts.partition(":")[2]))
        client = RedisBackend(proxy.hosts, namespace=self.namespace, timeout=1.0).for_group("group")
        self.proxies[client] = proxy
        return client

    def expire(self, lease: Lease) -> None:
        """Take it away before its time."""
        expire(lease, self.hosts)

    def cut(self, backend: CoordinationBackend) -> None:
        """Both ends stay connected to the proxy, which lets nothing pass."""
        self.proxies[backend].cut()

    def mend(self, backend: CoordinationBackend) -> None:
        """What was held back arrives."""
        self.proxies[backend].mend()


class TestRedisOutages(ConnectionRules):
    """The rules for outages, on a server that can be restarted."""

    abilities = frozenset({Ability.RESTART})

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer) -> None:
        self.server = server

    def connect(self) -> CoordinationBackend:
        """A client of the test's own server."""
        return RedisBackend(self.server.hosts, timeout=1.0)

    def expire(self, lease: Lease) -> None:
        """Take it away before its time."""
        expire(lease, self.server.hosts)

    def restart_store(self) -> None:
        """SIGKILL, and start again."""
        self.server.restart()


@pytest.mark.slow
@pytest.mark.parametrize("expiring", [False, True], ids=["", "expiring"])
def test_random_moves(redis_hosts: str, expiring: bool) -> None:
    """Whatever two clients do, the store holds what a dict would, and wakes whom it should."""
    machine = backend_machine(
        lambda: RedisBackend(redis_hosts, namespace="test-machine"),
        (lambda lease: expire(lease, redis_hosts)) if expiring else None,
    )
    run_state_machine_as_test(
        machine,
        settings=settings(
            deadline=None, max_examples=30, stateful_step_count=25, suppress_health_check=[HealthCheck.too_slow]
        ),
    )


@pytest.fixture
def connect(redis_hosts: str) -> Iterator[Callable[..., RedisBackend]]:
    """Makes clients of the shared server, in one namespace of this test, and closes them."""
    namespace = f"test-{secrets.token_hex(8)}"
    clients: list[RedisBackend] = []

    def make(hosts: str = redis_hosts, **options: object) -> RedisBackend:
        clients.append(RedisBackend(hosts, **{"namespace": namespace, **options}))  # type: ignore[arg-type]
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def backend(connect: Callable[..., RedisBackend]) -> RedisBackend:
    """A client of the shared server."""
    return connect()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server that the test may kill, restart, pause or ask."""
    with RedisServer() as own:
        yield own


def keys_left(backend: RedisBackend, server: RedisServer) -> set[str]:
    """The names of the Redis keys in the backend's namespace, without it."""
    prefix = servers_of(backend).prefix
    return {name.removeprefix(prefix) for name in server.ask("KEYS", "*").split() if name.startswith(prefix)}


# The lease clock.


def clock(backend: RedisBackend) -> float:
    """The seconds that the store's clock shows, of those that were written down."""
    deadline = SYSTEM_CLOCK.monotonic() + 5.0
    connection = servers_of(backend).connect(deadline)
    with closing(connection):
        return int(connection.request(deadline, "HGET", f"{servers_of(backend).prefix}meta", "clock")) / 1000


def set_back(server: RedisServer, seconds: float) -> None:
    """Have the server's clock seem set forward by *seconds*: it had shown less when the store last looked."""
    meta = "{smoothcluster}:meta"
    stamp = int(server.ask("HGET", meta, "stamp"))
    server.ask("HSET", meta, "stamp", stamp - round(seconds * 1000))


@pytest.mark.promise(8)
@pytest.mark.slow
@pytest.mark.parametrize("jump", [86_400.0, -86_400.0], ids=["forward", "back"])
def test_a_server_whose_clock_is_set_ends_no_lease_early(server: RedisServer, jump: float) -> None:
    """The store's clock goes on by no more than a cap, forward: once is within what the holder was not told of."""
    with closing(RedisBackend(server.hosts)) as backend:
        start = SYSTEM_CLOCK.monotonic()
        lease = backend.lease(1.0)
        create(backend, "a", b"", lease)
        before = clock(backend)
        set_back(server, jump)
        assert backend.get("a") is not None
        assert before <= clock(backend) <= before + (SYSTEM_CLOCK.monotonic() - start) + CLOCK_STEP_CAP_SECONDS
        eventually(lambda: backend.get("a") is None)
        assert SYSTEM_CLOCK.monotonic() - start >= lease.ttl


@pytest.mark.slow
def test_a_server_that_stood_still_ends_no_lease_early(server: RedisServer) -> None:
    """Stopped for longer than the leases, and going on, it gives their holders time to renew."""
    with closing(RedisBackend(server.hosts, timeout=0.5)) as backend:
        lease = backend.lease(0.8)
        create(backend, "a", b"", lease)
        backend.watch("a", Wakes())
        server.pause()
        SYSTEM_CLOCK.sleep(2.5)
        server.resume()
        assert eventually(lambda: reached(lease.renew)) is True
        assert backend.get("a") is not None


@pytest.mark.slow
def test_a_server_that_was_away_gives_every_lease_its_full_time_again(server: RedisServer) -> None:
    """Renewals may be among what it has lost: a lease nearly over is as good as new after a restart."""
    with closing(RedisBackend(server.hosts)) as backend:
        lease = backend.lease(1.5)
        create(backend, "a", b"", lease)
        server.ask("ZINCRBY", "{smoothcluster}:leases", -2000, lease.id)  # Of the two and a half seconds.
        server.restart()
        entry = eventually(lambda: reached(lambda: backend.get("a")))
        back = SYSTEM_CLOCK.monotonic()
        assert isinstance(entry, Entry)
        eventually(lambda: backend.get("a") is None)
        assert SYSTEM_CLOCK.monotonic() - back >= lease.ttl * 0.9


OLDER_LOOP = """
local TTLS, LEASES, clock = KEYS[1], KEYS[2], 7000
local function whole(n) return string.format('%.0f', n) end
local ttls = redis.call('HGETALL', TTLS)
for i = 1, #ttls, 2 do
    redis.call('ZADD', LEASES, 'XX', 'GT', whole(clock + ttls[i + 1]), ttls[i])
end
"""
"""The script of older versions gives every lease the full time again, from the lease clock *clock*, with this loop."""


def test_a_lease_is_silent_by_the_servers_clock(server: RedisServer) -> None:
    """The server's time of each renewal is recorded behind the lease's time, where older versions do not stumble."""
    ttls, leases = "{smoothcluster}:ttls", "{smoothcluster}:leases"
    with closing(RedisBackend(server.hosts)) as backend:
        lease = backend.lease(5.0)
        time, point, renewed = server.ask("HGET", ttls, lease.id).partition(".")
        assert (time, point) == ("6000", ".")
        assert backend.silent_leases([lease.id, "none"]) == set()
        server.ask("HSET", ttls, lease.id, f"6000.{int(renewed) - 5000}")
        assert backend.silent_leases([lease.id, "none"]) == {lease.id}
        assert lease.renew() is True
        assert backend.silent_leases([lease.id]) == set()
        server.ask("ZADD", leases, "0", lease.id)
        server.ask("EVAL", OLDER_LOOP, "2", ttls, leases)
        assert float(server.ask("ZSCORE", leases, lease.id)) == 7000 + 6000
        server.ask("HSET", ttls, lease.id, "6000")  # As an older version grants and renews.
        assert backend.silent_leases([lease.id]) == set()


def test_after_a_restart_no_version_is_given_again(server: RedisServer) -> None:
    """Commits may be among what was lost, and their numbers must not come again: they jump far ahead."""
    with closing(RedisBackend(server.hosts)) as backend:
        before = number(create(backend, "a"))
        assert number(create(backend, "b")) == before + 1
        server.restart()
        after = eventually(lambda: reached(lambda: backend.commit([], [Update("a", b"")])))
        assert isinstance(after, Committed)
        assert number(after.versions["a"]) > before + 10**8
        entry = backend.get("a")
        assert entry is not None
        assert entry.created == before


def test_no_version_of_before_a_restart_holds_after_it(server: RedisServer) -> None:
    """Nothing of this key was lost, but who holds its version may have read what was: all of that is void."""
    with closing(RedisBackend(server.hosts)) as backend:
        version, history = create(backend, "a"), backend.history()
        assert backend.history() == history
        server.restart()
        now = eventually(lambda: reached(backend.history))
        assert now is not None
        assert now != history
        assert refused(backend.commit([AtVersion("a", version)], [Create("b", b"")])) == "a"
        entry = backend.get("a")
        assert entry is not None
        assert isinstance(backend.commit([AtVersion("a", entry.version)], [Create("b", b"")]), Committed)


def test_an_emptied_store_does_not_begin_anew(server: RedisServer) -> None:
    """Even if somebody deletes everything, watchers are woken, and old versions match nothing that is made after."""
    with closing(RedisBackend(server.hosts)) as backend:
        lease = backend.lease(10.0)
        old = create(backend, "a", b"", lease)
        wakes = Wakes()
        backend.watch("a", wakes)
        eventually(lambda: wakes.count)
        server.ask("FLUSHALL")
        wakes.since(1)
        eventually(lambda: reached(lambda: backend.keys("none") == []))
        assert lease.renew() is False
        assert number(create(backend, "a")) > number(old)
        assert refused(backend.commit([], [Update("a", b"", old)])) == "a"


def test_the_error_of_an_emptied_store_is_known(server: RedisServer) -> None:
    """Whoever meets it connects anew. (Redis puts ERR before an error of a single word.)"""
    with closing(StoreConnection("127.0.0.1", server.port, 5.0, None)) as link, pytest.raises(ResponseError) as caught:
        link.run(SYSTEM_CLOCK.monotonic() + 5.0, "{never}:", "get")
    assert str(translate_error(caught.value, "h")) == "Redis at h: the database was emptied (NOSTORE)"


def test_leases_run_out_while_nobody_but_a_watcher_is_there(connect: Callable[..., RedisBackend]) -> None:
    """Whoever waits keeps the store's clock going: it takes a command to advance it."""
    backend, other = connect(), connect()
    lease = backend.lease(0.5)
    create(backend, "a/1", b"", lease)
    wakes = Wakes()
    other.watch("a", wakes)
    eventually(lambda: wakes.count)
    before = wakes.count
    backend.close()
    wakes.since(before)
    assert other.get("a/1") is None


# What lies in Redis.


def test_what_is_gone_leaves_nothing(server: RedisServer) -> None:
    """Directories, leases and values go with the last key; what was last told goes by itself in an hour."""
    with closing(RedisBackend(server.hosts)) as backend:
        lease = backend.lease(10.0)
        for number in range(5):
            create(backend, f"g/a/b/{number}", b"", lease if number % 2 else None)
        for number in (0, 1, 2):
            delete(backend, f"g/a/b/{number}")
        lease.revoke()
        delete(backend, "g/a/b/4")
        assert keys_left(backend, server) == {"meta", "stream"}
        assert 0 < int(server.ask("PTTL", f"{servers_of(backend).prefix}stream")) <= 3_600_000


def test_each_group_lies_in_a_slot_of_its_own(server: RedisServer) -> None:
    """Every key has the hash tag of its group, or the namespace's if it is of none; no name leads to another's."""
    with (
        closing(RedisBackend(server.hosts, namespace="docs")) as backend,
        closing(RedisBackend(server.hosts, namespace="docs:a")) as other,
    ):
        for client in (backend, backend.for_group("a"), backend.for_group("b"), other, other.for_group("a")):
            assert client.get("x/1") is None
            create(client, "x/1", b"", client.lease(10.0))
        tags = Counter(name.partition(":lease:")[0].rpartition("}")[0] for name in server.ask("KEYS", "*").split())
        kinds = {"meta", "values", "marks", "children:x", "leases", "ttls", "lease:", "stream"}
        assert tags == {tag: len(kinds) for tag in ("{docs", "{docs/a", "{docs/b", "{docs:a", "{docs:a/a")}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "key '' is not valid"),
        ("a/b", "'a/b' is not a valid name of a group: a slash is not allowed"),
        ("a b", "key 'a b' is not valid"),
    ],
)
def test_what_cannot_be_a_groups_name_has_no_part(backend: RedisBackend, name: str, says: str) -> None:
    """It might lead into another one's."""
    with pytest.raises(ValueError, match=says):
        backend.for_group(name)


def test_a_process_of_one_group_has_no_more_connections_for_it(server: RedisServer) -> None:
    """One that asks and one that watches: where nobody asks for more than the group, nothing else is opened."""
    with closing(RedisBackend(server.hosts)) as backend:
        part, wakes = backend.for_group("g"), Wakes()
        part.watch("g", wakes)
        eventually(lambda: wakes.count)
        assert part.get("g/1") is None
        assert server.ask("CLIENT", "LIST").count("\n") == 2  # And the one that asks for this.


def test_each_part_looks_at_its_server_itself(server: RedisServer) -> None:
    """After a restart nothing read before holds, in any part, whichever is asked first."""
    with closing(RedisBackend(server.hosts)) as backend:
        parts = [backend, backend.for_group("a"), backend.for_group("b")]
        versions = [create(part, "x") for part in parts]
        histories = [part.history() for part in parts]
        server.restart()
        for part, version, history in zip(parts, versions, histories, strict=True):
            assert eventually(lambda part=part: reached(lambda: part.keys("none") == []))  # type: ignore[misc]  # mypy cannot infer a lambda's default
            assert refused(part.commit([], [Update("x", b"", version)])) == "x"
            assert part.history() != history


def test_a_stranger_in_the_store_is_an_error_of_ours(server: RedisServer) -> None:
    """What was not written by this library is reported, not believed."""
    with closing(RedisBackend(server.hosts)) as backend:
        create(backend, "a")
        server.ask("HSET", "{smoothcluster}:marks", "a", "not a mark at all")
        with pytest.raises(UnavailableError, match="data that smoothcluster did not write"):
            backend.get("a")
        server.ask("SET", "{smoothcluster}:lease:x", "no set")
        server.ask("DEL", "{smoothcluster}:values")
        server.ask("SET", "{smoothcluster}:values", "no hash")
        with pytest.raises(OutcomeUnknownError):
            create(backend, "b")


def test_a_directory_is_no_key_to_any_commit(backend: RedisBackend) -> None:
    """It cannot be found, updated, deleted or made; nor can a key be made a directory, even in one commit."""
    create(backend, "a/1")
    create(backend, "k")
    for condition in (Exists("a"),):
        assert backend.commit([condition], [Create("b", b"")]) == Refused("a")
    assert backend.commit([], [Update("a", b"")]) == Refused("a")
    assert backend.commit([], [Delete("a")]) == Refused("a")
    with pytest.raises(ValueError, match="'a' is a directory"):
        backend.commit([], [Create("a", b"")])
    with pytest.raises(ValueError, match="'k' holds bytes"):
        backend.commit([], [Create("k/1/2", b"")])
    with pytest.raises(ValueError, match="'n' holds bytes"):
        backend.commit([], [Create("n", b""), Create("n/1/2", b"")])
    assert backend.get_many(["a", "b", "n", "n/1/2"]) == [None] * 4


def test_any_number_of_keys_is_read_at_once(backend: RedisBackend) -> None:
    """More than the script could hand to one command."""
    names = [f"a/{number}" for number in range(20_000)]
    for start in range(0, len(names), 4000):
        backend.commit([], [Create(name, b"") for name in names[start : start + 4000]])
    found = backend.get_many([*names, "a/none"])
    assert [entry.key for entry in found if entry] == names
    assert found[-1] is None
    assert len(backend.list("a")) == len(backend.keys("a")) == len(names)


def test_a_foreign_lease_is_refused(backend: RedisBackend) -> None:
    """A lease of some other backend cannot be meant."""
    with pytest.raises(ValueError, match="not granted"):
        backend.commit([], [Create("a", b"", Faulty(backend).lease(1.0))])


# Watches.


def test_a_watcher_that_has_fallen_behind_is_woken(server: RedisServer) -> None:
    """What it missed may have been trimmed from the stream: then everything watched in that group is woken."""
    proxy = Proxy(server.port)
    with (
        closing(proxy),
        closing(RedisBackend(proxy.hosts)) as backend,
        closing(RedisBackend(server.hosts)) as other,
    ):
        create(other, "g/quiet/1")
        wakes = Wakes()
        backend.watch("g/quiet", wakes)
        eventually(lambda: wakes.count)
        proxy.cut()
        create(other, "g/heard")  # On its way to the watcher, who cannot ask for what follows.
        other.commit([], [Update("g/quiet/1", b"missed")])
        before = wakes.count
        server.ask("XTRIM", f"{servers_of(other).prefix}stream", "MAXLEN", 0)
        create(other, "g/other")
        proxy.mend()
        wakes.since(before)


def test_a_broken_connection_alone_wakes_nobody(server: RedisServer) -> None:
    """A watcher that resumes where it was, and has missed nothing, sleeps on."""
    proxy = Proxy(server.port)
    with (
        closing(proxy),
        closing(RedisBackend(proxy.hosts)) as backend,
        closing(RedisBackend(server.hosts)) as other,
    ):
        wakes, control = Wakes(), Wakes()
        backend.watch("g/a", wakes)
        eventually(lambda: wakes.count)  # The thread that reads the stream wakes all once, whenever it begins.
        backend.watch("g/b", control)
        before = wakes.count
        proxy.reset()
        create(other, "g/b/1")
        control.since(0)
        assert wakes.count == before


def test_groups_do_not_wake_each_other(server: RedisServer) -> None:
    """Each group has a stream of its own: what happens in another one is not even sent."""
    with closing(RedisBackend(server.hosts)) as backend:
        one, two, wakes = backend.for_group("one"), backend.for_group("two"), [Wakes(), Wakes()]
        for client, wake in zip((one, two), wakes, strict=True):
            client.watch("g/a", wake)
        eventually(lambda: all(wake.count for wake in wakes))
        before = [wake.count for wake in wakes]
        create(two, "g/a/1")
        create(two, "g/a/2")
        create(one, "g/a/1")
        for wake, count in zip(wakes, before, strict=True):
            wake.since(count)
        assert server.ask("XLEN", f"{servers_of(one).prefix}stream") == "1"
        assert wakes[0].count == before[0] + 1


def test_a_lease_without_keys_ends_unheard(server: RedisServer) -> None:
    """Nothing has changed, and no entry is missing: the next one wakes whom it concerns, and nobody else."""
    with closing(RedisBackend(server.hosts)) as backend:
        quiet, control = Wakes(), Wakes()
        backend.watch("quiet", quiet)
        eventually(lambda: quiet.count)  # The thread that reads the stream wakes all once, whenever it begins.
        backend.watch("a", control)
        before = quiet.count, control.count
        backend.lease(10.0).revoke()
        create(backend, "a/1")
        control.since(before[1])
        assert quiet.count == before[0]


@pytest.mark.slow
def test_waiting_costs_little(server: RedisServer) -> None:
    """A watcher of a quiet group asks for some commands a second; one who watches nothing, for none."""
    with closing(RedisBackend(server.hosts)) as backend:
        wakes = Wakes()
        watch = backend.watch("a", wakes)
        eventually(lambda: wakes.count)

        def asked(seconds: float) -> float:
            before = _commands(server)
            SYSTEM_CLOCK.sleep(seconds)
            return (_commands(server) - before) / seconds

        assert asked(2.0) < 12
        watch.close()
        SYSTEM_CLOCK.sleep(0.3)
        assert asked(1.0) <= 2


def _commands(server: RedisServer) -> int:
    """How many commands clients have sent; those inside scripts are not counted."""
    lines = server.ask("INFO", "commandstats").splitlines()
    outer = [line for line in lines if line.startswith(("cmdstat_evalsha:", "cmdstat_eval:", "cmdstat_xread:"))]
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in outer)


# A server that does not answer, or refuses.


@pytest.mark.slow
def test_nothing_hangs_on_a_server_that_does_not_answer(server: RedisServer) -> None:
    """Every call ends in time with one of our errors; when the server goes on, so does the client."""
    with closing(RedisBackend(server.hosts, timeout=0.5)) as backend:
        lease = backend.lease(30.0)
        create(backend, "a", b"1", lease)
        server.pause()
        for act in (
            lambda: backend.get("a"),
            lambda: backend.keys("a"),
            lambda: backend.commit([], [Update("a", b"2")]),
            lambda: backend.commit([], [Create("b", b"x" * 900_000, lease)]),
            lambda: backend.lease(1.0),
            lease.renew,
            lease.revoke,
        ):
            start = SYSTEM_CLOCK.monotonic()
            with pytest.raises((UnavailableError, OutcomeUnknownError)):
                act()
            assert SYSTEM_CLOCK.monotonic() - start < 0.8
        backend.watch("a", Wakes())
        server.resume()
        assert eventually(lambda: reached(lambda: backend.keys("none") == []))


def test_a_commit_given_up_on_may_still_be_applied(server: RedisServer) -> None:
    """No answer in time means that the outcome is unknown: the server had it, and gets to it later."""
    with closing(RedisBackend(server.hosts, timeout=0.5)) as backend:
        create(backend, "a", b"old")
        server.pause()
        with pytest.raises(OutcomeUnknownError):
            backend.commit([], [Update("a", b"late")])
        server.resume()
        assert eventually(lambda: reached(lambda: (found := backend.get("a")) and found.value == b"late"))


def test_an_answer_lost_on_the_way_is_an_unknown_outcome(server: RedisServer) -> None:
    """The commit was applied; the caller is told that nobody knows, reads, and sees it. Nothing was sent twice."""
    proxy = Proxy(server.port)
    with closing(proxy), closing(RedisBackend(proxy.hosts, timeout=1.0)) as backend:
        old = create(backend, "a", b"old")
        proxy.swallow_answers(on=True)
        with pytest.raises(OutcomeUnknownError):
            backend.commit([], [Update("a", b"new")])
        proxy.swallow_answers(on=False)
        proxy.reset()
        entry = eventually(lambda: reached(lambda: backend.get("a")))
        assert isinstance(entry, Entry)
        assert entry.value == b"new"
        assert number(entry.version) == number(old) + 1


def test_what_could_not_be_sent_is_certain(server: RedisServer) -> None:
    """With the server gone, a commit on a connection it has ended is unavailable, not unknown: nothing was sent."""
    with closing(RedisBackend(server.hosts, timeout=0.5)) as backend:
        create(backend, "a")
        server.kill()
        for _ in range(2):
            with pytest.raises(UnavailableError):
                backend.commit([], [Update("a", b"")])
        server.start()
        create(backend, "b")


REFUSALS: dict[str, tuple[str, ...]] = {
    "a full memory": ("CONFIG", "SET", "maxmemory", "1"),
    "no replica": ("CONFIG", "SET", "min-replicas-to-write", "1"),
    "a replica": ("REPLICAOF", "127.0.0.1", "1"),
}


@pytest.mark.parametrize("words", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_certain(server: RedisServer, words: tuple[str, ...]) -> None:
    """A server that takes no changes says so before it makes any: the commit is unavailable, and nothing of it done."""
    with closing(RedisBackend(server.hosts)) as backend:
        create(backend, "a/1", b"old")
        server.ask(*words)
        with pytest.raises(UnavailableError, match=r"Redis at 127\.0\.0\.1:\d+"):
            backend.commit([], [Update("a/1", b"new"), Create("a/2", b"")])
        server.ask("CONFIG", "SET", "maxmemory", "0")
        server.ask("CONFIG", "SET", "min-replicas-to-write", "0")
        server.ask("REPLICAOF", "NO", "ONE")
        assert eventually(lambda: reached(lambda: backend.keys("a"))) == ["a/1"]


def test_a_server_busy_with_anothers_script_is_a_refusal(server: RedisServer) -> None:
    """BUSY: nothing was applied; when the script is over, or was killed, the same client goes on."""
    server.ask("CONFIG", "SET", "busy-reply-threshold", "50")
    with closing(RedisBackend(server.hosts)) as backend:
        create(backend, "a", b"old")
        loop = subprocess.Popen(
            ["redis-cli", "-p", str(server.port), "EVAL", "while true do end", "0"], stdout=subprocess.DEVNULL
        )
        try:
            eventually(lambda: server.ask("PING").startswith("BUSY"))
            with pytest.raises(UnavailableError, match="BUSY"):
                backend.commit([], [Update("a", b"new")])
        finally:
            server.ask("SCRIPT", "KILL")
            loop.wait(10)
        entry = eventually(lambda: reached(lambda: backend.get("a")))
        assert isinstance(entry, Entry)
        assert entry.value == b"old"


def test_a_forgotten_script_is_loaded_again(server: RedisServer) -> None:
    """NOSCRIPT: after SCRIPT FLUSH, as after a restart, the script itself is sent."""
    with closing(RedisBackend(server.hosts)) as backend:
        create(backend, "a")
        assert server.ask("SCRIPT", "FLUSH") == "OK"
        create(backend, "b")


def test_an_unreachable_server_is_named_in_time() -> None:
    """Who was asked, what came of it, and what to check; no secret."""
    port = free_port()
    with closing(RedisBackend(f"127.0.0.1:{port}", timeout=0.5, username="me", password=SECRET)) as backend:
        start = SYSTEM_CLOCK.monotonic()
        with pytest.raises(UnavailableError, match=rf"127\.0\.0\.1:{port} .*refused.*check") as caught:
            backend.get("a")
        assert SYSTEM_CLOCK.monotonic() - start < 1.5
        assert SECRET not in str(caught.value)


def test_one_silent_server_does_not_use_up_the_time_for_the_others(redis_hosts: str) -> None:
    """A server that accepts and says nothing is left for the next within its share of the time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{silent.getsockname()[1]},{redis_hosts}"
        with closing(RedisBackend(hosts, timeout=2.0, namespace="test-silent")) as backend:
            assert backend.get("a") is None


def test_no_driver_retries_behind_our_back(server: RedisServer) -> None:
    """A dropped answer means one attempt: the server saw the commit once."""
    proxy = Proxy(server.port)
    with closing(proxy), closing(RedisBackend(proxy.hosts, timeout=0.5)) as backend:
        create(backend, "a")
        proxy.swallow_answers(on=True)
        before = _commands(server)
        with pytest.raises(OutcomeUnknownError):
            backend.commit([], [Update("a", b"")])
        assert _commands(server) == before + 1


# Persistence.


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ({"appendonly": "no"}, "no persistence"),
        ({"maxmemory-policy": "allkeys-lru"}, "evicts"),
        ({"appendonly": "no", "save": "3600 1"}, None),
        ({}, None),
    ],
    ids=["none", "evicting", "snapshots", "appendonly"],
)
def test_a_server_that_keeps_nothing_is_warned_of(
    lines: dict[str, object], complaint: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each backend, whichever groups are asked for, in the log, with what to set."""
    with RedisServer(lines) as server, closing(RedisBackend(server.hosts)) as backend:
        for part in (backend.for_group("one"), backend, backend.for_group("two")):
            part.get("a")
            servers_of(part).connect(SYSTEM_CLOCK.monotonic() + 5.0).close()
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == (1 if complaint else 0)
    assert complaint is None or complaint in warnings[0]


# Who may do what.

ACL = (
    block("backends/redis/README.md", "text", "ACL SETUSER")
    .removeprefix("ACL SETUSER crawler ")
    .replace(">…", ">secret-of-acl")
    .strip()
)


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    """A server that demands a password, and knows some users."""
    users = [
        f"crawler {ACL}",
        f"weak {ACL} -xadd",
        f"unlisted {ACL} -sscan",
        f"elsewhere {ACL.replace('{smoothcluster', '{other')}",
        f"docs {ACL.replace('~{smoothcluster}:* ~{smoothcluster/*}', '~{smoothcluster/docs}')}",
    ]
    with RedisServer({"requirepass": f'"{SECRET}"', "user": users}) as server:
        yield server


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "requires credentials"),
        ({"password": "guessed"}, "username or password"),
        ({"username": "crawler", "password": "guessed"}, "username or password"),
        ({"username": "nobody", "password": SECRET}, "username or password"),
        ({"username": "weak", "password": "secret-of-acl"}, "must be allowed XADD"),
        ({"username": "unlisted", "password": "secret-of-acl"}, "must be allowed SSCAN"),
        ({"username": "elsewhere", "password": "secret-of-acl"}, r"NOPERM|the user lacks a permission"),
    ],
    ids=[
        "none",
        "wrong",
        "wrong for a user",
        "unknown user",
        "a command missing",
        "another command missing",
        "other keys",
    ],
)
def test_a_server_that_demands_credentials_keeps_others_out(
    guarded: RedisServer, options: dict[str, str], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every call is AccessDeniedError, which says so, and no message or log tells a secret."""
    caplog.set_level(logging.NOTSET)
    with closing(RedisBackend(guarded.hosts, **options)) as intruder:  # type: ignore[arg-type]
        acts: list[Callable[[], object]] = [
            lambda: intruder.get("a"),
            lambda: intruder.keys("a"),
            lambda: intruder.commit([], [Create("a", b"")]),
            lambda: intruder.lease(1.0),
        ]
        intruder.watch("a", Wakes())
        for act in acts:
            with pytest.raises(AccessDeniedError, match=says) as caught:
                act()
            for secret in (SECRET, "guessed", "secret-of-acl"):
                assert secret not in str(caught.value)
    for secret in (SECRET, "guessed", "secret-of-acl"):
        assert secret not in caplog.text


@pytest.mark.parametrize(
    "options",
    [{"password": SECRET}, {"username": "default", "password": SECRET},
     {"username": "crawler", "password": "secret-of-acl"}],
    ids=["password", "default user", "ACL user"],
)  # fmt: skip
def test_the_right_credentials_are_let_in(
    guarded: RedisServer, options: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """With a password or as a user of the server's; neither the log nor what can be printed shows them."""
    caplog.set_level(logging.NOTSET)
    with closing(RedisBackend(guarded.hosts, **options)) as backend:  # type: ignore[arg-type]
        for part in (backend, backend.for_group("docs")):
            wakes = Wakes()
            part.watch("a", wakes)
            lease = part.lease(10.0)
            create(part, "a/1", b"", lease)
            wakes.since(0)
            assert part.keys("a") == ["a/1"]
            lease.revoke()
            assert part.get("a/1") is None
        shown = f"{backend!r} {backend.url} {vars(backend)!r} {caplog.text}"
    assert options["password"] not in shown


def test_a_user_can_be_let_in_to_one_group_alone(guarded: RedisServer) -> None:
    """By the hash tag of that group: what belongs to others, or to none, is out of reach."""
    with closing(RedisBackend(guarded.hosts, username="docs", password="secret-of-acl")) as backend:
        job = Cluster(backend, "docs").submit([Task(id="a")])
        assert job.progress().pending == 1
        for part in (backend, backend.for_group("other"), backend.for_group("docs2")):
            with pytest.raises(AccessDeniedError, match="no permissions"):
                part.get("docs/spec")


def test_credentials_that_a_server_does_not_know_of_are_refused(redis_hosts: str) -> None:
    """One without a password does not take any for good."""
    with closing(RedisBackend(redis_hosts, password=SECRET)) as backend, pytest.raises(AccessDeniedError) as caught:
        backend.get("a")
    assert SECRET not in str(caught.value)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem and, signed by it, server.pem and client.pem with their .key; other-ca.pem signed neither."""
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder, "IP:127.0.0.1,DNS:localhost", elsewhere="DNS:elsewhere")
    return folder


def tls_server(certificates: Path, name: str) -> RedisServer:
    """A server that speaks TLS alone, as *name*, and wants a client's certificate, as is Redis's default."""
    server = RedisServer()
    server.configure(
        {
            "port": 0,
            "tls-port": server.port,
            "bind": "127.0.0.1",
            "appendonly": "no",
            "save": '""',
            "tls-cert-file": certificates / f"{name}.pem",
            "tls-key-file": certificates / f"{name}.key",
            "tls-ca-cert-file": certificates / "ca.pem",
        }
    )
    return server


@pytest.fixture(scope="module")
def tls(certificates: Path) -> Iterator[RedisServer]:
    """One whose certificate is right."""
    with tls_server(certificates, "server") as server:
        yield server


def test_tls_with_a_clients_certificate(tls: RedisServer, certificates: Path) -> None:
    """Everything works over TLS, large answers too; the URL says so."""
    with closing(
        RedisBackend(
            tls.hosts,
            ca=str(certificates / "ca.pem"),
            certfile=str(certificates / "client.pem"),
            keyfile=str(certificates / "client.key"),
        )
    ) as backend:
        assert backend.url == f"rediss://{tls.hosts}/0"
        backend.commit([], [Create(f"a/{number}", b"x" * 3000) for number in range(300)])
        wakes = Wakes()
        backend.watch("a", wakes)
        lease = backend.lease(10.0)
        create(backend, "a/leased", b"", lease)
        wakes.since(0)
        assert len(backend.list("a")) == 301
        lease.revoke()
        assert backend.get("a/leased") is None


def test_a_connection_over_tls_is_kept(tls: RedisServer, certificates: Path) -> None:
    """What TLS itself sends now and then is not taken for the server ending the connection."""
    pair = {"certfile": str(certificates / "client.pem"), "keyfile": str(certificates / "client.key")}
    with closing(RedisBackend(tls.hosts, ca=str(certificates / "ca.pem"), **pair)) as backend:  # type: ignore[arg-type]
        backend.get("a")
        (link,) = servers_of(backend)._idle  # pyright: ignore[reportPrivateUsage]
        for _ in range(5):
            backend.get("a")
        assert servers_of(backend)._idle == [link]  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("ca", "own", "name"),
    [
        ("other-ca.pem", True, "server"),
        (None, True, "server"),
        ("ca.pem", True, "elsewhere"),
        ("ca.pem", False, "server"),
    ],
    ids=["unknown authority", "the system's authorities", "another name", "no certificate of ours"],
)
def test_tls_that_does_not_agree(certificates: Path, ca: str | None, own: bool, name: str) -> None:
    """A server that cannot prove who it is, or to whom we cannot, is not spoken to; the error says that it is TLS."""
    with (
        tls_server(certificates, name) as server,
        closing(
            RedisBackend(
                server.hosts,
                timeout=2.0,
                use_ssl=True,
                ca=ca and str(certificates / ca),
                certfile=str(certificates / "client.pem") if own else None,
                keyfile=str(certificates / "client.key") if own else None,
            )
        ) as backend,
        pytest.raises(UnavailableError, match="speaks TLS"),
    ):
        backend.get("a")


def test_tls_and_plain_do_not_mix(tls: RedisServer, redis_hosts: str) -> None:
    """The error says which of the two was spoken."""
    with closing(RedisBackend(tls.hosts, timeout=0.5)) as plain, pytest.raises(UnavailableError, match="not TLS"):
        plain.get("a")
    with (
        closing(RedisBackend(redis_hosts, timeout=0.5, use_ssl=True)) as secure,
        pytest.raises(UnavailableError, match="speaks TLS"),
    ):
        secure.get("a")


# Several servers.


@pytest.fixture
def sentinels() -> Iterator[RedisSentinels]:
    """A primary, its replica and three Sentinels, for one test."""
    with RedisSentinels() as servers:
        yield servers


@pytest.mark.slow
def test_a_failover_is_followed(sentinels: RedisSentinels) -> None:
    """The client finds the new primary; leases have their full time again, versions never come twice, watches wake."""
    url = f"redis+sentinel://{sentinels.hosts}/{sentinels.SERVICE}/0"
    with closing(RedisBackend.from_url(url, timeout=1.0)) as backend:
        assert backend.url == url
        lease = backend.lease(1.5)
        version = create(backend, "g/leased", b"", lease)
        replication = backend.history().partition("replication ")[2].partition(",")[0]
        wakes = Wakes()
        backend.watch("g", wakes)
        eventually(lambda: wakes.count)
        offset = _offset(sentinels.primary)
        eventually(lambda: _offset(sentinels.replica) >= offset)
        before = wakes.count
        sentinels.primary.kill()
        entry = eventually(lambda: reached(lambda: backend.get("g/leased")))
        assert sentinels.promoted()
        assert isinstance(entry, Entry)
        assert lease.renew() is True
        wakes.since(before)
        assert refused(backend.commit([], [Update("g/leased", b"", version)])) == "g/leased"
        outcome = backend.commit([], [Update("g/leased", b"", entry.version)])
        assert isinstance(outcome, Committed)
        assert number(outcome.versions["g/leased"]) > number(version) + 10**8
        assert f"after {replication} up to offset" in backend.history()
        before = wakes.count
        create(backend, "g/new")
        wakes.since(before)


@pytest.mark.slow
def test_a_primary_that_was_replaced_is_left(sentinels: RedisSentinels) -> None:
    """A client connected to a primary that is made a replica goes to the new one; nothing it wrote is doubtful."""
    with closing(RedisBackend(sentinels.hosts, service=sentinels.SERVICE, timeout=1.0)) as backend:
        create(backend, "a", b"old")

        def failed_over() -> bool:
            if (
                not sentinels.promoted()
            ):  # Given up again, as long as the Sentinel has not heard from the replica itself.
                sentinels.sentinels[0].ask("SENTINEL", "FAILOVER", sentinels.SERVICE)
            return sentinels.promoted()

        eventually(failed_over)
        eventually(lambda: "role:slave" in sentinels.primary.ask("INFO", "replication"))
        assert eventually(lambda: reached(lambda: backend.commit([], [Update("a", b"new")])))
        assert sentinels.replica.ask("HGET", "{smoothcluster}:values", "a") == "new"


def _offset(server: RedisServer) -> int:
    """How far its history goes."""
    lines = server.ask("INFO", "replication").splitlines()
    found = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return int(found.get("slave_repl_offset") or found["master_repl_offset"])


def test_sentinels_that_do_not_know_the_service(server: RedisServer) -> None:
    """They are named; so is what to check."""
    sentinel = RedisServer({"sentinel": ["resolve-hostnames no"]}, sentinel=True)
    with (
        sentinel,
        closing(RedisBackend(sentinel.hosts, service="nowhere", timeout=1.0)) as backend,
        pytest.raises(UnavailableError, match=rf"{sentinel.hosts}.*'nowhere'"),
    ):
        backend.get("a")


# Addresses, processes and closing.


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0",
        "redis://h1:6379,h2:6380/3?namespace=docs",
        "rediss://[::1]:6379/0",
        "redis+sentinel://s1:26379,s2:26380/service/1",
        "rediss+sentinel://s1:26379/service/0",
    ],
)
def test_a_url_leads_back(url: str) -> None:
    """What a backend says of where it is, `from_url` takes."""
    with closing(RedisBackend.from_url(url)) as backend:
        assert backend.url == url


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("redis://h", "redis://h:6379/0"),
        ("redis://h:1/", "redis://h:1/0"),
        ("redis+sentinel://h/s", "redis+sentinel://h:26379/s/0"),
    ],
)
def test_what_a_url_leaves_out(short: str, full: str) -> None:
    """Port and database have Redis's defaults."""
    with closing(RedisBackend.from_url(short)) as backend:
        assert backend.url == full


@pytest.mark.parametrize(
    ("hosts", "options"),
    [
        ("", {}),
        ("h:port", {}),
        ("h:6379/0", {}),
        (f"me:{SECRET}@h:6379", {}),
        ("h", {"namespace": ""}),
        ("h", {"namespace": "a/b"}),
        ("h", {"service": ""}),
        ("h", {"db": -1}),
        ("redis://h", {}),
        ("h", {"username": "me"}),
        ("h", {"timeout": 0.0}),
        ("h", {"ca": "/no/such/file"}),
    ],
)
def test_wrong_settings_are_said_at_once(hosts: str, options: dict[str, object]) -> None:
    """Before anything is connected, and without showing a password."""
    with pytest.raises(UsageError) as caught:
        RedisBackend(hosts, **options)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "radis://h",
        "redis://h?db=1",
        f"redis://me:{SECRET}@h",
        "h:6379",
        "redis://h/x",
        "redis+sentinel://h",
        "redis+x://h",
    ],
)
def test_wrong_urls_are_said_at_once(url: str) -> None:
    """As settings are."""
    with pytest.raises(UsageError) as caught:
        RedisBackend.from_url(url)
    assert SECRET not in str(caught.value)


def test_databases_are_apart(server: RedisServer) -> None:
    """The number in the URL is the database."""
    with (
        closing(RedisBackend.from_url(f"{server.url}/1")) as one,
        closing(RedisBackend.from_url(f"{server.url}/2")) as two,
    ):
        create(one, "a")
        assert two.get("a") is None


def test_threads_do_not_share_a_connection(backend: RedisBackend) -> None:
    """Whoever asks gets the answer to their own question, and connections are used again."""
    for number in range(8):
        create(backend, f"a/{number}", str(number).encode())
    wrong: list[object] = []

    def read(number: int) -> None:
        for _ in range(200):
            entry = backend.get(f"a/{number}")
            if entry is None or entry.value != str(number).encode():
                wrong.append(entry)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(servers_of(backend)._idle) <= 8  # pyright: ignore[reportPrivateUsage]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_leaves_the_connections_to_its_parent(
    backend: RedisBackend, connect: Callable[..., RedisBackend]
) -> None:
    """It is told to make a client of its own, which works; it does not end its parent's connections."""
    create(backend, "a", b"parent")
    (link,) = servers_of(backend)._idle  # pyright: ignore[reportPrivateUsage]
    child = os.fork()
    if child == 0:
        try:
            with pytest.raises(UsageError, match="forked"):
                backend.get("a")
            backend.close()
            with closing(connect()) as own:
                entry = own.get("a")
            os._exit(0 if entry and entry.value == b"parent" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert backend.get("a") is not None
    assert servers_of(backend)._idle == [link]  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("state", ["connected", "never connected", "cut off", "silent"])
def test_closing_leaves_no_thread(server: RedisServer, state: str) -> None:
    """Whatever it was doing, in whichever parts of the store, and soon."""
    before = set(threading.enumerate())
    hosts = f"127.0.0.1:{free_port()}" if state == "never connected" else server.hosts
    backend = RedisBackend(hosts, timeout=1.0)
    for part in (backend, backend.for_group("one"), backend.for_group("two")):
        part.watch("a", Wakes())
        if state != "never connected":
            part.lease(10.0)
    if state == "cut off":
        server.kill()
    if state == "silent":
        server.pause()
    start = SYSTEM_CLOCK.monotonic()
    backend.close()
    backend.close()
    assert SYSTEM_CLOCK.monotonic() - start < 2.0
    assert set(threading.enumerate()) <= before
    with pytest.raises(UnavailableError, match="closed"):
        backend.for_group("three").watch("a", Wakes())


def test_closing_waits_for_no_server(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads of watches wait for entries of a stream: the close ends that wait, however long it is."""
    monkeypatch.setattr("smoothcluster_redis.watches._READ_BLOCK_SECONDS", 3600.0)
    backend = RedisBackend(server.hosts, timeout=3600.0)
    for part in (backend, backend.for_group("one")):
        part.watch("a", Wakes())
    eventually(lambda: "blocked_clients:2" in server.ask("INFO", "clients"))
    closer = threading.Thread(target=backend.close, daemon=True)
    closer.start()
    closer.join(30.0)
    assert not closer.is_alive()


def test_closing_leaves_no_connection(server: RedisServer) -> None:
    """Those of all parts end."""
    with closing(RedisBackend(server.hosts)) as backend:
        for part in (backend, backend.for_group("one"), backend.for_group("two")):
            assert part.get("a") is None
        assert server.ask("CLIENT", "LIST").count("\n") == 3  # And the one that asks for this.
    assert eventually(lambda: server.ask("CLIENT", "LIST").count("\n") == 0)


def test_closing_revokes_nothing(connect: Callable[..., RedisBackend]) -> None:
    """Leases that were not given back run out: their keys are there after the client has closed."""
    backend, other = connect(), connect()
    create(backend, "a", b"", backend.lease(10.0))
    backend.close()
    assert other.get("a") is not None
