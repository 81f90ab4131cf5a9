"""What tells handlers that they had better finish: the member is leaving, or may have lost its lease or its seat."""

from typing import final

from smoothcluster.clock import Clock
from smoothcluster.recipes.session import Session


@final
class Stopping:
    """A flag for one incarnation's handlers; set by `set`, and while the lease is not certainly held."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self._session, self._clock = session, clock
        self._leaving = clock.signal()

    def set(self) -> None:
        """The incarnation ends, the member leaves, or it is to be a Runner no longer."""
        self._leaving.set()

    def clear(self) -> None:
        """It may go on after all."""
        self._leaving.clear()

    def is_set(self) -> bool:
        return self._leaving.is_set() or not self._session.held()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, or for *timeout* seconds; whether it is set."""
        end = None if timeout is None else self._clock.monotonic() + timeout
        while not self.is_set():
            now = self._clock.monotonic()
            if end is not None and now >= end:
                break
            # Until the lease may have run out, as far as is known now: a renewal moves that on.
            until = self._session.deadline if end is None else min(end, self._session.deadline)
            self._leaving.wait(max(0.001, until - now))
        return self.is_set()
