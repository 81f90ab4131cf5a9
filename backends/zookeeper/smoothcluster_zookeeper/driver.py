"""Typed wrapper of kazoo, without kazoo's automatic sessions: the only module to use kazoo's internals.

kazoo opens a new session after an expiry and keeps every session alive. Both would make a lease
meaningless, so this module switches both off. kazoo hides the granted session time, the latest state
of the store, and the reason for a failed connection. This module exposes all three.
"""

# mypy: disable-error-code="no-untyped-call, no-any-return, union-attr"
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false, reportOptionalMemberAccess=false, reportOptionalSubscript=false
# ruff: noqa: SLF001
# Reason for all of these: kazoo has no types, and no public way to do the work of this module.

import contextlib
import logging
import math
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, cast, final

from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionDropped
from kazoo.protocol.connection import CLOSE_RESPONSE, ConnectionHandler
from kazoo.protocol.serialization import Auth, CloseInstance, Connect, Watch
from kazoo.protocol.states import EVENT_TYPE_MAP
from kazoo.security import ACL

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster_zookeeper.kazoo_handler import Handler
from smoothcluster_zookeeper.kazoo_requests import Request
from smoothcluster_zookeeper.refusals import explain_refusal
from smoothcluster_zookeeper.settings import Settings

_KAZOO_LOG = logging.getLogger("smoothcluster_zookeeper.kazoo")

_SHORTEST_EXPLANATION_PAUSE_SECONDS = 1.0
"""Seconds between two extra connections to find out why a server refuses sessions."""


def _redact(record: logging.LogRecord) -> bool:
    """Remove credentials and session passwords from kazoo's debug messages. Return False to drop the whole message."""
    if "passwd" in record.msg:
        return False
    if isinstance(record.args, tuple):
        record.args = tuple(map(_redacted, record.args))
    return True


def _redacted(word: object) -> object:
    if isinstance(word, Auth):
        return word._replace(auth="***")
    return word._replace(passwd=b"***") if isinstance(word, Connect) else word


_KAZOO_LOG.addFilter(_redact)
if _KAZOO_LOG.level == logging.NOTSET:
    # kazoo logs each attempt to connect, many in a second, and the members of a group log the outage. Users who need
    # kazoo's own messages set another level.
    _KAZOO_LOG.setLevel(logging.ERROR)


Fired = Callable[[str, str], None]
"""Called in the session's thread with an event of a ZooKeeper watch: the kind, of kazoo's EventType, and the znode."""


class Pending(Protocol):
    """An awaited answer: kazoo's AsyncResult."""

    value: Any

    def ready(self) -> bool: ...
    def successful(self) -> bool: ...
    def get(self, *, timeout: float | None = None) -> Any: ...


class Transaction(Protocol):
    """Operations applied together: kazoo's TransactionRequest."""

    def check(self, path: str, version: int) -> None: ...
    def create(self, path: str, value: bytes = b"", acl: Sequence[ACL] = (), *, ephemeral: bool = False) -> None: ...
    def set_data(self, path: str, value: bytes, version: int = -1) -> None: ...
    def delete(self, path: str, version: int = -1) -> None: ...
    def commit_async(self) -> Pending: ...


@final
class Driver:
    """A kazoo client for a single session.

    *wanted*: seconds of silence the session should survive; *granted* is the time from the servers.
    Without *ping*, only requests keep the session alive. kazoo knows no watch of the session: all events go to *fired*.
    """

    def __init__(  # long: a line for each part of the driver's state
        self,
        settings: Settings,
        handler: Handler,
        on_state: Callable[[str], None],
        fired: Fired,
        *,
        wanted: float,
        ping: bool,
    ) -> None:
        self.settings = settings
        self.fired = fired
        self.ping = ping
        self.granted = 0.0
        self.zxid = 0
        """The latest transaction id of the store in any answer since the last refusal of a server."""
        self.failures, self.refusals = dict[str, str](), dict[str, str]()
        """By server, since the last session: the last failure; and, if reached, why the server refused a session."""
        self._refused_zxid = 0
        """The latest state that the client had seen when a server last refused the client."""
        self.drops = 0
        """How often a server has ended the connection instead of answering the handshake."""
        self.verified = -1
        """The number of drops when the client last knew that the store was no older than in earlier answers."""
        self.closed = False
        """Whether the servers have confirmed the end of the session."""
        self._handler = handler
        self._kazoo = KazooClient(
            settings.hosts,
            timeout=math.ceil(wanted * 1000) / 1000,  # kazoo cuts off parts of milliseconds.
            handler=handler,
            auth_data=settings.credentials,
            connection_retry={"max_tries": -1, "delay": 0.05, "max_delay": 0.5, "sleep_func": handler.sleep_func},
            logger=_KAZOO_LOG,
        )
        self._kazoo._connection = _Connection(self, self._kazoo)
        self._kazoo.add_listener(on_state)

    def start(self) -> None:
        """Begin to connect."""
        self._kazoo.start_async()

    @property
    def id(self) -> int:
        """Id of the session."""
        return cast("int", self._kazoo._session_id)

    @property
    def password(self) -> bytes:
        """Password of the session."""
        return cast("bytes", self._kazoo._session_passwd)

    @property
    def state(self) -> str:
        """A state of kazoo's KeeperState."""
        return self._kazoo.client_state

    def exists(self, znode: str) -> Pending:
        """Ask for a znode's stat, None if absent."""
        return self._kazoo.exists_async(znode)

    def children(self, znode: str) -> Pending:
        """Ask for the names of a znode's children."""
        return self._kazoo.get_children_async(znode)

    def set(self, znode: str, value: bytes) -> Pending:
        """Ask for a znode's data to be replaced."""
        return self._kazoo.set_async(znode, value)

    def create(self, znode: str, value: bytes, acl: Sequence[ACL], *, ephemeral: bool) -> Pending:
        """Ask for a znode to be made."""
        return self._kazoo.create_async(znode, value, acl=acl, ephemeral=ephemeral)

    def sync(self, znode: str) -> Pending:
        """Have the server answer later requests from a state no older than now."""
        return self._kazoo.sync_async(znode)

    def transaction(self) -> Transaction:
        """Return an empty transaction."""
        return cast("Transaction", self._kazoo.transaction())

    def send(self, request: Request) -> Pending:
        """Send a request for which kazoo has no method."""
        pending = cast("Pending", self._handler.async_result())
        self._kazoo._call(request, pending)
        return pending

    def prevent_reconnect(self) -> None:
        """Open neither a new session in place of this session nor a new connection."""
        self._kazoo._stopped.set()

    def send_close(self) -> None:
        """Ask the servers to end the session."""
        self._kazoo._queue.append((CloseInstance, None))
        self.wake()

    def forget_state(self) -> None:
        """Connect even to an older store from now on: a server has ended the connection during the handshake.

        A server does so to a client that has seen a later state of the store. Either the server is a little behind, or
        the store was emptied or restored, and never catches up. With the latest state in the handshake, the session
        would then try for ever. `Connection.verify` finds out which is the case before the session's next commit.
        """
        self._refused_zxid = self._kazoo.last_zxid or self._refused_zxid
        self._kazoo.last_zxid = 0
        self.zxid = 0
        self.drops += 1

    def wake(self) -> None:
        """Wake the thread to handle pending work."""
        with contextlib.suppress(AttributeError, OSError):  # The socket is closed, or a wake-up is pending.
            self._kazoo._connection._write_sock.send(b"\0", socket.MSG_DONTWAIT)

    def explain_refusal(self, address: tuple[str, int], host: str) -> str:
        """Return why the server at *address* refuses this session, by another connection."""
        connect = partial(self._handler.create_connection, address, host)
        return explain_refusal(connect, self._kazoo.last_zxid or self._refused_zxid, tls=self.settings.tls is not None)

    def release(self) -> None:
        """Close file descriptors after the end of the thread."""
        self._kazoo.close()


@final
class _Connection(ConnectionHandler):
    """kazoo's connection, with state exposed, the library's time limits, and pings only on demand."""

    def __init__(self, driver: Driver, kazoo: KazooClient) -> None:
        super().__init__(kazoo, kazoo._conn_retry.copy(), logger=_KAZOO_LOG)
        self._driver = driver
        self._reached = False
        """Whether the connection stands, and the server is to open a session."""
        self._next_explanation = 0.0

    def _expand_client_hosts(self) -> Any:
        addresses = super()._expand_client_hosts()
        if not addresses:
            self._driver.failures[self._driver.settings.hosts] = "no such host"
        return addresses

    def _connect(self, host: str, hostip: str, port: int) -> tuple[float, float]:
        longest = self._driver.settings.patience * 1000
        self._reached = False
        try:
            silence, _ = super()._connect(host, hostip, port)
        except ConnectionDropped as error:
            self._note_failure(host, hostip, port, error)
            raise
        except Exception as error:
            self._driver.failures[f"{host}:{port}"] = str(error) or "no answer"
            raise
        self._driver.failures.clear()
        self._driver.refusals.clear()
        return min(silence, longest), longest

    def _note_failure(self, host: str, hostip: str, port: int, error: Exception) -> None:
        name, driver = f"{host}:{port}", self._driver
        driver.failures[name] = str(error)
        if not self._reached:
            driver.refusals.pop(name, None)
        elif name not in driver.refusals or SYSTEM_CLOCK.monotonic() >= self._next_explanation:
            self._next_explanation = SYSTEM_CLOCK.monotonic() + _SHORTEST_EXPLANATION_PAUSE_SECONDS
            driver.refusals[name] = driver.explain_refusal((hostip, port), host)

    def _invoke(self, timeout: float, request: Any, xid: int | None = None) -> Any:  # noqa: ARG002  # Not kazoo's limit.
        self._reached = True
        try:
            answer = super()._invoke(self._driver.settings.share, request, xid)
        except ConnectionDropped:
            self._driver.forget_state()
            raise
        if xid is None:
            self._driver.granted = answer[0].time_out / 1000
        return answer

    def _read_response(self, header: Any, buffer: bytes, offset: int) -> Any:
        self._driver.zxid = max(self._driver.zxid, header.zxid)
        return super()._read_response(header, buffer, offset)

    def _read_watch_event(self, buffer: bytes, offset: int) -> None:
        event, _ = Watch.deserialize(buffer, offset)
        self._driver.fired(EVENT_TYPE_MAP.get(event.type, ""), event.path)

    def _read_socket(self, read_timeout: float) -> Any:
        response = super()._read_socket(read_timeout)
        self._driver.closed |= response == CLOSE_RESPONSE
        return response

    def _send_ping(self, connect_timeout: float) -> None:
        if self._driver.ping:
            super()._send_ping(connect_timeout)
