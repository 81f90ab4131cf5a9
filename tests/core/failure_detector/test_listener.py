"""A listener greets everybody, waits for nobody, and is not put out by anyone."""

import errno
import json
import select
import socket
from collections.abc import Callable

import pytest
from neighbours import DEADLINE, LOOPBACK, Process, call, greeting, heard, not_apart, own_place, reset

from smoothcluster.errors import UsageError
from smoothcluster.failure_detector import ListenAddress, Listener, sockets
from smoothcluster.failure_detector import listener as listening
from smoothcluster.testing.clock import eventually


def test_everybody_is_greeted_and_held(listener: Listener) -> None:
    """Each who connects gets one line with the group, member and incarnation, and the line stays open."""
    with call(listener.address) as first, call(listener.address) as second:
        assert json.loads(heard(first)) == {"group": "g", "member": "m", "incarnation": "i1"}
        assert heard(second) == greeting()
        assert select.select([first, second], [], [], 0)[0] == []


def test_new_incarnation_is_greeted_and_told(listener: Listener) -> None:
    """A new announcement greets whoever comes, and drops those who heard the old one."""
    with call(listener.address) as old:
        assert heard(old) == greeting()
        listener.announce("g", "m", "i2")
        assert heard(old) == b""
    with call(listener.address) as new:
        assert heard(new) == greeting("i2")


def test_repeated_announcement_drops_nobody(listener: Listener) -> None:
    """Announcing the same again changes nothing."""
    with call(listener.address) as held:
        assert heard(held) == greeting()
        listener.announce("g", "m", "i1")
        with call(listener.address) as other:
            assert heard(other) == greeting()
        assert select.select([held], [], [], 0)[0] == []


def test_nobody_is_greeted_before_the_announcement() -> None:
    """A listener without an incarnation says nothing, and those who wait may dial again when it has one."""
    listener = Listener(ListenAddress(LOOPBACK))
    with call(listener.address) as early:
        listener.announce("g", "m", "i1")
        assert heard(early) in {b"", greeting()}
    with call(listener.address) as late:
        assert heard(late) == greeting()
    listener.close()


def test_talkers_are_dropped(listener: Listener) -> None:
    """Whoever talks to a listener is not one of ours, and is hung up on; others are not disturbed."""
    with call(listener.address) as quiet, call(listener.address) as talker:
        assert heard(quiet) == heard(talker) == greeting()
        talker.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert heard(talker) == b""
        assert select.select([quiet], [], [], 0)[0] == []


def test_callers_who_hang_up_are_let_go(listener: Listener) -> None:
    """Those who have gone are not held: many may come and go."""
    with call(listener.address) as steady:
        heard(steady)
        for _ in range(200):
            with call(listener.address) as passing:
                assert heard(passing) == greeting()
        eventually(lambda: len(vars(listener)["_held"]) == 1)
        assert select.select([steady], [], [], 0)[0] == []


def test_crowd_keeps_nobody_out(listener: Listener) -> None:
    """Callers that never read and never leave make room, the oldest first, for those who come later.

    They are reset: to a prober, a connection that was closed in order would be half of a proof.
    """
    crowd = [call(listener.address) for _ in range(100)]
    try:
        with call(listener.address) as late:
            assert heard(late) == greeting()
        assert heard(crowd[0]) == greeting()
        with pytest.raises(ConnectionResetError):
            crowd[0].recv(1)
        assert heard(crowd[-1]) == greeting()
    finally:
        for each in crowd:
            each.close()


def test_reset_before_the_greeting_is_harmless(listener: Listener) -> None:
    """A caller that resets its connection at once hurts nobody."""
    for _ in range(50):
        reset(call(listener.address))
    with call(listener.address) as polite:
        assert heard(polite) == greeting()


class Clogged(socket.socket):
    """A connection that takes nothing."""

    def send(self, data: object, flags: int = 0) -> int:
        """Refuse."""
        raise BlockingIOError(errno.EAGAIN, "full")


def test_caller_that_takes_no_greeting_is_dropped(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener never waits until a caller takes its greeting."""
    accept = socket.socket.accept

    def accept_clogged(listening: socket.socket) -> tuple[socket.socket, object]:
        caller, address = accept(listening)
        return Clogged(fileno=caller.detach()), address

    monkeypatch.setattr(socket.socket, "accept", accept_clogged)
    with call(listener.address) as clogged:
        assert heard(clogged) == b""


def test_listener_outlives_a_want_of_descriptors(processes: Callable[..., Process]) -> None:
    """A process that has no file descriptor left keeps callers waiting, without spinning, and greets them later."""
    process = processes(apart=False)
    process.run("resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); files = []")
    process.run("while_full = [files.append(os.dup(0)) for _ in range(64 - len(os.listdir('/dev/fd')) + 1)]")
    with call((LOOPBACK, process.peer.port)) as caller:
        caller.settimeout(0.3)
        with pytest.raises(TimeoutError):
            caller.recv(1)
        process.run("used = time.process_time()")
        with pytest.raises(TimeoutError):
            caller.recv(1)
        process.run("assert time.process_time() - used < 0.1")
        process.run("[os.close(each) for each in files]")
        caller.settimeout(DEADLINE)
        assert heard(caller) == greeting()


def test_descriptors_kept_apart_are_not_wanting(processes: Callable[..., Process]) -> None:
    """Whatever the process uses up elsewhere, its listener's are its own."""
    process = processes()
    process.run("resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); files = []")
    process.run("while_full = [files.append(os.dup(0)) for _ in range(64 - len(os.listdir('/dev/fd')) + 1)]")
    with call((LOOPBACK, process.peer.port)) as caller:
        assert heard(caller) == greeting()


def test_failures_to_accept_are_passed_over(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a connection that ended before it was accepted nor a want of descriptors is the end of it."""
    accept = socket.socket.accept
    failures = [OSError(errno.ECONNABORTED, "gone"), BlockingIOError(errno.EAGAIN, "nobody there")]
    failures += [OSError(errno.EMFILE, "no descriptor left")] * 2

    def fail_first(listening: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise failures.pop()
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", fail_first)
    with call(listener.address) as caller:
        assert heard(caller) == greeting()
    assert failures == []


def test_closed_listener_refuses() -> None:
    """After `close` nobody is held and the port refuses; closing twice is harmless."""
    listener = Listener(ListenAddress(LOOPBACK))
    listener.announce("g", "m", "i1")
    with call(listener.address) as held:
        assert heard(held) == greeting()
        listener.close()
        listener.close()
        assert heard(held) == b""
    with pytest.raises(ConnectionRefusedError):
        call(listener.address)
    listener.announce("g", "m", "i2")


@pytest.mark.parametrize("address", [None, "0.0.0.0", "::", LOOPBACK, "localhost"])
def test_published_address_is_numeric_and_reaches_it(address: str | None) -> None:
    """Wherever a listener is told to listen, what it publishes is a number that leads to it."""
    listener = Listener(None if address is None else ListenAddress(address))
    listener.announce("g", "m", "i1")
    assert listener.address[0] not in {"0.0.0.0", "::"}
    socket.getaddrinfo(*listener.address, flags=socket.AI_NUMERICHOST)
    with call(listener.address) as caller:
        assert heard(caller) == greeting()
    listener.close()


@pytest.mark.parametrize("address", ["0.0.0.0", LOOPBACK, "::"])
def test_translated_address_is_published_as_it_is(address: str) -> None:
    """An address that is not this machine's own is published all the same, and listened on is what was asked for."""
    listener = Listener(ListenAddress.parse(f"{f'[{address}]' if ':' in address else address}@203.0.113.77"))
    listener.announce("g", "m", "i1")
    host, port = listener.address
    assert host == "203.0.113.77"
    with call((LOOPBACK, port)) as caller:
        assert heard(caller) == greeting()
    listener.close()


def test_address_of_another_machine_is_no_address_to_listen_on() -> None:
    """Every interface would be more than was asked for; the error shows how to advertise it."""
    with pytest.raises(
        UsageError, match=r"203\.0\.113\.77 is no address of this machine; .* 0\.0\.0\.0@203\.0\.113\.77"
    ):
        Listener(ListenAddress("203.0.113.77"))


def test_first_free_port_of_a_range_is_taken() -> None:
    """And where none is free, the error says so."""
    address, first = own_place()
    where = ListenAddress.parse(f"{address}:{first}-{first + 2}")
    taken = [Listener(where) for _ in range(3)]
    try:
        assert [listener.address for listener in taken] == [(address, port) for port in range(first, first + 3)]
        with pytest.raises(UsageError, match=f"all ports from {first} to {first + 2} are in use at {address}"):
            Listener(where)
        with pytest.raises(UsageError, match=f"port {first + 1} is in use"):
            Listener(ListenAddress.parse(f"{address}:{first + 1}"))
        taken[1].close()
        again = Listener(where)
        assert again.address == (address, first + 1)
        again.close()
    finally:
        for listener in taken:
            listener.close()


def test_port_is_had_again_after_its_process(processes: Callable[..., Process]) -> None:
    """Connections of the earlier process linger in the kernel, and keep nobody from its port."""
    address, port = place = own_place()
    code = f"again = Listener(ListenAddress.parse('{address}:{port}')); again.announce('g', 'm', 'i1')"
    first = processes()
    first.run(code)
    with call(place) as held:
        assert heard(held) == greeting()
        first.run("again.close()")  # This side closes first, so the connection lingers on this side.
        assert heard(held) == b""
    processes().run(code)
    with call(place) as held:
        assert heard(held) == greeting()


def test_machine_without_network_listens_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no interface leads anywhere, members of the same machine still find each other."""
    monkeypatch.setattr(sockets, "_OUTSIDE_ADDRESSES", ("not an address",))
    listener = Listener()
    assert listener.address[0] == LOOPBACK
    listener.close()


@pytest.mark.parametrize("name", ["no.such.host.invalid", "x" * 300, "0.0.0.0@no.such.host.invalid"])
def test_name_that_cannot_be_found_is_an_error(name: str) -> None:
    """A name that has no address is an error that says so."""
    with pytest.raises(UsageError, match="cannot find the address"):
        Listener(ListenAddress.parse(name))


def test_port_that_cannot_be_had_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that cannot listen raises what the kernel says, and leaves nothing open."""

    def fail(self: socket.socket, backlog: int) -> None:
        raise OSError(errno.ENOBUFS, "no room")

    monkeypatch.setattr(socket.socket, "listen", fail)
    with pytest.raises(OSError, match="no room"):
        Listener(ListenAddress(LOOPBACK))


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors cannot be kept apart."""
    monkeypatch.setattr(listening, "keep_descriptors_apart", not_apart)


def test_letting_go_after_a_fork_touches_copies_only(
    shared: None, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a forked child closes are its copies: its parent goes on listening and holding."""
    with call(listener.address) as held:
        assert heard(held) == greeting()
        copy = object.__new__(Listener)
        eventually(lambda: vars(listener)["_held"])  # It is held a moment after it was greeted.
        copies = [vars(listener)["_socket"].dup(), *(each.dup() for each in vars(listener)["_held"])]
        vars(copy).update(
            _socket=copies[0], _held=dict.fromkeys(copies[1:], b""), _wakeup=sockets.Wakeup(), _apart=False
        )
        monkeypatch.setattr(listening, "_listeners", {copy})
        vars(listening)["_close_in_child"]()
        assert [each.fileno() for each in copies] == [-1, -1]
        with call(listener.address) as late:
            assert heard(late) == greeting()
        assert select.select([held], [], [], 0)[0] == []
