"""Whether a Backup Runner could take over: the user's own check, made now and then while it stands by.

A standby that nobody exercises is found broken on the day it is needed. What the check finds goes
into the member's record, where all can see it; one that has found itself unfit is passed over.
That the store can be reached needs no check: who cannot reach it is no member before long.
"""

import threading
from collections.abc import Callable
from typing import final

from smoothcluster.clock import Clock

EVERY = 30.0
"""Seconds from one check to the next."""

HURRY = 1.0
"""Seconds, likewise, after one that has failed."""

LONGEST = 60.0
"""Seconds that a check may take before it counts as failed."""

LARGEST = 200
"""Characters of a reason; what is longer is cut."""


@final
class Readiness:
    """Runs *check* in a thread while *standing_by* says so; calls *changed* when the answer is another.

    Without a check the answer is always that nothing speaks against it.
    """

    def __init__(
        self,
        check: Callable[[], object] | None,
        standing_by: Callable[[], bool],
        changed: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._check, self._standing_by, self._changed, self._clock = check, standing_by, changed, clock
        self._reason: str | None = None
        self._began: float | None = None
        self._over = clock.signal()

    def unfit(self) -> str | None:
        """Why this member should not take over; None if nothing is known to speak against it."""
        began = self._began
        if began is not None and self._clock.monotonic() - began > LONGEST:
            return f"warm_up has not come back for {LONGEST:.0f} seconds"
        return self._reason

    def start(self) -> None:
        """Begin to check."""
        if self._check is not None:
            threading.Thread(target=self._run, name="smoothcluster-readiness", daemon=True).start()

    def stop(self) -> None:
        """Check no more. Does not wait for a check that is under way."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.is_set():
            if self._standing_by():
                self.look()
            self._over.wait(HURRY if self._reason is not None else EVERY)

    def look(self) -> None:
        """Check once."""
        assert self._check is not None
        before, self._began = self._reason, self._clock.monotonic()
        try:
            self._check()
            self._reason = None
        except BaseException as error:  # noqa: BLE001 - it is the user's code: whatever it raises is the answer
            self._reason = f"warm_up raised {type(error).__name__}: {error}"[:LARGEST]
        self._began = None
        if self._reason != before:
            self._changed()
