"""A death is known when a port that greeted refuses, or greets anew; nothing else proves one."""

import errno
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from statistics import median

import pytest
from neighbours import DEADLINE, LOOPBACK, Process, Stranger, Watcher, greeting, not_apart, peer_at, reset

import smoothcluster.failure_detector.listener
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.failure_detector import ListenAddress, Listener, Peer, Prober, Proof, prober
from smoothcluster.failure_detector.sockets import dial
from smoothcluster.testing.clock import HeldClock, eventually


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    """A prober that ends with the test."""
    made = Watcher()
    yield made
    made.prober.close()


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    """A port on which the test itself answers."""
    made = Stranger()
    yield made
    made.close()


# With real processes


@pytest.mark.parametrize("host", [LOOPBACK, "::1"])
def test_killed_process_is_proven_gone(watcher: Watcher, processes: Callable[..., Process], host: str) -> None:
    """A process that was killed is known to be gone, by the refusal of its port."""
    process = processes(host=host)
    watcher.arm(process.peer)
    process.send(signal.SIGKILL)
    assert watcher.next() == ("i1", Proof.REFUSED)
    assert watcher.prober.armed == frozenset()


def test_who_is_not_first_in_line_looks_into_a_death_later(watcher: Watcher, processes: Callable[..., Process]) -> None:
    """It leaves the processors to the one who is."""
    process = processes()
    watcher.arm(process.peer)
    watcher.prober.watch([process.peer], first=False)
    process.send(signal.SIGKILL)
    incarnation, proof, after = watcher.said.get(timeout=DEADLINE)
    assert (incarnation, proof) == ("i1", Proof.REFUSED)
    assert after >= 0.015


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are kept apart on Linux")
def test_a_dead_process_refuses_whoever_dials_when_its_connection_has_ended(
    processes: Callable[..., Process],
) -> None:
    """Its port ends before the connections that it held do."""
    for number in range(10):
        process = processes(f"i{number}")
        with socket.create_connection((LOOPBACK, process.peer.port), DEADLINE) as held:
            assert held.recv(1)
            process.send(signal.SIGKILL)
            with suppress(ConnectionResetError):
                while held.recv(1024):
                    pass
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((LOOPBACK, process.peer.port), DEADLINE)


def test_proof_comes_within_milliseconds(watcher: Watcher, processes: Callable[..., Process]) -> None:
    """Deaths are known at once: in about two milliseconds, where the machine has nothing else to do."""
    members = [processes(f"i{number}") for number in range(8)]
    watcher.arm(*(member.peer for member in members))
    took: list[float] = []
    for member in members:
        killed = SYSTEM_CLOCK.monotonic()
        member.send(signal.SIGKILL)
        assert watcher.next() == (member.peer.incarnation, Proof.REFUSED)
        took.append(SYSTEM_CLOCK.monotonic() - killed)
    assert median(took) < 0.1


def test_stopped_process_is_not_proven_gone(watcher: Watcher, processes: Callable[..., Process]) -> None:
    """A process that is stopped, or goes on, proves nothing; its death then does."""
    stopped, second, third = processes("stopped"), processes("second"), processes("third")
    watcher.arm(stopped.peer, second.peer, third.peer)
    stopped.send(signal.SIGSTOP)
    second.send(signal.SIGKILL)
    assert watcher.next() == ("second", Proof.REFUSED)
    stopped.send(signal.SIGCONT)
    third.send(signal.SIGKILL)
    assert watcher.next() == ("third", Proof.REFUSED)
    stopped.send(signal.SIGKILL)
    assert watcher.next() == ("stopped", Proof.REFUSED)


def test_silence_of_a_stopped_process_proves_nothing(watcher: Watcher, processes: Callable[..., Process]) -> None:
    """The kernel accepts for a stopped process, which does not greet until it goes on."""
    stopped, other = processes("stopped"), processes("other")
    stopped.send(signal.SIGSTOP)
    watcher.prober.watch([stopped.peer, other.peer])
    eventually(lambda: set(watcher.prober.armed) == {"other"})
    other.send(signal.SIGKILL)
    assert watcher.next() == ("other", Proof.REFUSED)
    stopped.send(signal.SIGCONT)
    eventually(lambda: set(watcher.prober.armed) == {"stopped"})


def test_child_that_holds_the_port_hides_the_death(watcher: Watcher, processes: Callable[..., Process]) -> None:
    """While a child forked behind Python's back holds the dead parent's port, there is no proof."""
    process, other = processes("parent", apart=False), processes("other")
    watcher.arm(process.peer, other.peer)
    child = process.fork("libc.fork")
    process.send(signal.SIGKILL)
    other.send(signal.SIGKILL)
    assert watcher.next() == ("other", Proof.REFUSED)
    os.kill(child, signal.SIGKILL)
    assert watcher.next() == ("parent", Proof.REFUSED)


@pytest.mark.parametrize(("how", "apart"), [("os.fork", False), ("os.fork", True), ("libc.fork", True)])
def test_forked_child_does_not_hide_the_death(
    watcher: Watcher, processes: Callable[..., Process], how: str, *, apart: bool
) -> None:
    """A child that Python forks, as a handler may, lets go of the port and of who holds the line.

    Where descriptors are kept apart, no child of any kind ever had them.
    """
    process = processes(apart=apart)
    watcher.arm(process.peer)
    child = process.fork(how)
    process.send(signal.SIGKILL)
    assert watcher.next() == ("i1", Proof.REFUSED)
    os.kill(child, 0)


def test_fork_leaves_the_parent_alone(watcher: Watcher, processes: Callable[..., Process]) -> None:
    """A child's letting go, and its end, go unnoticed where its parent is watched."""
    process, other = processes(), processes("other")
    watcher.arm(process.peer, other.peer)
    os.kill(process.fork("os.fork"), signal.SIGKILL)
    other.send(signal.SIGKILL)
    assert watcher.next() == ("other", Proof.REFUSED)
    assert set(watcher.prober.armed) == {"i1"}
    watcher.prober.watch([])
    watcher.arm(process.peer)


# What proves nothing


def test_new_incarnation_is_proof(watcher: Watcher, listener: Listener) -> None:
    """A member that greets with another incarnation where it greeted before has begun anew."""
    watcher.arm(peer_at(listener.address[1]))
    listener.announce("g", "m", "i2")
    assert watcher.next() == ("i1", Proof.REPLACED)


def test_new_incarnation_alone_is_no_proof(watcher: Watcher, stranger: Stranger) -> None:
    """Another incarnation's greeting proves nothing to those whom the one they ask for never greeted."""
    watcher.prober.watch([peer_at(stranger.port)])
    stranger.accept(greeting("i2"))
    stranger.accept(greeting("i1"))
    eventually(lambda: watcher.prober.armed)
    assert watcher.said.empty()


@pytest.mark.parametrize("said", [greeting("i2", member="n"), greeting("i2", group="h"), greeting("i1", member="n")])
def test_others_on_the_same_port_are_no_proof(watcher: Watcher, stranger: Stranger, said: bytes) -> None:
    """A port that another member has now is no proof: only its own member can replace an incarnation."""
    watcher.prober.watch([peer_at(stranger.port)])
    stranger.accept(greeting()).close()
    stranger.accept(said)
    stranger.accept(greeting())
    eventually(lambda: watcher.prober.armed)
    assert watcher.said.empty()


def test_refusal_before_any_greeting_is_no_proof(watcher: Watcher, listener: Listener, stranger: Stranger) -> None:
    """A port that never greeted may refuse as often as it likes: it may be the wrong machine's."""
    stranger.socket.close()
    watcher.prober.watch([peer_at(stranger.port)])
    eventually(lambda: failures(watcher) > 5)
    watcher.arm(peer_at(listener.address[1]))
    assert watcher.said.empty()


def test_what_was_learnt_is_forgotten_with_the_peer(watcher: Watcher, stranger: Stranger) -> None:
    """A peer that is no longer watched is hung up on, and taken up again as a stranger."""
    peer = peer_at(stranger.port)
    watcher.prober.watch([peer])
    caller = stranger.accept(greeting())
    eventually(lambda: watcher.prober.armed)
    watcher.prober.watch([])
    assert caller.recv(1) == b""
    stranger.close()
    watcher.prober.watch([peer])
    eventually(lambda: failures(watcher) > 5)
    assert watcher.said.empty()


def test_hanging_up_is_no_proof(watcher: Watcher, stranger: Stranger) -> None:
    """A peer that hangs up, gently or not, is dialled again, and proves nothing while it answers."""
    watcher.prober.watch([peer_at(stranger.port)])
    stranger.accept(greeting()).close()
    reset(stranger.accept(greeting()))
    stranger.accept().close()
    stranger.accept(greeting())
    eventually(lambda: watcher.prober.armed)
    assert watcher.said.empty()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"hello\n",
        b"[1]\n",
        b"{}\n",
        b"\xff\xfe\n",
        b"[" * 1020 + b"\n",
        b"x" * 100_000,
        greeting()[:-1],
        b'{"group": ["g"], "member": {}, "incarnation": 1}\n',
    ],
)
def test_nonsense_is_no_greeting(watcher: Watcher, stranger: Stranger, said: bytes) -> None:
    """Whatever else a port may say, it is dialled again until it greets."""
    watcher.prober.watch([peer_at(stranger.port)])
    caller = stranger.accept()
    try:
        caller.sendall(said)
        caller.close()
    except OSError:  # it did not wait for the end
        pass
    stranger.accept(greeting())
    eventually(lambda: watcher.prober.armed)
    assert watcher.said.empty()


def test_flood_without_end_is_cut_short(watcher: Watcher, stranger: Stranger) -> None:
    """A port that talks and talks is hung up on."""
    watcher.prober.watch([peer_at(stranger.port)])
    caller = stranger.accept()
    with pytest.raises(OSError, match=r"reset|pipe"):
        caller.sendall(b"x" * 100_000_000)


def test_talk_after_the_greeting_ends_the_call(watcher: Watcher, stranger: Stranger) -> None:
    """A peer that has more to say than its greeting is not held."""
    watcher.prober.watch([peer_at(stranger.port)])
    caller = stranger.accept(greeting())
    eventually(lambda: watcher.prober.armed)
    caller.sendall(b"and another thing")
    stranger.accept(greeting())
    eventually(lambda: watcher.prober.armed)


def test_greeting_may_come_in_pieces(watcher: Watcher, stranger: Stranger) -> None:
    """A greeting is read to its end, however it arrives."""
    watcher.prober.watch([peer_at(stranger.port)])
    caller = stranger.accept()
    for byte in greeting():
        caller.sendall(bytes([byte]))
    eventually(lambda: watcher.prober.armed)


def test_reaching_oneself_is_neither_life_nor_death(
    watcher: Watcher, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dial to a free port that happens to get that port itself is not an answer: the next dial decides."""
    watcher.prober.watch([peer_at(stranger.port)])
    stranger.accept(greeting())
    eventually(lambda: watcher.prober.armed)
    before: list[bool] = []

    def dial_oneself_first(host: str, port: int) -> socket.socket:
        before.append(watcher.said.empty())
        if len(before) > 3:
            return dial(host, port)
        oneself = socket.socket()
        oneself.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        oneself.bind((host, port))
        oneself.setblocking(False)
        oneself.connect_ex((host, port))
        return oneself

    monkeypatch.setattr(prober, "dial", dial_oneself_first)
    stranger.close()
    assert watcher.next() == ("i1", Proof.REFUSED)
    assert before == [True] * 4


def test_one_who_cannot_be_reached_keeps_nobody_waiting(watcher: Watcher, listener: Listener) -> None:
    """A peer that never answers a dial is dialled anew, in vain, while the others are watched."""
    silent = Stranger(backlog=0)
    crowd = [socket.socket() for _ in range(4)]
    for each in crowd:
        each.setblocking(False)
        each.connect_ex((LOOPBACK, silent.port))
    watcher.prober.watch([peer_at(silent.port, "silent"), peer_at(listener.address[1])])
    eventually(lambda: set(watcher.prober.armed) == {"i1"})
    eventually(lambda: failures(watcher) > 2)
    listener.close()
    assert watcher.next() == ("i1", Proof.REFUSED)
    for each in crowd:
        each.close()
    silent.close()


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("localhost", 80),
        ("no.such.host.invalid", 80),
        ("x" * 300, 80),
        ("a\0b", 80),
        ("", 80),
        ("255.255.255.255", 80),
        (LOOPBACK, 70_000),
        (LOOPBACK, -1),
        (LOOPBACK, 1 << 80),
    ],
)
def test_nonsense_for_an_address_is_harmless(watcher: Watcher, listener: Listener, host: str, port: int) -> None:
    """Whatever a member record says, the others are watched."""
    watcher.prober.watch([Peer("odd", "m", "g", host, port), peer_at(listener.address[1])])
    eventually(lambda: set(watcher.prober.armed) == {"i1"})
    listener.close()
    assert watcher.next() == ("i1", Proof.REFUSED)


# Firewalls that begin to reject


def refused(watcher: Watcher) -> None:
    """Wait until the port has refused, again and again, and see that it proves nothing."""
    eventually(lambda: failures(watcher) > 5)
    assert watcher.said.empty()


def test_refusal_after_a_reset_is_no_proof(watcher: Watcher, stranger: Stranger) -> None:
    """A firewall resets the held connection and refuses the next. Greeted anew, a death is proven as before."""
    watcher.prober.watch([peer_at(stranger.port)])
    for _ in range(3):
        caller = stranger.accept(greeting())
        eventually(lambda: watcher.prober.armed)
        stranger.socket.close()
        reset(caller)
        refused(watcher)
        stranger.listen()
    stranger.accept(greeting())
    eventually(lambda: watcher.prober.armed)
    stranger.close()
    assert watcher.next() == ("i1", Proof.REFUSED)


class Failing(socket.socket):
    """A connection that breaks by an error of the network, when the other end closes it."""

    number = 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Say that the network failed, and not that the peer closed."""
        heard = super().recv(size, flags)
        if not heard:
            raise OSError(self.number, os.strerror(self.number))
        return heard


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH])
def test_refusal_after_any_error_is_no_proof(
    watcher: Watcher, stranger: Stranger, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A firewall that rejects by ICMP, a cut cable that keepalive has noticed, a machine that was restarted."""

    def dial_failing(host: str, port: int) -> socket.socket:
        return Failing(fileno=dial(host, port).detach())

    monkeypatch.setattr(Failing, "number", number)
    monkeypatch.setattr(prober, "dial", dial_failing)
    watcher.prober.watch([peer_at(stranger.port)])
    stranger.accept(greeting())
    eventually(lambda: watcher.prober.armed)
    stranger.close()
    refused(watcher)


def test_reset_of_what_was_not_accepted_hides_no_death(watcher: Watcher, stranger: Stranger) -> None:
    """The kernel of a dead process resets the connections in its queue; the held one it has closed in order."""
    watcher.prober.watch([peer_at(stranger.port)])
    caller = stranger.accept(greeting())
    eventually(lambda: watcher.prober.armed)
    caller.close()
    (link,) = vars(watcher.prober)["_links"].values()
    eventually(lambda: link.phase is prober._Phase.CONNECTED)  # pyright: ignore[reportPrivateUsage]
    assert watcher.said.empty()
    stranger.close()
    assert watcher.next() == ("i1", Proof.REFUSED)


def test_reset_before_the_greeting_hides_no_death(watcher: Watcher, stranger: Stranger) -> None:
    """The dead process may have accepted once more, and not have greeted."""
    watcher.prober.watch([peer_at(stranger.port)])
    stranger.accept(greeting()).close()
    caller = stranger.accept()
    (link,) = vars(watcher.prober)["_links"].values()
    eventually(lambda: link.phase is prober._Phase.CONNECTED)  # pyright: ignore[reportPrivateUsage]
    stranger.socket.close()
    reset(caller)
    assert watcher.next() == ("i1", Proof.REFUSED)


def test_new_incarnation_after_a_reset_is_no_proof(watcher: Watcher, stranger: Stranger) -> None:
    """An error takes the greeting with it: whoever answers now must have greeted anew."""
    watcher.prober.watch([peer_at(stranger.port)])
    caller = stranger.accept(greeting())
    eventually(lambda: watcher.prober.armed)
    reset(caller)
    stranger.accept(greeting("i2"))
    stranger.accept(greeting())
    eventually(lambda: watcher.prober.armed)
    assert watcher.said.empty()


def test_refusal_after_more_than_the_greeting_is_no_proof(watcher: Watcher, stranger: Stranger) -> None:
    """It was the prober that hung up, so nothing has ended."""
    watcher.prober.watch([peer_at(stranger.port)])
    caller = stranger.accept(greeting())
    eventually(lambda: watcher.prober.armed)
    stranger.socket.close()
    caller.sendall(b"and another thing")
    refused(watcher)


def test_refusal_long_after_the_end_is_no_proof() -> None:
    """A proxy that closed an idle connection, reached nobody for a while, and then ended."""
    clock, stranger = HeldClock(), Stranger()
    watcher = Watcher(clock)
    watcher.prober.watch([peer_at(stranger.port)])
    caller = stranger.accept(greeting())
    eventually(lambda: watcher.prober.armed)
    caller.close()
    stranger.accept()
    clock.advance(11)
    stranger.close()

    def refused_often() -> bool:
        clock.advance(1)
        return failures(watcher) > 5

    eventually(refused_often)
    assert watcher.said.empty()
    watcher.prober.close()


# Watching


def failures(watcher: Watcher) -> int:
    """How often in a row the least lucky peer failed to greet."""
    return max((link.failures for link in vars(watcher.prober)["_links"].values()), default=0)


def test_watching_again_changes_nothing(watcher: Watcher, stranger: Stranger, listener: Listener) -> None:
    """Those who are watched already are not dialled anew."""
    peer = peer_at(stranger.port, "steady")
    watcher.prober.watch([peer])
    stranger.accept(greeting("steady"))
    watcher.arm(peer)
    watcher.arm(peer_at(listener.address[1]), peer_at(stranger.port, "steady"))
    assert select.select([stranger.socket, *stranger.callers], [], [], 0)[0] == []


def test_what_is_proven_is_said_once(watcher: Watcher, stranger: Stranger, listener: Listener) -> None:
    """A peer that was proven gone is left alone, though it goes on being watched."""
    peer = peer_at(stranger.port, "gone")
    watcher.prober.watch([peer])
    stranger.accept(greeting("gone"))
    watcher.arm(peer)
    stranger.close()
    assert watcher.next() == ("gone", Proof.REFUSED)
    watcher.prober.watch([peer, peer_at(listener.address[1])])
    eventually(lambda: set(watcher.prober.armed) == {"i1"})
    assert watcher.said.empty()


def test_time_to_the_proof_is_told() -> None:
    """What is said of the time is counted from the end of the call that was held."""
    clock, first, second = HeldClock(), Stranger(), Stranger()
    watcher = Watcher(clock)
    watcher.prober.watch([peer_at(first.port)])
    caller = first.accept(greeting())
    eventually(lambda: watcher.prober.armed)
    clock.advance(100)
    caller.close()
    first.accept()
    clock.advance(0.5)
    first.close()
    assert watcher.said.get(timeout=DEADLINE) == ("i1", Proof.REFUSED, 0.5)
    watcher.prober.close()
    second.close()


@pytest.mark.parametrize("hang_up", [socket.socket.close, reset])
def test_restless_peer_is_dialled_ever_more_rarely(hang_up: Callable[[socket.socket], None]) -> None:
    """One that greets and hangs up, gently or not, is dialled at once if it was well for a while, else with pauses."""
    clock, stranger = HeldClock(), Stranger()
    watcher = Watcher(clock)
    watcher.prober.watch([peer_at(stranger.port)])

    def greet_and_hang_up() -> None:
        caller = stranger.accept(greeting())
        eventually(lambda: watcher.prober.armed)  # Otherwise a reset may be faster than the greeting.
        hang_up(caller)

    for _ in range(3):
        greet_and_hang_up()
    (link,) = watcher.prober._links.values()  # pyright: ignore[reportPrivateUsage]
    # The pause begins when the prober has seen the end of the third connection, by a clock that must not move before.
    eventually(lambda: link.phase is prober._Phase.WAITING and link.due > clock.monotonic())  # pyright: ignore[reportPrivateUsage]
    assert select.select([stranger.socket], [], [], 0)[0] == [], "nobody is dialled before the pause is over"
    for turn in range(3):
        if turn:  # The prober has seen the end of the last connection, and dialled anew.
            eventually(lambda: select.select([stranger.socket], [], [], 0)[0])
        clock.advance(1)
        greet_and_hang_up()
        greet_and_hang_up()
    watcher.prober.close()
    stranger.close()


def test_callback_that_fails_hurts_nobody(processes: Callable[..., Process], caplog: pytest.LogCaptureFixture) -> None:
    """What goes wrong in the call about one peer is logged, and the others are watched on."""
    called: list[str] = []

    def on_gone(incarnation: str, proof: Proof, after: float) -> None:
        called.append(incarnation)
        raise ValueError("broken")

    watching = Prober(on_gone)
    members = [processes("i1"), processes("i2")]
    watching.watch(member.peer for member in members)
    eventually(lambda: len(watching.armed) == 2)
    members[0].send(signal.SIGKILL)
    eventually(lambda: called == ["i1"])
    members[1].send(signal.SIGKILL)
    eventually(lambda: called == ["i1", "i2"])
    watching.close()
    assert "ValueError: broken" in caplog.text


def test_closed_prober_hangs_up(stranger: Stranger) -> None:
    """After `close` nobody is held; closing twice is harmless."""
    watcher = Watcher()
    watcher.prober.watch([peer_at(stranger.port)])
    caller = stranger.accept(greeting())
    eventually(lambda: watcher.prober.armed)
    watcher.prober.close()
    watcher.prober.close()
    assert caller.recv(1) == b""
    watcher.prober.watch([])


def test_prober_may_be_closed_in_its_own_call(stranger: Stranger) -> None:
    """`close` in the call about a peer does not wait for itself."""
    closed: list[str] = []

    def on_gone(incarnation: str, proof: Proof, after: float) -> None:
        watching.close()
        closed.append(incarnation)

    watching = Prober(on_gone)
    watching.watch([peer_at(stranger.port)])
    stranger.accept(greeting())
    eventually(lambda: watching.armed)
    stranger.close()
    eventually(lambda: closed)
    watching.close()


class Hasty(socket.socket):
    """A connection said to be readable before it is, as kernels may."""

    early = True

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Have nothing, once."""
        if self.early:
            self.early = False
            raise BlockingIOError(errno.EAGAIN, "not yet")
        return super().recv(size, flags)


def test_false_alarm_is_no_end(watcher: Watcher, stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that proves to have nothing to read is neither greeted nor lost."""

    def dial_hastily(host: str, port: int) -> socket.socket:
        return Hasty(fileno=dial(host, port).detach())

    monkeypatch.setattr(prober, "dial", dial_hastily)
    watcher.prober.watch([peer_at(stranger.port)])
    stranger.accept(greeting())
    eventually(lambda: watcher.prober.armed)
    assert len(stranger.callers) == 1


def test_held_connections_are_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends of a held connection look after it, so that no firewall forgets it and none lasts for ever."""
    monkeypatch.setattr(smoothcluster.failure_detector.listener, "keep_descriptors_apart", not_apart)
    listener = Listener(ListenAddress(LOOPBACK))
    listener.announce("g", "m", "i1")
    with dial(*listener.address) as caller:
        eventually(lambda: vars(listener)["_held"])
        (held,) = vars(listener)["_held"]
        for end in (caller, held):
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    listener.close()
