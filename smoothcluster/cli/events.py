"""``smoothcluster events``: what happened in a group, one JSON object a line."""

import sys
from contextlib import nullcontext, suppress

import click

from smoothcluster.cli.common import STORE_RETRY_SECONDS, common, opened
from smoothcluster.cli.event_tail import Tail
from smoothcluster.cli.formatting import plain
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.cluster import Cluster
from smoothcluster.group.events import line
from smoothcluster.retry import patiently

FOLLOW_POLL_SECONDS = 0.25
"""Seconds between two looks while following."""


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with new ones as they come, until Ctrl-C.")
@common
def events(follow: bool, url: str | None, group: str) -> None:  # noqa: FBT001  # an option
    """Print what happened in a group.

    One JSON object a line, oldest first. Each member keeps a limited number of its latest events.
    """
    with opened(url) as backend:
        cluster = Cluster(backend, group, patience=STORE_RETRY_SECONDS)
        tail = Tail(backend, cluster.group)
        with suppress(KeyboardInterrupt) if follow else nullcontext():
            if not follow:
                cluster.spec()  # Raises if there is no such group: nothing to print is not the same.
            elif patiently(SYSTEM_CLOCK, STORE_RETRY_SECONDS, cluster.absent):
                click.echo(f"there is no group {plain(group)} yet; waiting for its first event", err=True)
            while True:
                for event in patiently(SYSTEM_CLOCK, STORE_RETRY_SECONDS, tail.new):
                    print(line(event))
                sys.stdout.flush()
                if not follow:
                    break
                SYSTEM_CLOCK.sleep(FOLLOW_POLL_SECONDS)
