"""The command ``smoothcluster``, and ``python -m smoothcluster``: Ctrl-C ends both quietly from the first line on."""

import os
import sys

INTERRUPTED_EXIT_STATUS = 130
"""Equal to `smoothcluster.cli.common.Exit`, which is not imported yet."""


def main() -> None:
    """Import the commands, which takes a while, and run the requested command."""
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
