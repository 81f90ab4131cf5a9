"""``smoothcluster events``: print the events of a group, a JSON object a line."""

import sys
from contextlib import nullcontext, suppress

import click

from smoothcluster.cli.common import STORE_RETRY_SECONDS, common, opened
from smoothcluster.cli.event_tail import Tail
from smoothcluster.cli.interrupt import pause
from smoothcluster.cli.output import json_text, print_data, print_message
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.cluster import Cluster
from smoothcluster.retry import patiently

FOLLOW_POLL_SECONDS = 0.25
"""Seconds between two reads while following."""


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Continue with new events as they come, until Ctrl-C.")
@common
def events(follow: bool, url: str | None, group: str) -> None:  # noqa: FBT001  # an option
    """Print the events of a group.

    Each line is a JSON object. The oldest event comes first. The store keeps a limited number of the
    latest events of each member.
    """
    with opened(url) as backend:
        cluster = Cluster(backend, group, patience=STORE_RETRY_SECONDS)
        tail = Tail(backend, cluster.group)
        with suppress(KeyboardInterrupt) if follow else nullcontext():
            if not follow:
                cluster.spec()  # Raises if the group does not exist. A group without events is no error.
            elif patiently(SYSTEM_CLOCK, STORE_RETRY_SECONDS, cluster.absent):
                print_message(f"group {group} does not exist yet; the command waits for the first event")
            while True:
                for event in patiently(SYSTEM_CLOCK, STORE_RETRY_SECONDS, tail.new):
                    print_data(json_text(event))
                sys.stdout.flush()
                if not follow:
                    break
                pause(FOLLOW_POLL_SECONDS)
