"""A single ZooKeeper session: connected or not, and once lost never connected again."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, final

from kazoo.exceptions import AuthFailedError, NoNodeError, OperationTimeoutError, SessionExpiredError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState, KeeperState

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import BackendError, OutcomeUnknownError, UnavailableError
from smoothcluster_zookeeper.driver import Driver, Fired, Pending, Transaction
from smoothcluster_zookeeper.errors import translate_error, unreachable
from smoothcluster_zookeeper.kazoo_handler import Handler
from smoothcluster_zookeeper.kazoo_requests import Request
from smoothcluster_zookeeper.settings import Settings

_THREAD_END_SECONDS = 5.0
"""Seconds to wait for a thread to end. Only a name server can delay the end."""


@final
class Session:
    """A session, created at once and connected in the background.

    The session's thread calls *changed* at each change of the connection, and *fired* for each event of a ZooKeeper
    watch. *wanted*: seconds of silence the session should survive. Without *ping*, only requests keep the session
    alive. Calls on a lost session raise *expired*.
    """

    def __init__(  # parameters: two callbacks for the one session that has watches; leases need none
        self,
        settings: Settings,
        wanted: float,
        *,
        ping: bool,
        expired: type[BackendError] = UnavailableError,
        changed: "Callable[[Session], None] | None" = None,
        fired: Fired = lambda _, __: None,
    ) -> None:
        self.settings = settings
        self.id = 0
        self.connected = False
        self.lost = False
        self._expired = expired
        self._changed = changed
        self._denied = False
        self._abandoned = False
        self._since = 0.0
        self._state_changed = threading.Condition()
        self._handler = Handler(f"smoothcluster-zookeeper {settings.hosts}", settings.share, settings.tls)
        self.kazoo = Driver(settings, self._handler, self._on_state, fired, wanted=wanted, ping=ping)
        self.kazoo.start()

    @property
    def granted(self) -> float:
        """Seconds of silence after which the servers end the session."""
        return self.kazoo.granted

    @property
    def zxid(self) -> int:
        """The latest transaction id of the store in any answer to this session since the last refusal of a server."""
        return self.kazoo.zxid

    def ready(self, deadline: float) -> None:
        """Wait for a connection. Raise UnavailableError at *deadline*, or the error for a lost session."""
        self.settings.lifetime.check()
        with self._state_changed:
            self._state_changed.wait_for(
                lambda: self.connected or self.lost or self._abandoned, deadline - SYSTEM_CLOCK.monotonic()
            )
            self.settings.lifetime.check()  # The client may have been closed meanwhile.
            if self._abandoned:
                raise UnavailableError("this session of ZooKeeper is closed")
            if self.lost:
                raise self._translated(AuthFailedError() if self._denied else SessionExpiredError("session expired"))
            if not self.connected:
                settings, kazoo = self.settings, self.kazoo
                raise unreachable(settings, kazoo.failures, kazoo.refusals)

    def wait(self, pending: Pending, deadline: float, unknown: type[BackendError] = UnavailableError) -> Any:
        """Return the answer; raise NoNodeError, a library error, or, without an answer by *deadline*, *unknown*."""
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
        self,
        transaction: Transaction,
        deadline: float,
        unknown: type[BackendError] = UnavailableError,
        after: Sequence[Request] = (),
    ) -> tuple[Sequence[Any], int | None, Sequence[Any]]:
        """Commit *transaction*; return the results, the index of the failed operation, if any, and the answers *after*.

        The session sends the requests *after* at the same time: ZooKeeper answers a session's requests in order.
        """
        # The commit first: the answers to the requests after the commit then show its effect.
        pending = transaction.commit_async()
        others = [self.kazoo.send(each) for each in after]
        results: Sequence[Any] = self.wait(pending, deadline, unknown)
        answers = [self.wait(each, deadline, unknown) for each in others]
        return results, first_failure(results), answers

    def close(self, deadline: float) -> bool:
        """End the session on the servers too; return whether the servers have confirmed the end by *deadline*."""
        if self.connected:
            # In this order: otherwise kazoo's thread could connect again once the servers have closed the connection.
            self.kazoo.prevent_reconnect()
            self.kazoo.send_close()
            self._join(deadline - SYSTEM_CLOCK.monotonic())
        self.abandon()
        return self.kazoo.closed

    def abandon(self) -> None:
        """Drop the connection and the thread without telling the servers; the session expires there."""
        with self._state_changed:
            self._abandoned = True
            self._state_changed.notify_all()  # A thread in `ready` may be waiting for a connection.
        # The connection breaks last: kazoo's thread then finds the reconnect forbidden, and ends.
        self.kazoo.prevent_reconnect()
        self._handler.abandon()
        self.kazoo.wake()
        if self._join(_THREAD_END_SECONDS):
            self.kazoo.release()

    def _give_up_on_server(self) -> None:
        """Drop a silent server, which holds up all later requests, unless the connection is new."""
        if SYSTEM_CLOCK.monotonic() - self._since >= min(self.settings.share, self.granted / 4):
            self._handler.drop()

    def _join(self, seconds: float) -> bool:
        """Wait for the thread; return whether the thread has ended."""
        thread = self._handler.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, seconds))
        return thread is None or not thread.is_alive()

    def _translated(self, error: Exception, unknown: type[BackendError] = UnavailableError) -> BackendError:
        translated = translate_error(error, self.settings.hosts, unknown=unknown, expired=self._expired)
        if not isinstance(translated, OutcomeUnknownError):
            self.settings.lifetime.check()  # The client may have been closed meanwhile, and this is the cause.
        return translated

    def _on_state(self, state: str) -> None:
        with self._state_changed:
            self.connected = state == KazooState.CONNECTED
            if self.connected:
                self.id = self.kazoo.id
                self._since = SYSTEM_CLOCK.monotonic()
            if state == KazooState.LOST:
                self.lost = True
                self._denied = self.kazoo.state == KeeperState.AUTH_FAILED
                self.kazoo.prevent_reconnect()
            self._state_changed.notify_all()
        # Outside the lock: the callback takes locks of its own.
        if self._changed:
            self._changed(self)


def first_failure(results: Sequence[object]) -> int | None:
    """Return the index of the operation that failed the transaction; None if applied.

    The other operations fail as rolled back or not tried.
    """
    for index, result in enumerate(results):
        if isinstance(result, Exception) and getattr(result, "code", 0) not in (0, -2):
            return index
    return None
