"""The command ``smoothcluster``, and ``python -m smoothcluster``: Ctrl-C ends it quietly from its first line on."""

import os
import sys

INTERRUPTED = 130
"""As `smoothcluster.cli.common.Exit` has it, which is not imported yet."""


def main() -> None:
    """Import the commands, which takes a while, and run the one that is asked for."""
    try:
        import signal

        # An exception would not do: while it imports, Python calls back where none can be raised.
        if heard := signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))
        from smoothcluster.cli import main as command

        if heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":  # pragma: no branch
    main()
