"""The command ``smoothcluster``, and ``python -m smoothcluster``: Ctrl-C ends both quietly from the first line on."""

import os
import sys

INTERRUPTED_EXIT_STATUS = 130
"""Equal to `smoothcluster.cli.common.Exit`, which is not imported yet."""

LAST_STANDARD_DESCRIPTOR = 2
"""Descriptor of standard error; descriptors 0 and 1 are standard input and output."""


def open_standard_files() -> None:
    """Open ``/dev/null`` at each standard descriptor that is closed, as after ``>&-``.

    Otherwise the connection to a store could get the descriptor, and the next child process would write into the
    connection. ``sys.stdin`` stays None, because a command that reads closed input must say so.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= LAST_STANDARD_DESCRIPTOR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8", closefd=False))


def main() -> None:
    """Import the commands, which takes a while, and run the requested command."""
    open_standard_files()
    try:
        import signal

        # Not an exception: during an import, Python calls back in places where no exception can be raised.
        if heard := signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED_EXIT_STATUS))
        from smoothcluster.cli import main as command
        from smoothcluster.cli.interrupt import on_interrupt

        if heard:
            signal.signal(signal.SIGINT, on_interrupt)
        command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_EXIT_STATUS)


if __name__ == "__main__":  # pragma: no branch
    main()
