"""kazoo, with types, and without what it does by itself: the only module that knows its inside.

kazoo opens a new session when one has expired and keeps every session alive. Both would make a
lease mean nothing, so both are switched off here. It does not tell what time it was granted,
what state of the store it has seen, or why it cannot connect: here it does.
"""

# mypy: disable-error-code="no-untyped-call, no-any-return, union-attr"
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false, reportOptionalMemberAccess=false, reportOptionalSubscript=false
# ruff: noqa: SLF001
# Reason for all of these: kazoo has no types, and no public way to do what is done here.

import contextlib
import logging
import math
import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast, final

from kazoo.client import KazooClient
from kazoo.protocol.connection import CLOSE_RESPONSE, ConnectionHandler
from kazoo.protocol.serialization import CloseInstance
from kazoo.security import ACL

from smoothcluster_zookeeper.kazoo_handler import Handler
from smoothcluster_zookeeper.kazoo_requests import RemoveWatches, Request

_LOG = logging.getLogger("smoothcluster_zookeeper.kazoo")
_LOG.addHandler(logging.NullHandler())
_LOG.setLevel(logging.INFO)  # At DEBUG kazoo logs credentials.


class Event(Protocol):
    """What a watch fires with: kazoo's WatchedEvent."""

    @property
    def type(self) -> str: ...
    @property
    def path(self) -> str: ...


Fired = Callable[[Event], None]


class Pending(Protocol):
    """An answer that is awaited: kazoo's AsyncResult."""

    value: Any

    def ready(self) -> bool: ...
    def successful(self) -> bool: ...
    def get(self, *, timeout: float | None = None) -> Any: ...


class Transaction(Protocol):
    """Operations that are applied together: kazoo's TransactionRequest."""

    def check(self, path: str, version: int) -> None: ...
    def create(self, path: str, value: bytes = b"", acl: Sequence[ACL] = (), *, ephemeral: bool = False) -> None: ...
    def set_data(self, path: str, value: bytes, version: int = -1) -> None: ...
    def delete(self, path: str, version: int = -1) -> None: ...
    def commit_async(self) -> Pending: ...


@final
class Driver:
    """One kazoo client, for one session.

    *wanted*: seconds of silence that the session should survive; *granted* is what it does.
    *share*: seconds for trying one server. *patience*: seconds of silence after which a server
    is left for another. Without *ping*, only requests keep the session alive.
    """

    def __init__(
        self,
        hosts: str,
        handler: Handler,
        credentials: list[tuple[str, str]],
        on_state: Callable[[str], None],
        *,
        wanted: float,
        share: float,
        patience: float,
        ping: bool,
    ) -> None:
        self.share = share
        self.patience = patience
        self.ping = ping
        self.granted = 0.0
        self.zxid = 0
        """The latest state of the store that an answer has shown."""
        self.last_failure: str | None = None
        self.closed = False
        """Whether the servers have answered that the session is over."""
        self._handler = handler
        self._kazoo = KazooClient(
            hosts,
            timeout=math.ceil(wanted * 1000) / 1000,  # kazoo cuts off parts of milliseconds.
            handler=handler,
            auth_data=credentials,
            connection_retry={"max_tries": -1, "delay": 0.05, "max_delay": 0.5, "sleep_func": handler.sleep_func},
            logger=_LOG,
        )
        self._kazoo._connection = _Connection(self, self._kazoo)
        self._kazoo.add_listener(on_state)

    def start(self) -> None:
        """Begin to connect."""
        self._kazoo.start_async()

    @property
    def id(self) -> int:
        """The session's."""
        return cast("int", self._kazoo._session_id)

    @property
    def password(self) -> bytes:
        """The session's."""
        return cast("bytes", self._kazoo._session_passwd)

    @property
    def state(self) -> str:
        """One of kazoo's KeeperState."""
        return self._kazoo.client_state

    def exists(self, znode: str, watch: Fired | None = None) -> Pending:
        """Ask for a znode's stat, None if it is absent."""
        return self._kazoo.exists_async(znode, watch)

    def children(self, znode: str, watch: Fired | None = None) -> Pending:
        """Ask for the names of what lies in a znode."""
        return self._kazoo.get_children_async(znode, watch)

    def set(self, znode: str, value: bytes) -> Pending:
        """Ask for a znode's data to be replaced."""
        return self._kazoo.set_async(znode, value)

    def create(self, znode: str, acl: Sequence[ACL], *, ephemeral: bool) -> Pending:
        """Ask for an empty znode to be made."""
        return self._kazoo.create_async(znode, b"", acl=acl, ephemeral=ephemeral)

    def sync(self, znode: str) -> Pending:
        """Ask for what follows to be answered from a state no older than now."""
        return self._kazoo.sync_async(znode)

    def transaction(self) -> Transaction:
        """An empty one."""
        return cast("Transaction", self._kazoo.transaction())

    def send(self, request: Request) -> Pending:
        """Send a request that kazoo has no method for."""
        pending = cast("Pending", self._handler.async_result())
        self._kazoo._call(request, pending)
        return pending

    def unwatch(self, znode: str) -> None:
        """Take back every watch on *znode*, without waiting: one that never fires stays as long as the connection."""
        self._kazoo._data_watchers.pop(znode, None)
        self._kazoo._child_watchers.pop(znode, None)
        self.send(RemoveWatches(znode))

    def stay_ended(self) -> None:
        """Open no new session in place of this one, nor a new connection."""
        self._kazoo._stopped.set()

    def send_close(self) -> None:
        """Ask the servers to end the session."""
        self._kazoo._queue.append((CloseInstance, None))
        self.wake()

    def wake(self) -> None:
        """Make the thread look at what is to be done."""
        with contextlib.suppress(AttributeError, OSError):  # It is closed, or has been told already.
            self._kazoo._connection._write_sock.send(b"\0", socket.MSG_DONTWAIT)

    def release(self) -> None:
        """Let go of file descriptors, when the thread has ended."""
        self._kazoo.close()


@final
class _Connection(ConnectionHandler):
    """kazoo's, which tells what it knows, keeps to our time limits, and pings only if told to."""

    def __init__(self, driver: Driver, kazoo: KazooClient) -> None:
        super().__init__(kazoo, kazoo._conn_retry.copy(), logger=_LOG)
        self._driver = driver

    def _expand_client_hosts(self) -> Any:
        addresses = super()._expand_client_hosts()
        if not addresses:
            self._driver.last_failure = "no such host"
        return addresses

    def _connect(self, host: str, hostip: str, port: int) -> tuple[float, float]:
        longest = self._driver.patience * 1000
        try:
            silence, _ = super()._connect(host, hostip, port)
        except Exception as error:
            self._driver.last_failure = f"{host}:{port}: {str(error) or 'no answer'}"
            raise
        return min(silence, longest), longest

    def _invoke(self, timeout: float, request: Any, xid: int | None = None) -> Any:  # noqa: ARG002  # Not kazoo's limit.
        answer = super()._invoke(self._driver.share, request, xid)
        if xid is None:
            self._driver.granted = answer[0].time_out / 1000
        return answer

    def _read_response(self, header: Any, buffer: bytes, offset: int) -> Any:
        self._driver.zxid = max(self._driver.zxid, header.zxid)
        return super()._read_response(header, buffer, offset)

    def _read_socket(self, read_timeout: float) -> Any:
        response = super()._read_socket(read_timeout)
        self._driver.closed |= response == CLOSE_RESPONSE
        return response

    def _send_ping(self, connect_timeout: float) -> None:
        if self._driver.ping:
            super()._send_ping(connect_timeout)
