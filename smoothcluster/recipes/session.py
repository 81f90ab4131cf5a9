"""A session keeps a lease alive and tells for how long the process may rely on the lease.

The store decides when a lease ends; this process learns of the end later, or never. So `held`
uses this process's own clock: the granted time, counted from *before* the last successful
renewal was sent. The store began to count no earlier, so while `held` is true the store still has
the lease, even if the network fails. Check `held` before each act that relies on the lease.

A session ends with the backend: after `close` of the backend nobody can renew the lease. A session belongs to the
process that made the session. After a fork two processes would rely on the same lease, so every call in the child
raises UsageError.

A session gives no protection for an act in progress: an act that began while `held` was true may reach
the store after the end of the lease. If this must not happen, let the store refuse the act: name a
key of the lease, or a version, in the same commit.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from functools import partial
from typing import final
from weakref import WeakMethod

from smoothcluster.arguments import check_backend, check_seconds
from smoothcluster.backend import CoordinationBackend, Lease
from smoothcluster.clock import SYSTEM_CLOCK, Clock, Signal
from smoothcluster.errors import BackendClosedError, BackendError, LeaseLostError
from smoothcluster.lifetime import SPAWN_ADVICE, OwnProcess


class LeaseState(StrEnum):
    """The knowledge of this process about a lease."""

    HELD = "held"
    """The store granted the lease, and the granted time is not over."""
    RENEWED = "renewed"
    """The last renewal succeeded, and the granted time is not over."""
    UNKNOWN = "unknown"
    """The last renewal failed, or the granted time is over: the store may or may not still have the lease."""
    LOST = "lost"
    """The lease is gone for good: lost, or given back."""


@final
class _LossSignal(Signal):
    """`Session.lost`: the signal *inner* of *session*, which also ends a session that nobody renews."""

    def __init__(self, session: "Session", inner: Signal) -> None:
        self._session, self._inner = session, inner

    def set(self) -> None:
        self._inner.set()

    def clear(self) -> None:
        self._inner.clear()

    def is_set(self) -> bool:
        return self._inner.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        return self._session.wait_for(self._inner, timeout)


@final
class Session:
    """One lease, from grant to loss. After a loss, a process starts over with a new `Session`.

    The constructor asks the store for the lease and raises UnavailableError or OutcomeUnknownError on failure, and
    UsageError for a wrong argument.
    Then `start` keeps the lease alive in a thread, or `run` in the caller's own.

    A session that nobody keeps alive ends with its lease: a thread that waits for `lost`, or for a `Lock`, closes the
    session when nobody has tried a renewal for the whole granted time.
    """

    def __init__(self, backend: CoordinationBackend, ttl: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._process = OwnProcess("this session", f"make backend and session in the child process, or {SPAWN_ADVICE}")
        check_backend(backend)
        check_seconds("ttl", ttl, zero=False)
        self.clock = clock
        self.backend = backend
        self._lost: Signal = _LossSignal(self, clock.signal())
        self._loss: tuple[type[BackendError], str] = LeaseLostError, "the session ended, and the lease is gone"
        self._kept_alive = False
        self._forget_backend: Callable[[], None] = lambda: None
        self._ended = clock.signal()
        self._lock = threading.Lock()
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._state = LeaseState.HELD
        self._attempted = clock.monotonic()
        self._lease = backend.lease(ttl)
        self._deadline = self._attempted + self._lease.ttl
        self._forget_backend = backend.on_close(partial(_call, WeakMethod(self._end_with_backend)))

    @property
    def lost(self) -> Signal:
        """Set once the lease is gone for good: lost, given back, or without a backend since the backend was closed.

        Any thread may wait for this signal.
        """
        self._process.check()
        return self._lost

    @property
    def loss(self) -> BackendError:
        """The reason for the end, as a new error: BackendClosedError or LeaseLostError."""
        kind, text = self._loss
        return kind(text)

    @property
    def lease(self) -> Lease:
        """The lease for keys that live as long as this session."""
        return self._lease

    @property
    def ttl(self) -> float:
        """Seconds granted by the store."""
        return self._lease.ttl

    @property
    def deadline(self) -> float:
        """The time, on the clock's monotonic scale, when the lease may run out without another renewal."""
        return self._deadline

    @property
    def state(self) -> LeaseState:
        """The present knowledge about the lease."""
        if self.lost.is_set():
            return LeaseState.LOST
        return self._state if self.clock.monotonic() < self._deadline else LeaseState.UNKNOWN

    def held(self) -> bool:
        """True while the store certainly still has the lease. False means unknown or lost."""
        return not self.lost.is_set() and self.clock.monotonic() < self._deadline

    def renew_once(self) -> LeaseState:
        """Try one renewal and return the new state. An unreachable store is no error.

        The store decides: a lease may turn out to be alive after its time was over on this process's clock.
        """
        if self.lost.is_set():
            return LeaseState.LOST
        before = self._attempted = self.clock.monotonic()
        try:
            alive = self._lease.renew()
        except BackendError:
            self._state = LeaseState.UNKNOWN
            return self.state
        if alive:
            with self._lock:
                self._deadline = max(self._deadline, before + self.ttl)
            self._state = LeaseState.RENEWED
        else:
            self.lose()
        return self.state

    def run(self) -> None:
        """Renew every third of the granted time, four times as often while the store is out of reach.

        Return once the lease is lost or the session closed.
        """
        self._process.check()
        self._kept_alive = True
        try:
            while not self._ended.wait(self._until_next()):
                self.renew_once()
        finally:
            self._kept_alive = False

    def start(self) -> None:
        """Keep the lease alive in a daemon thread."""
        self._process.check()
        self._kept_alive = True
        threading.Thread(target=self.run, name=f"smoothcluster-session-{self._lease.id}", daemon=True).start()

    def lose(self) -> None:
        """Record that the lease is gone for good, for example after the store's answer to a commit."""
        self._process.check()
        with self._lock:
            self._state = LeaseState.LOST
            self.lost.set()
            self._ended.set()
            callbacks, self._callbacks = list(self._callbacks.values()), {}
        self._forget_backend()
        for callback in callbacks:
            callback()

    def _end_with_backend(self) -> None:
        if not self._lost.is_set():
            self._loss = BackendClosedError, f"this client of {self.backend.url} is closed, and the session has ended"
            self.lose()

    def on_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call *callback* once when `lost` is set, at once if already set. Return a function that cancels the callback.

        The thread that notices the loss makes the call, so *callback* must return at once.
        """
        self._process.check()
        token = object()
        with self._lock:
            if not self.lost.is_set():
                self._callbacks[token] = callback
                return lambda: self._forget(token)
        callback()
        return lambda: None

    def _forget(self, token: object) -> None:
        with self._lock:
            self._callbacks.pop(token, None)

    def wait_for(self, signal: Signal, timeout: float | None = None) -> bool:
        """Wait for *signal* as `Signal.wait` does, and close the session if nobody keeps the lease alive meanwhile.

        Nobody keeps the lease alive if neither `start` nor `run` is at work, and no renewal was tried for the whole
        granted time.
        """
        self._process.check()
        until = None if timeout is None else self.clock.monotonic() + timeout
        while not signal.is_set():
            now = self.clock.monotonic()
            left = [] if until is None else [until - now]
            if not self._kept_alive and not self._lost.is_set():
                left.append(self._attempted + self.ttl - now)
                if left[-1] <= 0:
                    self._loss = (
                        LeaseLostError,
                        "nobody renewed the lease, and the session ended; call Session.start",
                    )
                    self.close()
                    continue
            if left and min(left) <= 0:
                break
            signal.wait(min(left, default=None))
        return signal.is_set()

    def close(self, *, revoke: bool = True) -> None:
        """End the session: `held` is false and `lost` is set from now on. Repeatable.

        The session gives the lease back, unless *revoke* is false or the store is out of reach: then the
        lease runs out on the store. In a forked child, `close` does nothing.
        """
        if not self._process.is_current:
            return
        given_up = not self.lost.is_set()
        self.lose()
        if given_up and revoke:
            # If the store is out of reach, the lease runs out there without further calls.
            with suppress(BackendError):
                self._lease.revoke()

    def _until_next(self) -> float:
        pause = self.ttl / 12 if self._state is LeaseState.UNKNOWN else self.ttl / 3
        return max(0.0, self._attempted + pause - self.clock.monotonic())


def _call(method: WeakMethod[Callable[[], None]]) -> None:
    """Call *method*, unless its object was dropped. A backend must not keep every session dropped without a `close`."""
    bound = method()
    if bound is not None:
        bound()
