"""What a store in memory that processes share does beyond the contract: its socket, its time, and nonsense."""

import gc
import json
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
from click.testing import CliRunner
from memory_store import MemoryStore
from processes import spawn
from proxy import Proxy

from smoothcluster import connect
from smoothcluster.backend import Committed, CoordinationBackend, Create, HasHistory, Lease, Refused, Update
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import (
    BackendError,
    LeaseLostError,
    OutcomeUnknownError,
    UnavailableError,
    UsageError,
)
from smoothcluster.memory import SocketBackend
from smoothcluster.memory import server as server_module
from smoothcluster.memory.__main__ import main
from smoothcluster.memory.connections import Connection
from smoothcluster.memory.server import MemoryServer
from smoothcluster.memory.wire import LARGEST_FRAME_BYTES, PAGE_BYTES, Frame, FrameReader, frame
from smoothcluster.testing import eventually

Answer = TypeVar("Answer")

QUICK = 0.3
"""Seconds of a timeout that a test waits for."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the socket is."""
    return tmp_path / "store"


@pytest.fixture
def server(path: Path) -> Iterator[MemoryServer]:
    """A store in this process."""
    with MemoryServer(path) as served:
        yield served


@pytest.fixture
def backend(server: MemoryServer) -> Iterator[SocketBackend]:
    """A client of it."""
    client = connect(server.url)
    assert isinstance(client, SocketBackend)
    with closing(client):
        yield client


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    """A store in another process."""
    own = MemoryStore().start()
    yield own
    own.stop()


def create(client: CoordinationBackend, key: str, value: bytes = b"", lease: Lease | None = None) -> str:
    """Create *key*, which must succeed; its version."""
    outcome = client.commit([], [Create(key, value, lease)])
    assert isinstance(outcome, Committed)
    return outcome.versions[key]


def in_parallel(calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """What each comes to, in a thread of its own."""
    with ThreadPoolExecutor(len(calls)) as pool:
        running = [pool.submit(call) for call in calls]
        return [each.result() for each in running]


class Wakes:
    """Counts the calls of a watch."""

    count = 0

    def __call__(self) -> None:
        """One more."""
        self.count += 1


def passed(seconds: float) -> None:
    """Wait for a stretch of time in which nothing is to happen."""
    since = SYSTEM_CLOCK.monotonic()
    eventually(lambda: SYSTEM_CLOCK.monotonic() > since + seconds)


# The socket.


@pytest.mark.usefixtures("server")
def test_the_socket_is_its_owners_alone(path: Path) -> None:
    """Whoever can write to the file can do everything."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_path_is_served_once(server: MemoryServer, path: Path, backend: SocketBackend) -> None:
    """A second server is an error, and harms nobody; when the first has stopped, its socket is gone and can be had."""
    create(backend, "g/a")
    assert server.start() is server, "it does already"
    with pytest.raises(UsageError, match=f"the server cannot listen at {path}: Address already in use"):
        MemoryServer(path).start()
    assert backend.get("g/a") is not None
    server.stop()
    assert not path.exists()
    with MemoryServer(path), closing(connect(server.url)) as other:
        assert other.get("g/a") is None


def test_who_comes_while_it_stops_is_hung_up_on(path: Path) -> None:
    """Whoever was let in or was about to be; nothing is left open."""
    for _ in range(30):
        server = MemoryServer(path).start()
        stopping = threading.Thread(target=server.stop)
        callers: list[socket.socket] = []
        with suppress(OSError):
            while True:
                callers.append(socket.socket(socket.AF_UNIX))
                callers[-1].connect(str(path))
                if len(callers) == 3:
                    stopping.start()
        stopping.join()
        for caller in callers:
            with caller, suppress(OSError):
                assert caller.recv(1) == b""
    gc.collect()  # Which complains of what was not closed.


def leave_socket(path: Path) -> None:
    """As a server does that is killed."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))


def test_what_a_dead_server_has_left_is_replaced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one server, even if another looked before it was, and would do it afterwards."""
    leave_socket(path)
    look, looks, done = server_module._is_stale_socket, count(), threading.Event()  # pyright: ignore[reportPrivateUsage]

    def looks_early(path: Path) -> bool:
        left = look(path)
        if next(looks) == 0:
            done.wait(0.3)
        return left

    monkeypatch.setattr(server_module, "_is_stale_socket", looks_early)

    def serves(server: MemoryServer) -> bool:
        with suppress(UsageError):
            server.start()
            done.set()
            return True
        return False

    servers = [MemoryServer(path) for _ in range(2)]
    assert sorted(in_parallel([partial(serves, server) for server in servers])) == [False, True]
    for server in servers:
        server.stop()


@pytest.mark.parametrize("there", ["a file", "no folder"])
def test_nothing_else_is_replaced(tmp_path: Path, there: str) -> None:
    """The error says what is in the way."""
    path = tmp_path / there / "x" if there == "no folder" else tmp_path / "file"
    if there == "a file":
        path.write_text("precious")
    with pytest.raises(UsageError, match="the server cannot listen at"):
        MemoryServer(path).start()
    assert there != "a file" or path.read_text() == "precious"


def connect_to(path: str) -> object:
    """By its URL."""
    return connect(f"memory://{path}")


@pytest.mark.parametrize("make", [MemoryServer, SocketBackend, connect_to])
@pytest.mark.parametrize("path", [f"/tmp/{'x' * 103}", "/tmp/a\0b"])
def test_a_path_that_no_socket_can_have(make: Callable[[str], object], path: str) -> None:
    """It is said before anything is tried."""
    with pytest.raises(UsageError, match="cannot be a socket: the path must have at most"):
        make(path)


def test_a_timeout_that_makes_no_sense(path: Path) -> None:
    """As with the other stores."""
    with pytest.raises(UsageError, match="timeout must be positive"):
        SocketBackend(path, timeout=0)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_end(path: Path, end: signal.Signals) -> None:
    """It says where, leaves no socket, and no trace on its standard error."""
    command = [sys.executable, "-m", "smoothcluster.memory", str(path)]
    with spawn(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        with closing(connect(url)) as client:
            create(client, "g/a")
        process.send_signal(end)
        assert process.communicate(timeout=60)[1] == b""
        assert (url, process.returncode, path.exists()) == (f"memory://{path}", 0, False)


def test_the_command_explains_itself() -> None:
    """As all commands do."""
    assert "Serve an in-memory store" in CliRunner().invoke(main, ["--help"]).stdout


@pytest.mark.usefixtures("server")
def test_the_command_says_what_is_in_its_way(path: Path) -> None:
    """In one line, with the status that mistakes of the user's have."""
    command = [sys.executable, "-m", "smoothcluster.memory", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Error: the server cannot listen at {path}" in done.stderr
    assert "Traceback" not in done.stderr


# Connections that are lost.


def test_where_nothing_serves(path: Path, server: MemoryServer) -> None:
    """The error says what to check; there is no time to wait, where there is none."""
    with closing(SocketBackend(path.with_name("none"))) as client:
        with pytest.raises(UnavailableError, match=r"check that `python -m smoothcluster\.memory .*/none` runs"):
            client.get("g/a")
        client.watch("g", lambda: None).close()
    with pytest.raises(UnavailableError, match="timed out"):
        Connection(path, SYSTEM_CLOCK.monotonic())


def test_a_lease_of_no_time(backend: SocketBackend) -> None:
    """Nobody is asked."""
    with pytest.raises(ValueError, match="positive"):
        backend.lease(0)


def test_who_was_connected_is_told_once(server: MemoryServer, backend: SocketBackend) -> None:
    """A store that went and came back while nobody asked: one call fails, surely unsent, and the next is answered."""
    version = create(backend, "g/a")
    in_parallel([lambda: backend.get("g/a")] * 4)  # So that there are several connections.
    server.stop()
    server.start()
    with pytest.raises(UnavailableError, match=r"the request to memory://.* was not sent"):
        backend.commit([], [Update("g/a", b"", version)])
    assert isinstance(backend.commit([], [Update("g/a", b"", version)]), Committed)


def test_a_commit_whose_answer_is_lost(server: MemoryServer, path: Path) -> None:
    """It may have been applied, and is not sent again: reading shows it."""
    proxy = Proxy(path)
    with closing(proxy), closing(SocketBackend(proxy.path, timeout=QUICK)) as client:
        version = create(client, "g/a", b"old")
        proxy.swallow_answers(on=True)
        with pytest.raises(OutcomeUnknownError):
            client.commit([], [Update("g/a", b"new", version)])
        with pytest.raises(UnavailableError):
            client.get("g/a")
        proxy.swallow_answers(on=False)
        entry = client.get("g/a")
        assert entry is not None
        assert entry.value == b"new"
        assert isinstance(client.commit([], [Update("g/a", b"new", version)]), Refused)


def test_an_answer_that_comes_late_is_nobodys(store: MemoryStore) -> None:
    """Least of all the next question's."""
    with closing(SocketBackend(store.path, timeout=QUICK)) as client:
        create(client, "g/a")
        create(client, "g/b")
        store.pause()
        with pytest.raises(UnavailableError):
            client.get("g/a")
        store.resume()
        entry = client.get("g/b")
        assert entry is not None
        assert entry.key == "g/b"


def test_a_commit_and_a_listing_are_one_round_trip(backend: SocketBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a lock needs it."""
    asked: list[bytes] = []
    request = Connection.request

    def note(connection: Connection, message: bytes, deadline: float, unknown: type[BackendError]) -> Frame:
        asked.append(message)
        return request(connection, message, deadline, unknown)

    backend.get("g/a")

    monkeypatch.setattr(Connection, "request", note)
    backend.commit_and_list([], [Create("g/a", b"")], "g")
    assert len(asked) == 1


def test_a_listing_that_breaks_off(backend: SocketBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit was answered, and yet not all is known."""
    for number in range(3):
        create(backend, f"g/{number}", b"x" * (PAGE_BYTES // 2))

    def gone(client: SocketBackend, keys: object) -> None:
        raise UnavailableError("gone")

    monkeypatch.setattr(SocketBackend, "get_many", gone)
    with pytest.raises(OutcomeUnknownError, match="the store answered the commit, and then the listing failed"):
        backend.commit_and_list([], [Create("g/a", b"")], "g")


def test_what_does_not_fit_in_one_frame_arrives(backend: SocketBackend) -> None:
    """Long listings and many keys come in several; none is left out, and nothing is too large to be read."""
    value = bytes(range(256)) * 2000
    names = [f"g/{number:04}" for number in range(7)]
    for name in names:
        create(backend, name, value)
    assert [(entry.key, entry.value) for entry in backend.list("g")] == [(name, value) for name in names]
    many = [f"none/{number}" for number in range(2500)]
    found = backend.get_many([*many, *names, "none/last"])
    assert [entry and entry.key for entry in found] == [None] * 2500 + names + [None]


def test_no_call_waits_for_longer_than_the_timeout(store: MemoryStore) -> None:
    """Not of a server that is stopped either: not the first of a thread, not one of many, not to watch."""
    with closing(SocketBackend(store.path, timeout=QUICK)) as client:
        create(client, "g/a")
        client.watch("g", lambda: None)
        store.pause()
        since = SYSTEM_CLOCK.monotonic()

        def ask() -> None:
            with pytest.raises(UnavailableError):
                client.get("g/a")

        def watch() -> None:
            client.watch("g/a", lambda: None)

        in_parallel([ask, ask, ask, ask, watch])
        with pytest.raises((UnavailableError, OutcomeUnknownError)):
            client.commit([], [Create("g/b", b"")])
        assert SYSTEM_CLOCK.monotonic() - since < 2 * QUICK + 5.0
        store.resume()


def test_a_watch_that_a_stuck_server_could_not_be_told_of(store: MemoryStore) -> None:
    """However many are ordered meanwhile, none blocks for good, and each stands when the server goes on."""
    with closing(SocketBackend(store.path, timeout=0.001)) as client, closing(connect(store.url)) as other:
        client.watch("g/first", lambda: None)
        store.pause()
        all_wakes = [Wakes() for _ in range(600)]
        for wakes in all_wakes:
            client.watch("g", wakes)
        store.resume()
        eventually(lambda: all(wakes.count for wakes in all_wakes))  # Nobody knows what they missed.
        before = [wakes.count for wakes in all_wakes]
        create(other, "g/a")
        eventually(lambda: all(wakes.count > count for wakes, count in zip(all_wakes, before, strict=True)))


def test_a_watch_armed_while_the_store_is_away(server: MemoryServer, backend: SocketBackend) -> None:
    """It is woken when the store is back, and stands from then on."""
    first = backend.watch("g/first", lambda: None)
    server.stop()
    first.close()
    wakes = Wakes()
    since = SYSTEM_CLOCK.monotonic()
    backend.watch("g", wakes)
    assert SYSTEM_CLOCK.monotonic() - since < 4.0, "it does not wait for what is not there"
    server.start()
    eventually(lambda: wakes.count)


def test_who_closes_in_a_wake_up_does_not_wait_for_itself(server: MemoryServer) -> None:
    """The thread that wakes ends afterwards."""
    client = connect(server.url)
    closed = threading.Event()

    def close() -> None:
        client.close()
        closed.set()

    client.watch("g", close)
    with closing(connect(server.url)) as other:
        create(other, "g/a")
        assert closed.wait(30)
    with pytest.raises(UnavailableError):
        client.watch("g", lambda: None)


# Time, and what is lost.


@pytest.mark.parametrize("away", ["paused", "killed"])
def test_a_store_that_was_away_ends_no_lease(store: MemoryStore, away: str) -> None:
    """Nobody could renew meanwhile. Once it is back, time passes as ever."""
    with closing(SocketBackend(store.path, timeout=QUICK)) as client:
        lease = client.lease(1.0)
        create(client, "g/a", b"", lease)
        store.pause() if away == "paused" else store.kill()
        passed(2.5)
        store.resume() if away == "paused" else store.start()

        def renewed() -> list[bool]:
            with suppress(BackendError):
                return [lease.renew()]
            return []

        assert eventually(renewed) == [True]
        passed(1.0)
        eventually(lambda: client.get("g/a") is None)


def test_a_lease_is_silent_by_the_machines_clock(
    server: MemoryServer, backend: SocketBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time in which the server stood still, or the machine slept, ends no lease, but counts for `silent_leases`."""
    lease, now = backend.lease(60.0), SYSTEM_CLOCK.since_boot()
    backend.commit([], [Create("a", b"", lease)])
    assert backend.silent_leases([lease.id]) == set()
    monkeypatch.setitem(vars(SYSTEM_CLOCK), "since_boot", lambda: now + 70.0)
    assert backend.silent_leases([lease.id, "none"]) == {lease.id}
    assert backend.get("a") is not None
    assert lease.renew() is True
    assert backend.silent_leases([lease.id]) == set()


def test_the_stores_time_is_the_machines_while_it_is_looked_at() -> None:
    """And its wall clock, which is for people."""
    clock = server_module._ServingClock()  # pyright: ignore[reportPrivateUsage]
    assert 0.0 <= clock.monotonic() <= clock.monotonic() < 60.0
    assert clock.wall() <= SYSTEM_CLOCK.wall()


def test_another_server_is_another_history(path: Path) -> None:
    """All is lost with a server. Nothing of its successor's passes for what was known: not by chance, not for one."""
    with closing(SocketBackend(path)) as client:
        server = MemoryServer(path).start()
        lease, history = client.lease(60.0), client.history()
        version = create(client, "g/a", b"", lease)
        server.stop()
        with MemoryServer(path):
            with suppress(UnavailableError):
                client.get("g/a")
            other = client.lease(60.0)
            assert create(client, "g/a", b"", other) != version
            assert client.commit([], [Update("g/a", b"late", version)]) == Refused("g/a")
            assert lease.renew() is False
            with pytest.raises(LeaseLostError):
                create(client, "g/b", b"", lease)
            assert client.history() != history
            assert isinstance(client, HasHistory)
            assert client.guarantees.survives_failover is False


# Who makes no sense.


def raw(words: Sequence[object], tail: bytes = b"") -> bytes:
    """A frame of whatever is wanted."""
    return packed(json.dumps(words).encode(), tail)


def packed(text: bytes, tail: bytes = b"") -> bytes:
    """Likewise, JSON or not."""
    return struct.pack(">II", len(text), len(tail)) + text + tail


NONSENSE: dict[str, bytes] = {
    "no JSON": packed(b"\xff\xfe"),
    "no array": packed(b"1"),
    "nothing": raw([]),
    "no such word": raw(["eval", "1"]),
    "deeper than Python goes": packed(b"[" * 100_000),
    "larger than a frame may be": struct.pack(">II", 2**31, LARGEST_FRAME_BYTES),
    "a key that is none": raw(["get", ["a//b"]]),
    "a key of another type": raw(["get", [["a"]]]),
    "no keys": raw(["get", 5]),
    "no directory": raw(["list", None]),
    "no such change": raw(["commit", None, [], [["upsert", "a", 0]], None]),
    "no such condition": raw(["commit", None, [["older", "a"]], [["create", "a", 0, False]], None]),
    "no changes": raw(["commit", None, [], [], None]),
    "a value that is not there": raw(["commit", None, [], [["create", "a", 5, False]], None], b"four"),
    "a value of less than nothing": raw(["commit", None, [], [["create", "a", -1, False]], None], b"four"),
    "a version that is none": raw(["commit", None, [], [["update", "a", 0, {"a": 1}]], None]),
    "too large": raw(["commit", None, [], [["create", "a", 1_000_000, False]], None], b"x" * 1_000_000),
    "a lease of no time": raw(["grant", 0]),
    "a lease of no number": raw(["grant", float("nan")]),
    "a lease that is no name": raw(["renew", ["x"]]),
    "a watch of nothing": raw(["watch", [[1, "", True]]]),
    "half an order": raw(["watch", [[1]]]),
}


@pytest.mark.parametrize("said", NONSENSE.values(), ids=NONSENSE)
def test_who_makes_no_sense_is_hung_up_on(backend: SocketBackend, path: Path, said: bytes) -> None:
    """Nothing comes of it, and nobody else notices."""
    create(backend, "there")
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(path))
        stranger.sendall(frame(["keys", "a"]))
        assert stranger.recv(100)
        with suppress(BrokenPipeError):
            stranger.sendall(said)
        stranger.settimeout(30)
        with suppress(ConnectionResetError):
            assert stranger.recv(100) == b""
    assert backend.get("a") is None
    assert backend.get("there") is not None


ANSWERS: dict[str, bytes] = {
    "no JSON": packed(b"\xff"),
    "no array": packed(b"5"),
    "nothing": raw([]),
    "nothing of what was asked": raw([[]]),
    "rows that are none": raw([[["g/a"]], 1, 2, 3]),
    "a value that is not there": raw([[["g/a", 5, "1", 1, None]]]),
    "no such outcome": raw(["perhaps", "g/a", [], []]),
    "an outcome without versions": raw(["done", 5, [], []]),
    "larger than a frame may be": struct.pack(">II", 2**31, LARGEST_FRAME_BYTES),
    "the end": b"",
}


class Liar:
    """A server that greets, and answers the question that follows with *said*.

    A byte at a time, with *pause* seconds between them, unless that is 0.
    """

    def __init__(self, path: Path, said: bytes, pause: float = 0.0) -> None:
        self._said, self._pause, self._over = said, pause, threading.Event()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            with self._listening.accept()[0] as caller, suppress(OSError):
                if self._over.is_set():
                    return
                caller.recv(65_536)
                caller.sendall(frame(["history 1"]))
                caller.recv(65_536)
                step = 1 if self._pause else len(self._said) or 1
                for start in range(0, len(self._said), step):
                    caller.sendall(self._said[start : start + step])
                    self._over.wait(self._pause)

    def close(self) -> None:
        """End it."""
        self._over.set()
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self._listening.getsockname())
        self._thread.join()
        self._listening.close()


CALLS: dict[str, Callable[[SocketBackend], object]] = {
    "get": lambda client: client.get("g/a"),
    "list": lambda client: client.list("g"),
    "commit": lambda client: client.commit([], [Create("g/a", b"")]),
    "commit and list": lambda client: client.commit_and_list([], [Create("g/a", b"")], "g"),
    "lease": lambda client: client.lease(5.0),
}


@pytest.mark.parametrize("said", ANSWERS.values(), ids=ANSWERS)
def test_a_server_that_makes_no_sense(path: Path, said: bytes) -> None:
    """Every call is one of our errors: of a read that nothing is known, of the rest that it may have been done."""
    with closing(Liar(path, said)):
        for name, call in CALLS.items():
            error = UnavailableError if name in {"get", "list"} else OutcomeUnknownError
            with closing(SocketBackend(path)) as client, pytest.raises(error, match="check"):
                call(client)
        with closing(SocketBackend(path)) as client:
            client.watch("g", lambda: None)


def test_an_answer_in_drips(path: Path) -> None:
    """The timeout is for the whole of it."""
    drips = Liar(path, frame([[None]]), pause=QUICK / 4)
    client = SocketBackend(path, timeout=QUICK)
    with closing(drips), closing(client), pytest.raises(UnavailableError, match="timed out"):
        client.get("g/a")


def test_who_does_not_listen_costs_little(backend: SocketBackend, path: Path, server: MemoryServer) -> None:
    """Wake-ups for one who does not read are merged, and the last is never left out; no more is done for it."""
    version = create(backend, "g/a")
    many = 300
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(path))
        deaf.sendall(frame(["watch", [[number, "g/a", True] for number in range(many)] + [[many, "h", True]]]))
        frames, heard = FrameReader(), list[int]()

        def listen(until: Callable[[], bool]) -> None:
            while not until():
                for each in frames.feed(deaf.recv(65_536)):
                    heard.extend(each.words)

        listen(lambda: len(heard) == many + 1)
        for number in range(200):
            outcome = backend.commit([], [Update("g/a", str(number).encode(), version)])
            assert isinstance(outcome, Committed)
            version = outcome.versions["g/a"]
        create(backend, "h/a")
        heard.clear()
        deaf.settimeout(1.0)
        with suppress(TimeoutError):
            listen(lambda: False)
        assert set(heard) == set(range(many + 1))
        assert len(heard) < 200 * many / 2
        backend.commit([], [Update("g/a", b"", version)])
        listen(lambda: len(heard) > 0)


def test_a_watch_that_is_closed_is_forgotten(server: MemoryServer, backend: SocketBackend) -> None:
    """By both sides; so are those of a client that has gone."""
    backend.watch("g", lambda: None).close()
    backend.watch("g", lambda: None)
    watches = server._store.watches  # pyright: ignore[reportPrivateUsage]
    eventually(lambda: len(watches.all()) == 1)
    backend.close()
    eventually(lambda: not watches.all())
