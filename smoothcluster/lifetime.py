"""The lifetime of a client of a store: one process, from the construction to `close`.

Every adapter makes a `ClientLifetime`, shared by all parts of the client, and every call begins with
`ClientLifetime.check`. So two rules hold on every store:

* A client belongs to the process that made the client. In a forked child, every call raises UsageError at once, and
  `close` does nothing: sockets, sessions and locks are shared with the parent, and the client's threads are missing.
* `close` tells every waiting thread. Each call after `close` raises BackendClosedError.

The checks take no lock: a thread of the parent may hold any lock at the moment of the fork, and a lock held then stays
held in the child for ever.

A forked child keeps its copies of all clients until the child ends. A destructor of a driver could hang there, because
the driver's threads are missing, or send data over a connection that the parent uses.
"""

import ctypes
import logging
import os
from collections.abc import Callable, Iterable
from typing import final
from weakref import WeakSet

from smoothcluster.errors import BackendClosedError, UsageError

_log = logging.getLogger(__name__)

SPAWN_ADVICE = "start processes without forking, as multiprocessing.get_context('spawn') does"
FORK_ADVICE = f"make the backend in the child process, or {SPAWN_ADVICE}"

_clients: WeakSet[object] = WeakSet()
"""Every living client of this process."""


class _Forks:
    count = 0


def _in_child() -> None:
    _Forks.count += 1
    for client in list(_clients):
        keep_alive(client)


os.register_at_fork(after_in_child=_in_child)


def keep_alive(kept: object) -> None:
    """Keep *kept*, and all objects reachable from *kept*, for ever: no destructor runs, not even at exit."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


def current_process() -> tuple[int, int]:
    """Return an identity of this process: different in every forked child, also in a child of `fork` in C.

    The number of the process alone is not enough: in another PID namespace a child may have the number of the parent.
    """
    return os.getpid(), _Forks.count


@final
class OwnProcess:
    """The process that made an object. *subject* and *advice* are for the error in another process."""

    def __init__(self, subject: str, advice: str = FORK_ADVICE) -> None:
        self._subject, self._advice = subject, advice
        self._process = current_process()

    @property
    def is_current(self) -> bool:
        """Whether this process made the object."""
        return self._process == current_process()

    def check(self) -> None:
        """Raise UsageError in another process than the object's own."""
        if self._process != current_process():
            raise UsageError(
                f"{self._subject} belongs to process {self._process[0]}, and cannot be used in process {os.getpid()},"
                f" which was forked: {self._advice}"
            )


@final
class ClientLifetime:
    """The lifetime of *client*, shared by all parts of the client. *name* names the store in errors."""

    def __init__(self, client: object, name: str, advice: str = FORK_ADVICE) -> None:
        self.closed = False
        self._name = name
        self._process = OwnProcess(f"this client of {name}", advice)
        self._callbacks: dict[object, Callable[[], None]] = {}
        _clients.add(client)

    @property
    def in_own_process(self) -> bool:
        """Whether this process made the client."""
        return self._process.is_current

    def check(self) -> None:
        """Raise UsageError in another process than the client's own, and BackendClosedError after `end`."""
        self._process.check()
        if self.closed:
            raise BackendClosedError(f"this client of {self._name} is closed")

    def check_process(self) -> None:
        """Raise UsageError in another process than the client's own."""
        self._process.check()

    def end(self) -> bool:
        """Mark the client as closed, and call every callback of `on_close`. Return whether the adapter may close.

        In another process than the client's own, do nothing and return False. Otherwise the adapter next notifies all
        watches, and then closes the connections. The mark comes first, so every woken thread finds the client closed.
        """
        if not self._process.is_current:
            return False
        # Before the callbacks are taken: `on_close` adds its callback first and reads the mark second. So every
        # callback is found here or there.
        self.closed = True
        taken: list[Callable[[], None]] = []
        while self._callbacks:
            try:
                taken.append(self._callbacks.popitem()[1])
            except KeyError:
                break  # Another thread took the last callback.
        notify_all(taken)
        return True

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Register *callback*, as in `CoordinationBackend.on_close`."""
        self._process.check()
        token = object()
        self._callbacks[token] = callback
        if self.closed and self._callbacks.pop(token, None) is not None:
            callback()

        def cancel() -> None:
            self._callbacks.pop(token, None)

        return cancel


def notify_all(callbacks: Iterable[Callable[[], None]]) -> None:
    """Call each of *callbacks*; log an exception, and go on to the next."""
    for callback in callbacks:
        try:
            callback()
        except Exception:  # noqa: BLE001  # The caller's own code failed; still tell the others.
            _log.exception("a function to be called at the close of a backend raised an exception")
