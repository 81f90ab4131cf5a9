"""A lease kept alive, and the clock that says when to stop relying on it.

The store decides when a lease ends; this process only hears of it later, or never. So `held`
goes by this process's own clock: the time granted, counted from *before* the last successful
renewal was sent. The store began to count no earlier, so while `held` is true it still has
the lease, whatever the network does. Check `held` before each act that relies on the lease.

What this does not give: an act begun while `held` was true may reach the store after the
lease has gone. Whatever must not happen then has to be refused by the store itself: name a
key of the lease, or a version, in the same commit.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import final

from smoothcluster.backend import CoordinationBackend, Lease
from smoothcluster.clock import SYSTEM_CLOCK, Clock, Signal
from smoothcluster.errors import BackendError


class LeaseState(StrEnum):
    """What is known of a lease."""

    HELD = "held"
    """Granted, and its time is not over."""
    RENEWED = "renewed"
    """The last attempt to renew it succeeded, and its time is not over."""
    UNKNOWN = "unknown"
    """The last attempt failed, or its time is over: the store may still have it, or not."""
    LOST = "lost"
    """Gone for good: lost, or given back."""


@final
class Session:
    """One lease, from grant to loss. A process that loses it starts over with a new `Session`.

    Opening it asks the store: raise UnavailableError or OutcomeUnknownError if that failed.
    Then `start` keeps it alive in a thread, or `run` in the caller's own.
    """

    lost: Signal
    """Set once the lease is gone for good, be it lost or given back. Wait for it freely."""

    def __init__(self, backend: CoordinationBackend, ttl: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self.backend = backend
        self.lost = clock.signal()
        self._ended = clock.signal()
        self._lock = threading.Lock()
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._state = LeaseState.HELD
        self._attempted = clock.monotonic()
        self._lease = backend.lease(ttl)
        self._deadline = self._attempted + self._lease.ttl

    @property
    def lease(self) -> Lease:
        """The lease to hang keys on."""
        return self._lease

    @property
    def ttl(self) -> float:
        """Seconds the store granted."""
        return self._lease.ttl

    @property
    def deadline(self) -> float:
        """When, on the clock's monotonic time, the lease may have run out unless renewed before."""
        return self._deadline

    @property
    def state(self) -> LeaseState:
        """What is known of the lease now."""
        if self.lost.is_set():
            return LeaseState.LOST
        return self._state if self.clock.monotonic() < self._deadline else LeaseState.UNKNOWN

    def held(self) -> bool:
        """True while the store certainly still has the lease. It may have it, or not, when false."""
        return not self.lost.is_set() and self.clock.monotonic() < self._deadline

    def renew_once(self) -> LeaseState:
        """Try once to renew, and say what is known after it. Failing to reach the store is no error.

        A lease whose time was over may turn out to be held after all: the store is the judge.
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
        """Renew every third of the time granted, four times as often while the store is out of reach.

        Return once the lease is lost or the session closed.
        """
        while not self._ended.wait(self._until_next()):
            self.renew_once()

    def start(self) -> None:
        """Keep the lease alive in a daemon thread."""
        threading.Thread(target=self.run, name=f"smoothcluster-session-{self._lease.id}", daemon=True).start()

    def lose(self) -> None:
        """Take note that the lease is gone for good: the store has said so, to a commit for instance."""
        with self._lock:
            self._state = LeaseState.LOST
            self.lost.set()
            self._ended.set()
            callbacks, self._callbacks = list(self._callbacks.values()), {}
        for callback in callbacks:
            callback()

    def on_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have *callback* called once when `lost` is set, at once if it is. Return what undoes this.

        It is called from whichever thread notices, and must return at once.
        """
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

    def close(self, *, revoke: bool = True) -> None:
        """End it: `held` is false and `lost` set from now on. Repeatable.

        The lease is given back, unless *revoke* is false or the store cannot be told: then it
        runs out by itself.
        """
        given_up = not self.lost.is_set()
        self.lose()
        if given_up and revoke:
            # Out of reach, it runs out by itself: that is what leases are for.
            with suppress(BackendError):
                self._lease.revoke()

    def _until_next(self) -> float:
        pause = self.ttl / 12 if self._state is LeaseState.UNKNOWN else self.ttl / 3
        return max(0.0, self._attempted + pause - self.clock.monotonic())
