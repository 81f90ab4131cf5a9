"""Ctrl-C for commands that poll: a lost KeyboardInterrupt ends the command at the next poll.

Python cannot raise an exception out of some callbacks, such as finalizers: an interrupt that arrives there is printed
and dropped. So the signal handler also sets a flag, and `pause` raises again.
"""

from types import FrameType

from smoothcluster.clock import SYSTEM_CLOCK

_interrupted = False


def on_interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # the signature of signal handlers
    """Handle SIGINT: note the signal, and raise KeyboardInterrupt."""
    global _interrupted  # noqa: PLW0603  # a process has a single handler
    _interrupted = True
    raise KeyboardInterrupt


def pause(seconds: float) -> None:
    """Wait for *seconds* between two polls. Raise KeyboardInterrupt if there was a Ctrl-C at any time before."""
    SYSTEM_CLOCK.sleep(seconds)
    if _interrupted:
        raise KeyboardInterrupt
