"""Retries with backoff: only calls that certainly had no effect are repeated, and only for a limited time."""

from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, stop_any, wait_random_exponential
from tenacity.stop import stop_base

from smoothcluster.clock import Clock
from smoothcluster.errors import BackendClosedError, UnavailableError

T = TypeVar("T")


def patiently(clock: Clock, seconds: float, act: Callable[[], T], stop: stop_base | None = None) -> T:
    """Call *act*, and retry while *act* raises UnavailableError, for at most *seconds*; then raise the last error.

    The pauses are random and grow to a second, so many clients do not come back at the same moment. A closed backend
    never comes back: BackendClosedError is raised at once.
    """
    limit = stop_after_delay(seconds)
    retrying = Retrying(
        retry=retry_if_exception(_may_pass),
        wait=wait_random_exponential(multiplier=0.02, max=1.0),
        stop=limit if stop is None else stop_any(limit, stop),
        sleep=clock.sleep,
        reraise=True,
    )
    return retrying(act)


def _may_pass(error: BaseException) -> bool:
    """Whether *error* may be over at the next attempt, and the failed call certainly had no effect."""
    return isinstance(error, UnavailableError) and not isinstance(error, BackendClosedError)
