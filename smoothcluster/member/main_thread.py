"""Keep a member's work out of the main thread, where signal handlers of the program may raise at any line."""

import logging
import threading
import traceback
from collections.abc import Callable

log = logging.getLogger("smoothcluster")

_LONGEST_WAIT_SECONDS = 1.0
"""Seconds between two looks at the thread, in case an exception has interrupted the wait at a bad moment."""


def work_beside_main_thread(work: Callable[[], None], ask_to_leave: Callable[[], None]) -> None:
    """Call *work* in a thread, and wait in the main thread until *work* returns. Raise the exception of *work*.

    An exception that a signal handler of the program raises meanwhile is logged: a task may have set an alarm, which
    must not cost the member. After SystemExit, KeyboardInterrupt and the like, call *ask_to_leave*, and raise the
    exception when *work* has returned.
    """
    errors: list[BaseException] = []
    over = threading.Event()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            errors.append(error)
        finally:
            over.set()

    threading.Thread(target=run, name="smoothcluster-member", daemon=True).start()
    interrupted = _wait(over, ask_to_leave)
    for error in [*interrupted, *errors][:1]:
        raise error


def _wait(over: threading.Event, ask_to_leave: Callable[[], None]) -> list[BaseException]:
    """Wait until *over*. Return the exceptions that are a reason to leave."""
    reasons: list[BaseException] = []
    unsaid: Exception | None = None
    while True:
        try:
            # Within the `try`, because the next signal may arrive while the last exception is logged.
            if unsaid is not None:
                error, unsaid = unsaid, None
                log.error("a signal handler of the program raised; the member goes on until `stop`", exc_info=error)
            if over.wait(_LONGEST_WAIT_SECONDS):
                return reasons
        except Exception as error:  # noqa: BLE001
            unsaid = error
        except BaseException as error:  # noqa: BLE001
            reasons.append(error)
            ask_to_leave()


def release_locks_of(error: BaseException) -> None:
    """End the frames that *error* has left, and so release the locks that a context manager of a frame still holds.

    A signal handler may raise between the line where a context manager takes a lock and the block of its ``with``.
    Then the lock stays taken for as long as the traceback of *error* exists. A caller that needs the lock before
    calls this function.
    """
    traceback.clear_frames(error.__traceback__)
