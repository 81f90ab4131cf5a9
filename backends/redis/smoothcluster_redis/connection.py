"""A connection to the store, and the Lua script behind every command.

The module tells exactly when an outcome becomes unknown. Before the call of the driver's send, no data was sent.
After the call, and without an answer, the outcome is unknown. So the driver's pool and retries are not used.
"""

import hashlib
import random
import select
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any, Final, final

from redis import Connection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, NoScriptError  # noqa: A004  # the driver's own
from redis.retry import Retry

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster_redis.settings import Credentials

CLOCK_STEP_CAP_SECONDS: Final = 0.5
"""Seconds by which the store's lease clock advances at most between two commands."""

_SCRIPT_SOURCE: Final = (
    files("smoothcluster_redis")
    .joinpath("store.lua")
    .read_text("utf-8")
    .replace("$CAP", str(round(CLOCK_STEP_CAP_SECONDS * 1000)))
)
_SCRIPT_SHA: Final = hashlib.sha1(_SCRIPT_SOURCE.encode(), usedforsecurity=False).hexdigest().encode()


class _Tls(Connection):
    """A TLS connection. The driver's own class would trust the system's authorities in addition to *ca*."""

    def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:
        self._context = context
        super().__init__(**options)  # type: ignore[no-untyped-call]  # redis-py annotates parts of itself

    def _connect(self) -> ssl.SSLSocket:
        plain = super()._connect()  # type: ignore[no-untyped-call]  # as above
        try:
            return self._context.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


def _connection(
    host: str, port: int, timeout: float, tls: ssl.SSLContext | None, credentials: Credentials | None, db: int
) -> Any:
    """Return a connection of redis-py, whose type annotations are incomplete. The driver must not retry."""
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "db": db,
        "username": credentials and credentials.username,
        "password": credentials and credentials.password,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,
    }
    return _Tls(context=tls, **options) if tls else Connection(**options)  # type: ignore[no-untyped-call]  # as above


def seconds_left(deadline: float) -> float:
    """Return the seconds until *deadline*; never zero, which would mean no limit to the driver."""
    return max(0.001, deadline - SYSTEM_CLOCK.monotonic())


def _packed(words: Sequence[Any]) -> bytes:
    """Encode a command in Redis's protocol. The driver's own encoder is slower, as it examines each word repeatedly."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


@final
class StoreConnection:
    """A connection to *host*, opened at once. The methods raise the driver's errors."""

    def __init__(
        self,
        host: str,
        port: int,
        timeout: float,
        tls: ssl.SSLContext | None,
        credentials: Credentials | None = None,
        *,
        db: int = 0,
    ) -> None:
        self._connection = _connection(host, port, timeout, tls, credentials, db)
        self._connection.connect()
        self._idle = select.poll()
        self._idle.register(self._connection._sock, select.POLLIN)  # noqa: SLF001  # the driver's own look costs more
        self.store: bytes = b""
        """The server process that holds the store, and the first commit there, as of the last `identify`."""
        self.number = 0
        """The number of the last commit at that time."""
        self.history = ""
        """The history of the store, as text for people."""

    @property
    def stale(self) -> bool:
        """Whether the server has ended the idle connection."""
        return bool(self._idle.poll(0))

    def send(self, *words: Any) -> None:
        """Send one command."""
        if not self._connection.is_connected:  # The driver would connect again, perhaps to another server.
            raise ConnectionError("the connection is closed")
        self._connection.send_packed_command([_packed(words)], check_health=False)

    def receive(self, deadline: float) -> Any:
        """Return the answer to the first unanswered command."""
        return self._connection.read_response(timeout=seconds_left(deadline))

    def request(self, deadline: float, *words: Any) -> Any:
        """Send a command and return the answer."""
        self.send(*words)
        return self.receive(deadline)

    def run(self, deadline: float, prefix: str, act: str, words: Sequence[Any] = ()) -> Any:
        """Have the script do *act*."""
        # A server that does not know the script has run nothing, so sending the commit a second time is safe.
        try:
            return self.request(deadline, b"EVALSHA", _SCRIPT_SHA, b"1", f"{prefix}meta", act, *words)
        except NoScriptError:
            return self.request(deadline, b"EVAL", _SCRIPT_SOURCE, b"1", f"{prefix}meta", act, *words)

    def identify(self, deadline: float, prefix: str, act: str) -> None:
        """Record the store's identity, number and history here; have the store record the server's identity."""
        # The jump of the numbers after a possible loss: farther than any number handed out before.
        jump = random.randrange(10**9, 2 * 10**9)
        answer: tuple[bytes, bytes, bytes] = self.run(deadline, prefix, act, [jump])
        self.number, self.store, self.history = int(answer[0]), answer[1], answer[2].decode()

    def interrupt(self) -> None:
        """Interrupt another thread that waits for an answer. The thread gets an error, and closes the connection."""
        link = self._connection._sock  # noqa: SLF001  # the driver has no call for this
        if link is not None:
            with suppress(OSError):
                # The plain method: that of a TLS socket changes the object, which the other thread is using.
                socket.socket.shutdown(link, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection. Repeatable."""
        self._connection.disconnect()
