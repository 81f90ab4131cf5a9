"""Outages of the store, as one member meets them: the log has one line for each reason, and one for the end.

A driver may fail in several ways during the same outage, for example once for each server. So the log names each reason
once a minute, and few reasons in a minute.
"""

import logging

from smoothcluster.clock import Clock

log = logging.getLogger("smoothcluster")

OUTAGE_REMINDER_SECONDS = 60.0
"""Seconds between two warnings that the store is away for the same reason."""

MOST_REASONS_PER_REMINDER = 3
"""How many different reasons of one outage are logged in `OUTAGE_REMINDER_SECONDS`."""


class Outage:
    """The present outage of the store, if any."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logged: dict[str, float] = {}
        self.lasts = False
        """Whether the store has failed since the last call of `end`."""

    def warn(self, why: str) -> None:
        """Log that the store is unavailable, unless the log has the reason *why* already."""
        self.lasts = True
        self._log(logging.WARNING, "the store is unavailable: %s", why)

    def report_mistake(self, why: str) -> None:
        """Log that this program made a commit too large for the store, unless the log has *why*. This is no outage."""
        self._log(logging.ERROR, "a commit is too large for the store, which answers otherwise: %s", why)

    def _log(self, level: int, text: str, why: str) -> None:
        now = self._clock.monotonic()
        self._logged = {each: at for each, at in self._logged.items() if now < at + OUTAGE_REMINDER_SECONDS}
        if why not in self._logged and len(self._logged) < MOST_REASONS_PER_REMINDER:
            log.log(level, text, why)
            self._logged[why] = now

    def end(self) -> None:
        """Log that the store is available again, if there was an outage."""
        if self.lasts:
            log.warning("the store is available again")
            self._logged.clear()
        self.lasts = False
