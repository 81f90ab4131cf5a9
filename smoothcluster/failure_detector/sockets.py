"""Sockets for listeners and probers: non-blocking, with TCP keepalive, and dialled without a name server."""

import ctypes
import errno
import fcntl
import os
import socket
from contextlib import suppress
from typing import final

from smoothcluster.failure_detector.listen_address import WILDCARD_ADDRESSES, ListenAddress

_OUTSIDE_ADDRESSES = ("1.1.1.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "2606:4700:4700::1111")
"""Addresses for which nearly every network has a route. Nothing is ever sent to these addresses."""

_KEEPALIVE_OPTIONS = [
    (getattr(socket, option), value)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, option)
]
"""Options of TCP keepalive.

A held connection is silent by nature. Keepalive packets stop firewalls from forgetting the connection, and reveal a
connection that a firewall has forgotten.
"""


@final
class Wakeup:
    """Wakes a thread that waits in a selector."""

    def __init__(self) -> None:
        self.socket, self._far = socket.socketpair()
        self.socket.setblocking(False)
        self._far.setblocking(False)

    def wake(self) -> None:
        # A full socket means that a wake-up is pending already; a closed socket means that nobody waits any more.
        with suppress(OSError):
            self._far.send(b"\0")

    def clear(self) -> None:
        with suppress(BlockingIOError):
            self.socket.recv(4096)

    def close(self) -> None:
        self.socket.close()
        self._far.close()


_CLONE_FILES = 0x400
"""The flag ``CLONE_FILES`` of linux/sched.h."""


def keep_descriptors_apart(keep: int) -> bool:
    """Give the calling thread a private table of descriptors; return whether this system supports this (Linux does).

    The table holds the standard streams, *keep*, and every descriptor that the thread opens from now
    on. No child inherits these later descriptors, and the kernel closes them when the thread ends. The
    kernel closes all other descriptors of a killed process last, after freeing the memory, which takes
    about a millisecond for every ten MiB.
    """
    try:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_FILES) != 0:
            return False
    except (AttributeError, OSError):
        return False
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
    return True


_HIGH_DESCRIPTOR_NUMBER = 200
"""A number above every other descriptor of a listener's thread."""


def closed_first(connection: socket.socket) -> socket.socket:
    """Move the socket to a high descriptor number: Linux closes the sockets of a killed process highest first.

    The listening socket then closes before the held connections. A prober that dials again after the
    end of a held connection is refused at once. Otherwise a listener about to end would often accept
    once more.
    """
    try:
        high = fcntl.fcntl(connection, fcntl.F_DUPFD_CLOEXEC, _HIGH_DESCRIPTOR_NUMBER)
    except OSError:  # The limit of descriptors is lower.
        return connection
    connection.close()
    return socket.socket(fileno=high)


def dial(host: str, port: int) -> socket.socket:
    """Begin to connect to a numeric address without waiting. Raise OSError if the kernel refuses at once."""
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


def listen(where: ListenAddress | None) -> tuple[socket.socket, str]:
    """Return a listening socket, and the numeric address to publish.

    *where* has numeric addresses, as `ListenAddress.resolved` returns. None stands for the address by which this
    machine reaches other machines.
    """
    if where is None:
        published = outgoing_address()
        try:
            return _bind(published), published
        except OSError:
            return _bind(WILDCARD_ADDRESSES[":" in published]), published
    everywhere = where.address in WILDCARD_ADDRESSES
    published = where.advertised or (outgoing_address() if everywhere else where.address)
    for port in where.ports or (0,):
        try:
            return _bind(where.address, port), published
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise where.refused(error) from error
    raise where.taken()


def _bind(address: str, port: int = 0) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        if address == "::":
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if port:  # Connections of an earlier process on this port may linger. A listening socket still keeps the port.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen(128)
        listening.setblocking(False)
        _keep_alive(listening)  # accepted connections inherit this
    except BaseException:
        listening.close()
        raise
    return listening


def outgoing_address() -> str:
    """Return the address by which this machine reaches other machines, or loopback if none. Sends nothing."""
    for target in _OUTSIDE_ADDRESSES:
        with (
            suppress(OSError),
            socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as probe,
        ):
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
    return "127.0.0.1"


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE_OPTIONS:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
