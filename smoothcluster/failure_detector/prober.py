"""The prober: holds a connection to each watched member, and finds proof of a death when the peer closes it."""

import errno
import json
import logging
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum
from math import inf
from typing import cast, final

from smoothcluster.clock import SYSTEM_CLOCK, Clock
from smoothcluster.failure_detector.sockets import Wakeup, dial

_log = logging.getLogger(__name__)

_LONGEST_GREETING_BYTES = 1024
"""Bytes. Two names of up to 100 characters and an id fit easily; a flood of data from a stranger does not."""

_FIRST_DIAL_TIMEOUT_SECONDS = 0.02
"""Seconds to wait for a connection before the prober dials again; doubles with every attempt.

The kernel repeats a lost packet only after a whole second, and a dying listener with a full
queue does lose packets.
"""

_LONGEST_DIAL_TIMEOUT_SECONDS = 3.0
"""Seconds: the upper limit of the doubling."""

_FIRST_DIAL_PAUSE_SECONDS = 0.001
"""Seconds between two attempts to reach a peer without a greeting; doubles with every attempt."""

_LONGEST_DIAL_PAUSE_SECONDS = 1.0
"""Seconds: the upper limit of the doubling pause."""


_PROOF_WINDOW_SECONDS = 10.0
"""Seconds after the peer closed the held connection during which a refusal proves the death of the process.

The port of a dead process refuses at once. A later refusal may have another cause: a proxy closed an idle connection,
and is stopped some hours later.
"""

_FIRST_IN_LINE_HEAD_START_SECONDS = 0.015
"""Seconds that a member waits before examining a death, if another member is first in line to act on deaths."""


class Proof(StrEnum):
    """The observation that proves the end of an incarnation."""

    REFUSED = "refused"
    """The peer closed the held connection, and nothing listens at the address any more: the process is gone."""
    REPLACED = "replaced"
    """The member greets there with another incarnation. The process may be the same, after joining again."""


@dataclass(frozen=True, slots=True)
class Peer:
    """An incarnation to watch, and the listening address from the member record."""

    incarnation: str
    member: str
    group: str
    host: str
    """A numeric address. The prober never looks up a name, because a slow name server would delay all other peers."""
    port: int


class _Phase(Enum):
    WAITING = "until it is due to dial"
    CONNECTING = "for the kernel, until it is due to give up"
    CONNECTED = "for the greeting"
    HELD = "for the end of the connection"
    OVER = "for nothing: it is proven"


class _Link:
    """A peer, and the state of the connection to the peer."""

    __slots__ = ("due", "failures", "greeted", "greeted_at", "lost_at", "peer", "phase", "received", "socket")

    def __init__(self, peer: Peer, now: float) -> None:
        self.peer = peer
        self.phase = _Phase.WAITING
        self.due = now
        self.socket: socket.socket | None = None
        self.received = b""
        self.failures = 0
        self.greeted = False
        """Whether the peer has greeted, and no greeted connection has ended by an error since: a proof is possible."""
        self.greeted_at: float | None = None
        self.lost_at = now


@final
class Prober:
    """Watches all peers in a single thread, and calls *on_gone* once for each peer whose end is proven.

    *on_gone* gets the incarnation, the proof, and the seconds from the end of the held
    connection to the proof. The prober's thread calls *on_gone*, so the callback must return at once.
    """

    def __init__(self, on_gone: Callable[[str, Proof, float], None], clock: Clock = SYSTEM_CLOCK) -> None:
        self._on_gone = on_gone
        self._clock = clock
        self._wanted: frozenset[Peer] = frozenset()
        self._pause = 0.0
        self._links: dict[Peer, _Link] = {}
        self._wakeup = Wakeup()
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name="smoothcluster-prober", daemon=True)
        self._thread.start()

    def watch(self, peers: Iterable[Peer], *, first: bool = True) -> None:
        """Watch exactly these *peers* from now on.

        Peers already watched keep their connections. The prober forgets all other peers, though a call
        about a forgotten peer may be under way. If this member is not *first* in line to act on a death,
        the prober dials a moment later after a connection ends: the first member needs the processors.
        """
        self._wanted, self._pause = frozenset(peers), 0.0 if first else _FIRST_IN_LINE_HEAD_START_SECONDS
        self._wakeup.wake()

    @property
    def armed(self) -> frozenset[str]:
        """The incarnations that have greeted and hold a connection: the prober would notice their death."""
        return frozenset(link.peer.incarnation for link in list(self._links.values()) if link.phase is _Phase.HELD)

    def close(self) -> None:
        """Stop watching. After this returns *on_gone* is not called again, unless *on_gone* called this. Repeatable."""
        self._closing = True
        self._wakeup.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        self._selector.register(self._wakeup.socket, selectors.EVENT_READ)
        while not self._closing:
            self._take_orders()
            self._do_what_is_due()
            for key, _ in self._selector.select(self._time_left()):
                if key.data is None:
                    self._wakeup.clear()
                else:
                    self._on_ready(key.data, key.data.socket)
        for link in self._links.values():
            self._hang_up(link)
        self._selector.close()
        self._wakeup.close()

    def _take_orders(self) -> None:
        wanted, now = self._wanted, self._clock.monotonic()
        for peer in self._links.keys() - wanted:
            self._hang_up(self._links.pop(peer))
        for peer in wanted - self._links.keys():
            self._links[peer] = _Link(peer, now)

    def _do_what_is_due(self) -> None:
        now = self._clock.monotonic()
        for link in self._links.values():
            if link.due <= now:
                if link.phase is _Phase.WAITING:
                    self._dial(link)
                else:
                    self._retry(link)

    def _time_left(self) -> float | None:
        due = min((link.due for link in self._links.values()), default=inf)
        return None if due == inf else max(due - self._clock.monotonic(), 0)

    def _dial(self, link: _Link) -> None:
        try:
            link.socket = dial(link.peer.host, link.peer.port)
        except (OSError, ValueError, OverflowError) as error:
            self._failed(link, error)
            return
        patience = _doubled(_FIRST_DIAL_TIMEOUT_SECONDS, link.failures, _LONGEST_DIAL_TIMEOUT_SECONDS)
        link.phase, link.due, link.received = _Phase.CONNECTING, self._clock.monotonic() + patience, b""
        self._selector.register(link.socket, selectors.EVENT_WRITE, link)

    def _on_ready(self, link: _Link, connection: socket.socket) -> None:
        if link.phase is _Phase.CONNECTING:
            self._connected(link, connection)
            return
        heard, closed = b"", False
        try:
            heard = connection.recv(_LONGEST_GREETING_BYTES)
            closed = not heard
        except BlockingIOError:
            return
        except OSError:  # A firewall may have answered in the place of the peer.
            pass
        if link.phase is _Phase.HELD:
            # Only the end of the connection follows a greeting. A peer that sends more data is no member.
            self._lost(link, closed=closed)
        elif not heard:
            self._retry(link)
        else:
            self._on_data(link, heard)

    def _lost(self, link: _Link, *, closed: bool) -> None:
        """Dial again after the end of the held connection; forget the greeting unless the peer *closed* it.

        The kernel of a dead process closes the connection in order, because the peer never has unread data. A reset or
        a timeout comes from a firewall, a restarted machine or a cut cable. Only the held connection tells so much: the
        kernel also resets connections which the dead process has not accepted yet.
        """
        link.lost_at, link.greeted = self._clock.monotonic(), closed
        self._retry(link)
        link.due += self._pause

    def _connected(self, link: _Link, connection: socket.socket) -> None:
        try:
            error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
            if connection.getsockname() == connection.getpeername():
                # A socket that dials a free port of this machine may get the same port as source, and reach itself.
                # So nobody listens there; but only the kernel's refusal is proof, and the next attempt will get it.
                raise OSError(errno.EADDRINUSE, "reached itself")
        except OSError as failure:
            self._failed(link, failure)
            return
        link.phase, link.due = _Phase.CONNECTED, inf
        self._selector.modify(connection, selectors.EVENT_READ, link)

    def _on_data(self, link: _Link, heard: bytes) -> None:
        link.received += heard
        line, newline, _ = link.received.partition(b"\n")
        if newline:
            self._greeted(link, line)
        elif len(link.received) > _LONGEST_GREETING_BYTES:
            self._retry(link)

    def _greeted(self, link: _Link, line: bytes) -> None:
        peer, now = link.peer, self._clock.monotonic()
        group, member, incarnation = _parse_greeting(line)
        if (group, member, incarnation) == (peer.group, peer.member, peer.incarnation):
            if link.greeted_at is None or now - link.greeted_at >= _LONGEST_DIAL_PAUSE_SECONDS:
                # The peer was well until now: dial again at once when the connection ends. A peer that
                # greets and hangs up again and again must not keep two processes busy.
                link.failures = 0
            link.greeted, link.greeted_at = True, now
            link.phase = _Phase.HELD
        elif link.greeted and (group, member) == (peer.group, peer.member):
            self._prove(link, Proof.REPLACED)
        else:
            self._retry(link)

    def _failed(self, link: _Link, error: Exception) -> None:
        in_time = self._clock.monotonic() - link.lost_at <= _PROOF_WINDOW_SECONDS
        if isinstance(error, ConnectionRefusedError) and link.greeted and in_time:
            self._prove(link, Proof.REFUSED)
        else:
            self._retry(link)

    def _retry(self, link: _Link) -> None:
        """Dial again: twice at once, because a dying listener may accept for an instant, then with growing pauses."""
        self._hang_up(link)
        pause = (
            0.0
            if link.failures < 2
            else _doubled(_FIRST_DIAL_PAUSE_SECONDS, link.failures - 2, _LONGEST_DIAL_PAUSE_SECONDS)
        )
        link.failures += 1
        link.phase, link.due = _Phase.WAITING, self._clock.monotonic() + pause

    def _prove(self, link: _Link, proof: Proof) -> None:
        self._hang_up(link)
        link.phase, link.due = _Phase.OVER, inf
        try:
            self._on_gone(link.peer.incarnation, proof, self._clock.monotonic() - link.lost_at)
        except Exception:  # noqa: BLE001 - the other peers are watched by this thread, too
            _log.exception("on_gone failed for %s", link.peer)

    def _hang_up(self, link: _Link) -> None:
        if link.socket is not None:
            self._selector.unregister(link.socket)
            link.socket.close()
            link.socket = None


def _doubled(seconds: float, times: int, limit: float) -> float:
    return min(seconds * 2.0 ** min(times, 30), limit)


def _parse_greeting(line: bytes) -> tuple[object, object, object]:
    try:
        greeting: object = json.loads(line)
    except (ValueError, RecursionError):
        greeting = None
    if not isinstance(greeting, dict):
        return None, None, None
    fields = cast("dict[object, object]", greeting)
    return fields.get("group"), fields.get("member"), fields.get("incarnation")
