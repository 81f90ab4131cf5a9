"""One ZooKeeper session: it is connected or not, and once lost it is lost for good.

kazoo opens a new session by itself when one has expired, and keeps every session alive by
itself. Both would make a lease mean nothing, so both are switched off here. All use of what
kazoo regards as its own is in this module; `tests/backends/test_zookeeper.py` notices if it changes.
"""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any, final

from kazoo.client import KazooClient, TransactionRequest
from kazoo.exceptions import AuthFailedError, NoNodeError, OperationTimeoutError, SessionExpiredError
from kazoo.handlers.threading import AsyncResult, KazooTimeoutError
from kazoo.protocol.connection import CLOSE_RESPONSE, ConnectionHandler
from kazoo.protocol.serialization import CloseInstance
from kazoo.protocol.states import KazooState, KeeperState

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import BackendError, UnavailableError
from smoothcluster_zookeeper.errors import translate, unreachable
from smoothcluster_zookeeper.handler import Handler
from smoothcluster_zookeeper.requests import RemoveWatches

_LOG = logging.getLogger("smoothcluster_zookeeper.kazoo")
_LOG.addHandler(logging.NullHandler())
_LOG.setLevel(logging.INFO)  # At DEBUG kazoo logs credentials.

_ENDING = 5.0
"""Seconds to wait for a thread that was told to end. Only a name server can hold it up."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to reach the servers."""

    hosts: str
    timeout: float
    credentials: list[tuple[str, str]] = field(repr=False)
    tls: SSLContext | None

    @property
    def share(self) -> float:
        """Seconds for trying one server, so that the others are tried in time."""
        return self.timeout / (self.hosts.count(",") + 1)


@final
class Session:
    """Made at once, connected in the background; *changed* is called, in its thread, whenever that changes.

    Without *ping* it lives only by what is asked through it. *expired* is raised once it is lost.
    """

    def __init__(
        self,
        settings: Settings,
        wanted: float,
        *,
        ping: bool,
        expired: type[BackendError] = UnavailableError,
        changed: "Callable[[Session], None] | None" = None,
    ) -> None:
        self.settings = settings
        self.expired = expired
        self.id = 0
        self.granted = 0.0
        """Seconds of silence after which the servers end it."""
        self.zxid = 0
        """The latest state of the store that an answer has shown."""
        self.connected = False
        self.lost = False
        self.last_failure: str | None = None
        self._denied = False
        self._abandoned = False
        self._since = 0.0
        self._changed = changed
        self._news = threading.Condition()
        self._handler = Handler(f"smoothcluster-zookeeper {settings.hosts}", settings.share, settings.tls)
        self.kazoo = KazooClient(
            settings.hosts,
            timeout=wanted,
            handler=self._handler,
            auth_data=settings.credentials,
            connection_retry={"max_tries": -1, "delay": 0.05, "max_delay": 0.5, "sleep_func": self._handler.sleep_func},
            logger=_LOG,
        )
        self._connection = _Connection(self, ping=ping)
        self.kazoo._connection = self._connection
        self.kazoo.add_listener(self._on_state)
        self.kazoo.start_async()

    def ready(self, deadline: float) -> None:
        """Wait until it is connected. Raise UnavailableError at *deadline*, or what is due if it is lost."""
        with self._news:
            self._news.wait_for(lambda: self.connected or self.lost, deadline - SYSTEM_CLOCK.monotonic())
            if self._abandoned:
                raise UnavailableError("closed")
            if self.lost:
                raise self._translated(AuthFailedError() if self._denied else SessionExpiredError("the session is over"))
            if not self.connected:
                raise unreachable(
                    self.settings.hosts, self.settings.timeout, self.last_failure, tls=self.settings.tls is not None
                )

    def send(self, request: Any) -> AsyncResult:
        """Send a request that kazoo has no method for."""
        pending = self._handler.async_result()
        self.kazoo._call(request, pending)
        return pending

    def unwatch(self, znode: str) -> None:
        """Take back every watch on *znode*, without waiting: one that never fires stays as long as the connection."""
        if self.connected:
            self.kazoo._data_watchers.pop(znode, None)
            self.kazoo._child_watchers.pop(znode, None)
            self.send(RemoveWatches(znode))

    def wait(self, pending: AsyncResult, deadline: float, unknown: type[BackendError] = UnavailableError) -> Any:
        """The answer, or NoNodeError, or one of our own errors; *unknown* if there is none by *deadline*."""
        try:
            return pending.get(timeout=max(0.0, deadline - SYSTEM_CLOCK.monotonic()))
        except NoNodeError:
            raise
        except KazooTimeoutError as error:
            self._give_up_on_server()
            raise self._translated(OperationTimeoutError("no answer in time"), unknown) from error
        except Exception as error:
            raise self._translated(error, unknown) from error

    def run(
        self, transaction: TransactionRequest, deadline: float, unknown: type[BackendError] = UnavailableError
    ) -> tuple[Sequence[Any], int | None]:
        """Commit *transaction*: its results, and the index of the operation that failed it, if any."""
        results = self.wait(transaction.commit_async(), deadline, unknown)
        return results, first_failure(results)

    def close(self, deadline: float) -> bool:
        """End the session on the servers too; return whether they have answered so by *deadline*."""
        if not self.lost and self.connected:
            self.kazoo._stopped.set()
            self.kazoo._queue.append((CloseInstance, None))
            self._connection.wake()
            self._join(deadline - SYSTEM_CLOCK.monotonic())
        self.abandon()
        return self._connection.closed

    def abandon(self) -> None:
        """Let go of the connection and the thread without a word; the session runs out by itself."""
        self._abandoned = True
        self.kazoo._stopped.set()
        self._handler.abandon()
        self._connection.wake()
        self._join(_ENDING)
        if self._handler.thread is None or not self._handler.thread.is_alive():
            self.kazoo.close()

    def _give_up_on_server(self) -> None:
        """Another may answer, and this one would hold up all that follows. A new connection gets its chance."""
        if SYSTEM_CLOCK.monotonic() - self._since >= min(self.settings.share, self.granted / 4):
            self._handler.drop()

    def _join(self, seconds: float) -> None:
        if self._handler.thread is not None and self._handler.thread is not threading.current_thread():
            self._handler.thread.join(max(0.0, seconds))

    def _translated(self, error: Exception, unknown: type[BackendError] = UnavailableError) -> BackendError:
        return translate(error, self.settings.hosts, unknown=unknown, expired=self.expired)

    def _on_state(self, state: str) -> None:
        with self._news:
            self.connected = state == KazooState.CONNECTED
            if self.connected:
                self.id = self.kazoo.client_id[0]
                self._since = SYSTEM_CLOCK.monotonic()
            if state == KazooState.LOST:
                self.lost = True
                self._denied = self.kazoo.client_state == KeeperState.AUTH_FAILED
                self.kazoo._stopped.set()  # Or kazoo would open a new session in place of this one.
            self._news.notify_all()
        if self._changed:
            self._changed(self)


@final
class _Connection(ConnectionHandler):
    """kazoo's, which tells what it knows, keeps to our time limits, and pings only if told to."""

    def __init__(self, session: Session, *, ping: bool) -> None:
        super().__init__(session.kazoo, session.kazoo._conn_retry.copy(), logger=_LOG)
        self.closed = False
        self._session = session
        self._ping = ping

    def wake(self) -> None:
        """Make the thread look at what is to be done."""
        with contextlib.suppress(AttributeError, OSError):  # It is closed, or has been told already.
            self._write_sock.send(b"\0", socket.MSG_DONTWAIT)

    def _expand_client_hosts(self) -> Any:
        addresses = super()._expand_client_hosts()
        if not addresses:
            self._session.last_failure = "no such host"
        return addresses

    def _connect(self, host: str, hostip: str, port: int) -> tuple[float, float]:
        longest = self._session.settings.timeout * 1000
        try:
            silence, _ = super()._connect(host, hostip, port)
        except Exception as error:
            self._session.last_failure = f"{host}:{port}: {error or 'no answer'}"
            raise
        return min(silence, longest), longest

    def _invoke(self, timeout: float, request: Any, xid: int | None = None) -> Any:
        answer = super()._invoke(self._session.settings.share, request, xid)
        if xid is None:
            self._session.granted = answer[0].time_out / 1000
        return answer

    def _read_response(self, header: Any, buffer: bytes, offset: int) -> Any:
        self._session.zxid = max(self._session.zxid, header.zxid)
        return super()._read_response(header, buffer, offset)

    def _read_socket(self, read_timeout: float) -> Any:
        response = super()._read_socket(read_timeout)
        self.closed = self.closed or response == CLOSE_RESPONSE
        return response

    def _send_ping(self, connect_timeout: float) -> None:
        if self._ping:
            super()._send_ping(connect_timeout)


def first_failure(results: Sequence[Any]) -> int | None:
    """Which operation failed a transaction; None if it was applied. The others fail as rolled back, or not tried."""
    for index, result in enumerate(results):
        if isinstance(result, Exception) and getattr(result, "code", 0) not in (0, -2):
            return index
    return None
