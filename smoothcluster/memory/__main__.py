"""``python -m smoothcluster.memory PATH`` serves an in-memory store at the socket PATH until SIGINT or SIGTERM."""

import signal
from pathlib import Path

import click

from smoothcluster.errors import UsageError
from smoothcluster.memory.server import MemoryServer


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
def main(path: Path) -> None:
    """Serve an in-memory store at the socket PATH, and print the store's URL.

    The store's data end with this process.
    """
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # Also for the server's thread: `sigwait` below gets them.
    try:
        with MemoryServer(path) as server:
            click.echo(server.url)
            signal.sigwait(ends)
    except UsageError as error:
        raise click.UsageError(str(error)) from error


if __name__ == "__main__":
    main()
