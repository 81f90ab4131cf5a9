"""The stop flag for handlers: set when the member leaves, resigns as a Runner, or may have lost the lease."""

from typing import final

from smoothcluster.clock import Clock
from smoothcluster.recipes.session import Session


@final
class Stopping:
    """A flag for the handlers of one incarnation: set by `set`, and also while the lease is not certainly held."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self._session, self._clock = session, clock
        self._leaving = clock.signal()

    def set(self) -> None:
        """Set the flag. Called when the incarnation ends, when the member leaves, and when a Runner resigns."""
        self._leaving.set()

    def clear(self) -> None:
        """Clear the flag. Called when the member is a Runner again, or has transferred all shards."""
        self._leaving.clear()

    def is_set(self) -> bool:
        return self._leaving.is_set() or not self._session.held()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is set, at most *timeout* seconds. Return whether the flag is set."""
        end = None if timeout is None else self._clock.monotonic() + timeout
        while not self.is_set():
            now = self._clock.monotonic()
            if end is not None and now >= end:
                break
            # A renewal in the session's thread may move the deadline during this wait. So wait no longer than to the
            # present deadline, and then test again.
            until = self._session.deadline if end is None else min(end, self._session.deadline)
            self._leaving.wait(max(0.001, until - now))
        return self.is_set()
