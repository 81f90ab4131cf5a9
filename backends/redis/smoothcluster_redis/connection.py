"""One connection to the store, and the script that every command is.

What can be sorted exactly here is: until the driver is asked to send, nothing was sent. From then
on, without an answer, nobody knows. The driver is used for that alone: no pool of its own, no retries.
"""

import hashlib
import random
import select
import ssl
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Final, final

from redis import Connection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, NoScriptError  # noqa: A004  # the driver's own
from redis.retry import Retry

from smoothcluster.clock import SYSTEM_CLOCK

CAP: Final = 0.5
"""Seconds by which the store's lease clock advances at most between two commands."""

_SOURCE: Final = (
    files("smoothcluster_redis").joinpath("store.lua").read_text("utf-8").replace("$CAP", str(round(CAP * 1000)))
)
_SHA: Final = hashlib.sha1(_SOURCE.encode(), usedforsecurity=False).hexdigest().encode()


class _Tls(Connection):
    """The driver's own would trust the system's authorities beside the one that it is given."""

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


def _connection(tls: ssl.SSLContext | None, options: dict[str, Any]) -> Any:
    """One of redis-py's, whose types are not complete."""
    return _Tls(context=tls, **options) if tls else Connection(**options)  # type: ignore[no-untyped-call]  # as above


def left(deadline: float) -> float:
    """Seconds until then; never none, which the driver would take for no limit."""
    return max(0.001, deadline - SYSTEM_CLOCK.monotonic())


def _packed(words: Sequence[Any]) -> bytes:
    """A command as Redis reads it. The driver's own way of packing looks at each word again and again."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


@final
class Link:
    """A connection to *host*, opened at once. Raise what the driver does."""

    def __init__(self, host: str, port: int, timeout: float, tls: ssl.SSLContext | None, **options: Any) -> None:
        options |= {
            "host": host,
            "port": port,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,
        }
        self._connection = _connection(tls, options)
        self._connection.connect()
        self._idle = select.poll()
        self._idle.register(self._connection._sock, select.POLLIN)  # noqa: SLF001  # the driver's own look costs more
        self.store: bytes = b""
        """Which server process holds the store, and since which commit, as it was said last."""
        self.number = 0
        """Of the last commit then."""
        self.history = ""
        """As `store`, for people."""

    @property
    def stale(self) -> bool:
        """Whether the server has ended the connection, while nobody asked it anything."""
        return bool(self._idle.poll(0))

    def send(self, *words: Any) -> None:
        """Send one command."""
        if not self._connection.is_connected:  # The driver would connect again, to nobody knows which server.
            raise ConnectionError("the connection is closed")
        self._connection.send_packed_command([_packed(words)], check_health=False)

    def receive(self, deadline: float) -> Any:
        """The answer to the first command that has had none."""
        return self._connection.read_response(timeout=left(deadline))

    def ask(self, deadline: float, *words: Any) -> Any:
        """Send one command and return its answer."""
        self.send(*words)
        return self.receive(deadline)

    def run(self, deadline: float, prefix: str, act: str, words: Sequence[Any] = ()) -> Any:
        """Have the script do *act*."""
        try:
            return self.ask(deadline, b"EVALSHA", _SHA, b"1", f"{prefix}meta", act, *words)
        except NoScriptError:
            return self.ask(deadline, b"EVAL", _SOURCE, b"1", f"{prefix}meta", act, *words)

    def identify(self, deadline: float, prefix: str, act: str) -> None:
        """Note which store this is, and have the store note which server it is on."""
        # How far numbers jump where some may be lost that were given: farther than any of them.
        jump = random.randrange(10**9, 2 * 10**9)
        answer: tuple[bytes, bytes, bytes] = self.run(deadline, prefix, act, [jump])
        self.number, self.store, self.history = int(answer[0]), answer[1], answer[2].decode()

    def close(self) -> None:
        """End it. Repeatable."""
        self._connection.disconnect()
