"""Whether a Backup Runner could take over: its own checks, made now and then while it stands by.

A standby that nobody exercises is found broken on the day it is needed. So it looks whether a child
process can import the handler, and makes the user's own check. What that finds goes into the
member's record, where all can see it, and when; one that has found itself unfit is passed over.
That record is written as a claim is: by a commit on its lease that compares its own record. So one
that the store does not let write shows a check that is long past.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from smoothcluster.clock import Clock

FIRST = 2.0
"""Seconds before the first check: whoever starts to work just then has the machine to itself."""

EVERY = 30.0
"""Seconds from one check to the next."""

HURRY = 1.0
"""Seconds, likewise, after `warm_up` has failed."""

LONGEST = 60.0
"""Seconds that a check may take before it counts as failed."""

LARGEST = 200
"""Characters of a reason; what is longer is cut."""


@dataclass(frozen=True, slots=True)
class Fitness:
    """What a member knows about itself."""

    unfit: str | None = None
    """Why it should not take over; None if nothing is known to speak against it."""
    checked: int | None = None
    """When that was last looked into, in seconds since 1970 by its own clock. For people."""


@final
class Readiness:
    """Checks in a thread while *standing_by* says so, and calls *changed* when there is news.

    Args:
        importing: says why no child process can import the handler, though it should; None if one
            can. Asked again only after it has failed, since that takes a process.
        warm_up: the user's own check, if there is one: what it raises is the reason.
    """

    def __init__(
        self,
        importing: Callable[[], str | None],
        warm_up: Callable[[], object] | None,
        standing_by: Callable[[], bool],
        changed: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._importing, self._warm_up = importing, warm_up
        self._standing_by, self._changed, self._clock = standing_by, changed, clock
        self._broken: str | None = None
        self._cold: str | None = None
        self._import_again: float | None = -1.0
        """When, by the monotonic clock; None once it has been seen to work."""
        self._began: float | None = None
        self._checked: int | None = None
        self._over = clock.signal()

    def fitness(self) -> Fitness:
        """What the last check has found, or that the one under way does not come back."""
        began = self._began
        if began is not None and self._clock.monotonic() - began > LONGEST:
            return Fitness(f"its check of itself has not come back for {LONGEST:.0f} seconds", self._checked)
        return Fitness(self._broken or self._cold, self._checked)

    def start(self) -> None:
        """Begin to check."""
        threading.Thread(target=self._run, name="smoothcluster-readiness", daemon=True).start()

    def stop(self) -> None:
        """Check no more. Does not wait for a check that is under way."""
        self._over.set()

    def _run(self) -> None:
        self._over.wait(FIRST)
        while not self._over.is_set():
            if self._standing_by():
                self.look()
            self._over.wait(HURRY if self._cold is not None else EVERY)

    def look(self) -> None:
        """Check once."""
        before, self._began = self.fitness().unfit, self._clock.monotonic()
        now, at = self._began, int(self._clock.wall())
        if self._import_again is not None and now >= self._import_again:
            why = self._importing()
            self._broken = None if why is None else f"no child process can import the handler: {why}"[:LARGEST]
            self._import_again = None if why is None else now + EVERY
        self._cold = self._warmed_up()
        self._began = None
        # What fails is tried often, and the same answer again is no news.
        if self._checked is None or self.fitness().unfit != before or abs(at - self._checked) >= EVERY / 2:
            self._checked = at
            self._changed()

    def _warmed_up(self) -> str | None:
        try:
            if self._warm_up is not None:
                self._warm_up()
        except BaseException as error:  # noqa: BLE001 - it is the user's code: whatever it raises is the answer
            return f"warm_up raised {type(error).__name__}: {error}"[:LARGEST]
        return None
