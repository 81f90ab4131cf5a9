"""Sockets as listeners and probers need them: never waiting, never asking a name server, kept alive."""

import ctypes
import errno
import fcntl
import os
import socket
from contextlib import suppress
from typing import final

from smoothcluster.errors import UsageError

_OUTSIDE = ("1.1.1.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "2606:4700:4700::1111")
"""Addresses that lie behind some interface on nearly every network. Nothing is ever sent to them."""

_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - only where the user asks for it, or names an address that is translated

_KEEPALIVE = [
    (getattr(socket, option), value)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, option)
]
"""A held connection is silent by nature. This keeps firewalls from forgetting it, and notices those that did."""


@final
class Bell:
    """Wakes a thread that waits in a selector."""

    def __init__(self) -> None:
        self.socket, self._far = socket.socketpair()
        self.socket.setblocking(False)
        self._far.setblocking(False)

    def ring(self) -> None:
        # Full means that it rings already; closed means that nobody listens any more.
        with suppress(OSError):
            self._far.send(b"\0")

    def hush(self) -> None:
        with suppress(BlockingIOError):
            self.socket.recv(4096)

    def close(self) -> None:
        self.socket.close()
        self._far.close()


_CLONE_FILES = 0x400
"""By linux/sched.h."""


def keep_descriptors_apart(keep: int) -> bool:
    """Give the calling thread a table of descriptors of its own; whether this system can do that (Linux can).

    It has the standard streams, *keep*, and what the thread opens from now on. No child inherits
    those, and the kernel closes them when the thread ends: all others of a killed process it
    closes last, after freeing the memory, which takes a millisecond for every ten MiB or so.
    """
    try:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_FILES) != 0:
            return False
    except (AttributeError, OSError):
        return False
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
    return True


_BEHIND_ALL = 200
"""More descriptors than a listener's thread ever has."""


def closed_first(connection: socket.socket) -> socket.socket:
    """The same socket under a high number: of a killed process's sockets Linux ends the highest first.

    So whoever dials again when a held connection has ended is refused at once, where it would else
    often be accepted once more, by a listener that ends a moment later.
    """
    try:
        high = fcntl.fcntl(connection, fcntl.F_DUPFD_CLOEXEC, _BEHIND_ALL)
    except OSError:  # So many are not allowed.
        return connection
    connection.close()
    return socket.socket(fileno=high)


def dial(host: str, port: int) -> socket.socket:
    """Begin to connect to a numeric address without waiting. Raise what the kernel says at once."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    )[0]
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        _keep_alive(connection)
        error = connection.connect_ex(address)
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, os.strerror(error))
    except BaseException:
        connection.close()
        raise
    return connection


def listen(host: str | None) -> tuple[socket.socket, str]:
    """A listening socket on a free port, and the numeric address to publish for it."""
    wanted = None if host is None else _resolve(host)
    published = outgoing_address() if wanted is None or wanted in _EVERYWHERE else wanted
    try:
        return _bind(wanted or published), published
    except OSError:
        return _bind(_EVERYWHERE[":" in published]), published


def _bind(address: str) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        if address == "::":
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((address, 0))
        listening.listen(128)
        listening.setblocking(False)
        _keep_alive(listening)  # what is accepted inherits it
    except BaseException:
        listening.close()
        raise
    return listening


def _resolve(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot find the address of host {host!r}: {error}; give one that others can reach"
        ) from error


def outgoing_address() -> str:
    """The address by which this machine reaches others, loopback if it reaches none. Sends nothing."""
    for target in _OUTSIDE:
        with (
            suppress(OSError),
            socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as probe,
        ):
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
    return "127.0.0.1"


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
