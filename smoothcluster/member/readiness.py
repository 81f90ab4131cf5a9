"""Readiness checks: a Backup Runner checks from time to time whether the process could take over.

A standby without exercise turns out to be broken on the day of a failover. So a Backup Runner checks whether a child
process can import the handler, and calls the user's own check. The member record shows the finding and the time of
the check to all members. The election passes over a member with a finding against it. The record is written in the same
way as a claim: with a commit that compares the own member record. So a member whose commits the store refuses shows an
old time of the check.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from smoothcluster.clock import Clock

FIRST_CHECK_DELAY_SECONDS = 2.0
"""Seconds before the first check, so that members that begin to work have the processors first."""

CHECK_INTERVAL_SECONDS = 30.0
"""Seconds from one check to the next."""

WARM_UP_RETRY_SECONDS = 1.0
"""Seconds from a check with a failed `warm_up` to the next check."""

LONGEST_CHECK_SECONDS = 60.0
"""Seconds after which a check still under way counts as failed."""

LONGEST_REASON_CHARACTERS = 200
"""Most characters of a reason; longer reasons are cut."""


@dataclass(frozen=True, slots=True)
class Fitness:
    """The result of the readiness checks of a member."""

    unfit: str | None = None
    """The reason not to take over; None if no reason is known."""
    checked: int | None = None
    """Time of the last reported check, in seconds since 1970 by the member's clock. For people."""


@final
class Readiness:
    """Checks in a thread of its own while *standing_by* returns True, and calls *changed* when there is news.

    Args:
        importing: returns the reason why no child process can import the handler; None if a child can, or if
            no child needs to. After the first success there are no more calls, because a call may start a process.
        warm_up: the user's own check, if any. An exception is the reason not to take over.
        standing_by: returns whether the member is a Backup Runner now.
        changed: called in the checking thread, without arguments.
        prepare: starts in the background what a takeover needs. Called at the start by a Backup Runner, and before
            each check in every role.
    """

    def __init__(
        self,
        importing: Callable[[], str | None],
        warm_up: Callable[[], object] | None,
        standing_by: Callable[[], bool],
        changed: Callable[[], None],
        clock: Clock,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:  # parameters: a function for each thing that the checks ask of the member
        self._prepare = prepare
        self._importing, self._warm_up = importing, warm_up
        self._standing_by, self._changed, self._clock = standing_by, changed, clock
        self._broken: str | None = None
        self._cold: str | None = None
        self._import_again: float | None = -1.0
        """The earliest time of the next import check, on the monotonic clock; None after a success."""
        self._began: float | None = None
        self._checked: int | None = None
        self._over = clock.signal()

    def fitness(self) -> Fitness:
        """Return the result of the last check; unfit if the present check takes too long. Any thread may call this."""
        # Read only once: the checking thread may end the check, and clear the time, between two reads.
        began = self._began
        if began is not None and self._clock.monotonic() - began > LONGEST_CHECK_SECONDS:
            return Fitness(f"the readiness check has not ended for {LONGEST_CHECK_SECONDS:.0f} seconds", self._checked)
        return Fitness(self._broken or self._cold, self._checked)

    def start(self) -> None:
        """Start the checking thread."""
        threading.Thread(target=self._run, name="smoothcluster-readiness", daemon=True).start()

    def stop(self) -> None:
        """Make no more checks. Does not wait for the present check."""
        self._over.set()

    def _run(self) -> None:
        if self._standing_by():
            self._prepare()  # At once: the first takeover may come at any time.
        self._over.wait(FIRST_CHECK_DELAY_SECONDS)
        while not self._over.is_set():
            self._prepare()
            if self._standing_by():
                self.check()
            self._over.wait(WARM_UP_RETRY_SECONDS if self._cold is not None else CHECK_INTERVAL_SECONDS)

    def check(self) -> None:
        """Check once, and call *changed* if there is news: a new result, or a check long after the last report.

        Exceptions of *warm_up* become the reason; this method raises none of them.
        """
        before, self._began = self.fitness().unfit, self._clock.monotonic()
        now, at = self._began, int(self._clock.wall())
        if self._import_again is not None and now >= self._import_again:
            why = self._importing()
            self._broken = (
                None if why is None else f"no child process can import the handler: {why}"[:LONGEST_REASON_CHARACTERS]
            )
            self._import_again = None if why is None else now + CHECK_INTERVAL_SECONDS
        self._cold = self._warmed_up()
        # The member's thread may call `fitness` at any moment. So clear the time after both results are in place:
        # otherwise a check that took too long would appear with the old results for an instant.
        self._began = None
        # A failed check is repeated often, and each report costs a commit: the same result again is no news.
        if (
            self._checked is None
            or self.fitness().unfit != before
            or abs(at - self._checked) >= CHECK_INTERVAL_SECONDS / 2
        ):
            self._checked = at  # Before the call: the woken loop reads the time.
            self._changed()

    def _warmed_up(self) -> str | None:
        try:
            if self._warm_up is not None:
                self._warm_up()
        except BaseException as error:  # noqa: BLE001 - the user's code: any exception is the answer
            return f"warm_up raised {type(error).__name__}: {error}"[:LONGEST_REASON_CHARACTERS]
        return None
