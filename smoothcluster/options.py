"""Groups of options that users pass to `ClusterCrawler`: retries of failed tasks, and isolation in child processes.

Each group checks its values when it is made, and raises UsageError with the name of the wrong option.
"""

from dataclasses import dataclass
from math import inf, isfinite

from smoothcluster.arguments import check_count
from smoothcluster.errors import UsageError

DEFAULT_MAX_TASKS = 10_000_000
"""Most tasks of a job that was submitted without a bound."""

LEAST_TASK_MEMORY_BYTES = 2**20
"""Memory that a child needs to receive a task and to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a task is tried whose handler raises, and how long the pauses between the tries are.

    The pause doubles with each try (exponential backoff), up to *most_delay*. A start after a handover is no retry
    and uses no attempt.
    """

    attempts: int = 1
    """How often the handler is called for a task before the task is ``failed``."""
    delay: float = 1.0
    """Seconds before the second try."""
    most_delay: float = 60.0
    """Seconds of the longest pause."""

    def __post_init__(self) -> None:
        """Raise UsageError if a value is out of range."""
        check_count("retries: attempts", self.attempts)
        for name in ("delay", "most_delay"):
            seconds = getattr(self, name)
            if not _is_number(seconds) or not (isfinite(seconds) and seconds >= 0):
                raise UsageError(f"retries: {name} must be 0 seconds or more, not {seconds!r:.80}")
        if self.most_delay < self.delay:
            raise UsageError(
                f"retries: most_delay ({self.most_delay:g} seconds) must be at least delay ({self.delay:g} seconds)"
            )

    def allow_another(self, failures: int) -> bool:
        """Return whether a task may be tried again after so many *failures*."""
        return failures < self.attempts

    def pause(self, failures: int) -> float:
        """Return the seconds between the last of so many *failures* and the next try."""
        # The exponent is bounded: a float overflows at 2 ** 1024.
        return min(self.most_delay, self.delay * 2.0 ** min(failures - 1, 64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """Run every task in a child process, so a task that kills its process costs no member.

    The handler must be a function that a fresh Python can import. Without `Isolation`, only tasks suspected of having
    killed a process run in children.
    """

    timeout: float | None = None
    """Seconds after which the member ends the child, and the task is ``failed``; None for no limit."""
    memory: int | None = None
    """Bytes that a task may allocate beyond the memory of a fresh child before it fails; None for no limit."""

    def __post_init__(self) -> None:
        """Raise UsageError if a limit is out of range."""
        for name, limit in (("timeout", self.timeout), ("memory", self.memory)):
            if limit is not None and not (_is_number(limit) and 0 < limit < inf):
                raise UsageError(f"isolation: {name} must be more than 0, not {limit!r:.80}")
        if self.memory is not None and self.memory < LEAST_TASK_MEMORY_BYTES:
            raise UsageError(
                f"isolation: memory is in bytes: {self.memory} are not enough for any task; give"
                f" {LEAST_TASK_MEMORY_BYTES} or more"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
