"""What a Redis server refuses, and the error that says why: no memory, no permission, no room for another client.

And what a server loses that evicts keys.
"""

import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from cli_kit import invoke_on
from pages import block
from redis.exceptions import ResponseError
from redis_server import RedisServer
from smoothcluster_redis import RedisBackend
from smoothcluster_redis.errors import translate_error

from smoothcluster import Cluster, ClusterCrawler, Role, Task, TaskContext
from smoothcluster.backend import Committed, Create, Delete, Entry, Update
from smoothcluster.errors import AccessDeniedError, OutcomeUnknownError, TasksLostError, UnavailableError
from smoothcluster.jobs import progress
from smoothcluster.testing import eventually
from smoothcluster.testing.conformance.kit import create

FULL = r"Redis at 127\.0\.0\.1:\d+ is full \(maxmemory 1\.00M, noeviction\): raise maxmemory or free memory"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own."""
    with RedisServer({"appendfsync": "no"}) as server:
        yield server


def fill(server: RedisServer) -> None:
    """The server uses more memory than it may."""
    server.ask("CONFIG", "SET", "maxmemory", "1mb")


def empty(server: RedisServer) -> None:
    """There is room again."""
    server.ask("CONFIG", "SET", "maxmemory", "0")


# Full.


def test_a_full_server_is_named_and_answers_all_that_needs_no_memory(server: RedisServer) -> None:
    """Reads, renewals and deletions, of clients old and new, and for as long as it is full."""
    with closing(RedisBackend(server.hosts)) as old, closing(RedisBackend(server.hosts)) as new:
        create(old, "a/1", b"x")
        create(old, "a/2", b"x")
        lease = old.lease(0.5)
        create(old, "a/leased", b"", lease)
        fill(server)
        steps = server_clock(server)
        # The lease clock goes on: else a wait for the end of a lease would be endless.
        eventually(lambda: lease.renew() and server_clock(server) > steps + 1500)
        for backend in (old, new):
            assert backend.keys("a") == ["a/1", "a/2", "a/leased"]
            assert len(backend.list("a")) == 3
            for act in (
                lambda: backend.commit([], [Update("a/1", b"y")]),  # noqa: B023
                lambda: backend.commit([], [Delete("a/2"), Create("a/3", b"y")]),  # noqa: B023
                lambda: backend.lease(5.0),  # noqa: B023
            ):
                with pytest.raises(UnavailableError, match=FULL):
                    act()
        assert isinstance(new.commit([], [Delete("a/2")]), Committed)
        lease.revoke()
        assert new.keys("a") == ["a/1"]
        empty(server)
        assert isinstance(old.commit([], [Update("a/1", b"y")]), Committed)


def server_clock(server: RedisServer) -> int:
    """The lease clock of the store, in milliseconds."""
    return int(server.ask("HGET", "{smoothcluster}:meta", "clock"))


def test_a_full_server_that_was_restarted_answers_reads(server: RedisServer) -> None:
    """The new history is noted in fields that are there already."""
    with closing(RedisBackend(server.hosts)) as backend:
        create(backend, "a", b"x")
        (entry,) = backend.get_many(["a"])
        assert entry is not None
        server.configure({"port": server.port, "dir": server.folder, "appendonly": "yes", "maxmemory": "1mb"})
        server.restart()
        found = eventually(lambda: reached(backend, "a"))
        assert found is not None
        assert found.value == b"x"
        assert found.version != entry.version, "what was read before the restart may be lost"
        with pytest.raises(UnavailableError, match=FULL):
            backend.commit([], [Update("a", b"y")])


def reached(backend: RedisBackend, key: str) -> Entry | None:
    """What the store has at *key*; None without an answer."""
    try:
        return backend.get(key)
    except (UnavailableError, OutcomeUnknownError):
        return None


def test_reading_goes_on_while_the_server_cannot_save() -> None:
    """MISCONF: a server that could not write its snapshot refuses every change, and no read, whoever asks."""
    with RedisServer({"save": "3600 1", "dbfilename": "taken"}) as server, ExitStack() as stack:
        backend = stack.enter_context(closing(RedisBackend(server.hosts)))
        create(backend, "a", b"old")
        Path(server.ask("CONFIG", "GET", "dir").splitlines()[1], "taken").mkdir()
        server.ask("BGSAVE")
        eventually(lambda: "rdb_last_bgsave_status:err" in server.ask("INFO", "persistence"))
        with pytest.raises(UnavailableError, match=r"disk.*MISCONF"):
            backend.commit([], [Update("a", b"new")])
        for each in (backend, stack.enter_context(closing(RedisBackend(server.hosts)))):
            (entry,) = each.get_many(["a"])
            assert entry is not None
            assert entry.value == b"old"
        server.ask("CONFIG", "SET", "save", "")  # Or it would not let itself be stopped.


@pytest.mark.slow
def test_a_member_pauses_while_the_server_is_full(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """One line says so and one that it is over; status reads meanwhile; then all tasks end."""
    gate = threading.Event()

    def wait(task: Task, context: TaskContext) -> str:
        gate.wait(60.0)
        return task.id

    with closing(RedisBackend(server.hosts)) as backend, closing(RedisBackend(server.hosts)) as other:
        crawler = ClusterCrawler(backend=backend, runner=1, handler=wait, lease_ttl=2.0, concurrency=2).start()
        try:
            job = Cluster(backend).submit([Task(id=str(number)) for number in range(50)])
            eventually(lambda: Cluster(other).status()["tasks"]["running"])
            fill(server)
            gate.set()
            eventually(lambda: caplog.messages)
            # Longer than the lease: renewals and reads succeed, and do not end the outage.
            steps = server_clock_of(server, "default")
            eventually(lambda: server_clock_of(server, "default") > steps + 3000)
            assert [each["role"] for each in Cluster(other).status()["members"]] == ["runner"]
            assert crawler.role is Role.RUNNER
            empty(server)
            assert job.wait(60.0).done == 50
        finally:
            empty(server)
            crawler.stop()
    outage = [message for message in caplog.messages if "the store is" in message]
    assert [message.partition(":")[0] for message in outage] == [
        "the store is unavailable", "the store is available again",
    ]  # fmt: skip
    assert "is full (maxmemory 1.00M, noeviction)" in outage[0]


def server_clock_of(server: RedisServer, group: str) -> int:
    """The lease clock of a group."""
    return int(server.ask("HGET", f"{{smoothcluster/{group}}}:meta", "clock"))


# Permissions, clients, databases: the server has answered, so no address is to be checked.

ACL = block("backends/redis/README.md", "text", "ACL SETUSER").removeprefix("ACL SETUSER crawler ").strip().split()


@pytest.mark.parametrize("command", ["info", "time", "eval", "evalsha", "hset", "xread"])
def test_the_command_that_a_user_lacks_is_named(server: RedisServer, command: str) -> None:
    """With what to do; also where the script, and not the client, is the one to run it."""
    server.ask("ACL", "SETUSER", "crawler", "on", *(each.replace("…", "pw") for each in ACL), f"-{command}")
    with closing(RedisBackend(server.hosts, username="crawler", password="pw")) as backend:
        with pytest.raises(AccessDeniedError, match=rf"(?i){command}\b.*ACL SETUSER") as caught:
            backend.get("a")
        assert "check the addresses" not in str(caught.value)


@pytest.mark.parametrize("command", ["info", "hset"])
def test_a_permission_taken_away_later_is_named_too(server: RedisServer, command: str) -> None:
    """The outcome of a commit that the script may have begun is unknown; whoever reads is denied."""
    server.ask("ACL", "SETUSER", "crawler", "on", *(each.replace("…", "pw") for each in ACL))
    with closing(RedisBackend(server.hosts, username="crawler", password="pw")) as backend:
        create(backend, "a", b"")
        server.ask("ACL", "SETUSER", "crawler", f"-{command}")
        with pytest.raises((OutcomeUnknownError, AccessDeniedError), match="lacks a permission"):
            backend.commit([], [Update("a", b"")]) if command == "hset" else backend.history()


def test_too_many_clients_are_named(server: RedisServer) -> None:
    """With the setting to raise."""
    server.ask("CONFIG", "SET", "maxclients", "2")
    with ExitStack() as stack:
        for _ in range(2):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5.0))
            connection.sendall(b"PING\r\n")
            connection.recv(100)
        backend = stack.enter_context(closing(RedisBackend(server.hosts)))
        with pytest.raises(UnavailableError) as caught:
            backend.get("a")
    # The server closes the connection after the error, which may reset it before the error is read.
    said = str(caught.value)
    assert "raise maxclients" in said or "reset" in said or "closed" in said


def test_a_database_that_is_not_there_is_named(server: RedisServer) -> None:
    """As the server says it."""
    with (
        closing(RedisBackend(server.hosts, db=99)) as backend,
        pytest.raises(UnavailableError, match="DB index is out of range") as caught,
    ):
        backend.get("a")
    assert "check the addresses" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ResponseError("Redis is running in protected mode", status_code="DENIED"), "protected mode"),
        (ResponseError("NOCOMMAND INFO", status_code="NOCOMMAND"), "INFO"),
        (ResponseError("max number of clients reached", status_code="ERR"), "raise maxclients"),
        (ResponseError("ACL failure in script: no permission", status_code="NOPERM"), "ACL SETUSER"),
    ],
    ids=["protected", "renamed", "clients", "newer"],
)
def test_other_refusals_are_named(error: Exception, says: str) -> None:
    """That need another server, or other settings, than the tests have."""
    assert says in str(translate_error(error, "h:1"))


# Eviction.


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru"])
def test_eviction_is_warned_of_where_config_is_forbidden(
    server: RedisServer, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As on most hosted servers; INFO tells it, too. Whatever policy evicts at all."""
    server.ask("CONFIG", "SET", "maxmemory-policy", policy)
    server.ask("ACL", "SETUSER", "crawler", "on", *(each.replace("…", "pw") for each in ACL))
    with closing(RedisBackend(server.hosts, username="crawler", password="pw")) as backend:
        backend.get("a")
    (warning,) = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert f"maxmemory-policy {policy}" in warning
    assert "set noeviction" in warning


@pytest.mark.slow
def test_a_job_whose_chunks_were_evicted_says_so(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """In status, in wait and in an event of the member that found it; the other tasks end."""
    monkeypatch.setattr(progress, "LOSS_CHECK_SECONDS", 0.5)
    with closing(RedisBackend(server.hosts)) as backend:
        cluster = Cluster(backend)
        job = cluster.submit([Task(id=str(number)) for number in range(100)], "j")
        lists = server.ask("KEYS", "{smoothcluster/default}:children:default/tasks/*").split()
        evicted = server.ask("DEL", *sorted(lists)[: len(lists) // 2])
        assert int(evicted) > 1
        with ClusterCrawler(backend=backend, runner=1, handler=lambda task, context: task.id, lease_ttl=2.0):
            (event,) = eventually(lambda: [e for e in cluster.events() if e["kind"] == "tasks_lost"])
            with pytest.raises(TasksLostError, match="submit the lost tasks again") as caught:
                job.wait(60.0)
        ended = job.progress()
        assert ended.done > 0
        numbers = {"written": 100, "accounted": ended.done, "lost": 100 - ended.done}
        assert {name: event[name] for name in numbers} == numbers
        assert f"the store has lost {100 - ended.done} tasks of job j" in str(caught.value)
        found = json.loads(invoke_on(server.url)("status", "--json").stdout)
        assert (found["jobs"], found["lost"]) == ({"j": "lost"}, {"j": numbers})
        assert str(caught.value) in invoke_on(server.url)("status").stdout
        waited = invoke_on(server.url)("wait", "j", "--json")
        assert waited.exit_code == 1
        assert json.loads(waited.stdout)["lost"] == 100 - ended.done
        assert str(caught.value) in waited.stderr


def test_evicted_values_are_named(server: RedisServer) -> None:
    """The hash of all values may go as a whole; then nothing can be read, and that is not a stranger's data."""
    with closing(RedisBackend(server.hosts)) as backend:
        create(backend, "a/1", b"x")
        server.ask("DEL", "{smoothcluster}:values")
        with pytest.raises(UnavailableError, match=r"lost the value of a/1.*noeviction"):
            backend.get("a/1")
