"""Why a ZooKeeper server that accepts connections refuses a session, and what kazoo logs."""

import logging
import shutil
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager

import pytest
from cli_kit import invoke_on
from smoothcluster_zookeeper import ZookeeperBackend
from smoothcluster_zookeeper.refusals import CLOSED_AT_ONCE, NOT_SERVING, OLDER_SERVER, explain_refusal
from zookeeper_server import ZookeeperServer

from smoothcluster.errors import UnavailableError
from smoothcluster.testing import eventually
from smoothcluster.testing.conformance.kit import create

SECRET = "open sesame"


def refusal(backend: ZookeeperBackend, ask: Callable[[ZookeeperBackend], object] = lambda each: each.get("a")) -> str:
    """The error of a request, of a read by default; empty if the store has answered."""
    try:
        ask(backend)
    except UnavailableError as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_the_limit_of_connections_is_named() -> None:
    """maxClientCnxns: for a client that is new, and for the lease of one that is connected."""
    with (
        ZookeeperServer(tick_time=200, settings={"maxClientCnxns": 1}) as server,
        closing(ZookeeperBackend(server.hosts, timeout=1.0)) as first,
        closing(ZookeeperBackend(server.hosts, timeout=1.0)) as second,
    ):
        first.get("a")
        # Another connection finds the reason. If the machine is slow, an error comes before the reason is known.
        said = eventually(lambda: [text for text in [refusal(second)] if "raise maxClientCnxns" in text])[0]
        assert f"ZooKeeper refused a session within 1 s ({server.hosts}: " in said
        assert "check the addresses" not in said
        eventually(lambda: "raise maxClientCnxns" in refusal(first, lambda backend: backend.lease(2.0)))


@pytest.mark.slow
def test_a_server_that_was_emptied_is_used_again() -> None:
    """It refuses the sessions that have seen more than it has: the client begins anew, and says so by the history."""
    with ZookeeperServer(tick_time=200) as server, closing(ZookeeperBackend(server.hosts, timeout=1.0)) as backend:
        for number in range(3):
            create(backend, f"a/{number}")
        before = backend.history()
        server.kill()
        shutil.rmtree(server.folder / "data" / "version-2")
        server.start()
        eventually(lambda: not refusal(backend))
        assert (backend.keys("a"), backend.history() != before) == ([], True)


@contextmanager
def impostor(answer: bytes | None) -> Generator[int]:
    """A port where a server gives this *answer* to any request; None: it closes each connection before any."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            with connection:
                if answer is not None and connection.recv(100):
                    connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "seen", "says"),
    [
        (None, 0, CLOSED_AT_ONCE),
        (b"This ZooKeeper instance is not currently serving requests\n", 0, NOT_SERVING),
        (b"Zookeeper version: 3.8\nZxid: 0x10\nMode: follower\n", 17, OLDER_SERVER),
        (b"Zookeeper version: 3.8\nZxid: 0x10\nMode: follower\n", 16, "see the server's log"),
        (b"srvr is not executed because it is not in the whitelist.\n", 17, "see the server's log"),
        (b"", 17, "port speaks plain TCP"),
    ],
    ids=["closed at once", "not serving", "older", "as new", "not told", "silent"],
)
def test_the_reason_is_found_by_another_connection(answer: bytes | None, seen: int, says: str) -> None:
    """As far as the server tells it."""
    with impostor(answer) as port:
        found = explain_refusal(lambda: socket.create_connection(("127.0.0.1", port), 5.0), seen, tls=False)
    assert says in found


def test_a_server_that_is_gone_meanwhile_is_no_new_error() -> None:
    """The reason stays unknown."""

    def refused() -> socket.socket:
        raise ConnectionRefusedError

    assert "port speaks TLS" in explain_refusal(refused, 0, tls=True)


def test_kazoo_can_be_heard_and_tells_no_secret(zookeeper_hosts: str, caplog: pytest.LogCaptureFixture) -> None:
    """A user who wants its messages sets the level of its logger."""
    caplog.set_level(1, "smoothcluster_zookeeper.kazoo")
    with closing(ZookeeperBackend(zookeeper_hosts, username="me", password=SECRET)) as backend:
        backend.get("a")
    assert "Connecting to" in caplog.text
    assert "Auth(" in caplog.text
    for secret in (SECRET, "session_passwd"):
        assert secret not in caplog.text


def test_by_default_kazoo_is_silent(zookeeper_hosts: str, caplog: pytest.LogCaptureFixture) -> None:
    """At every level of the application's own loggers."""
    caplog.set_level(logging.NOTSET)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(closing(ZookeeperBackend(zookeeper_hosts))).get("a")
    assert [each.getMessage() for each in caplog.records if "kazoo" in each.name] == []


def test_a_verbose_command_shows_what_kazoo_does(zookeeper_hosts: str) -> None:
    """Without --verbose there is the command's own error alone."""
    invoke = invoke_on(f"zookeeper://{zookeeper_hosts}")
    assert "Connecting to" not in invoke("status", "--group", "nope").stderr
    assert "Connecting to" in invoke("status", "--group", "nope", "--verbose").stderr
    assert "Connecting to" not in invoke("status", "--group", "nope").stderr
