"""``smoothcluster spec``: a group's numbers, and changing them while it works."""

import json

import click

from smoothcluster.cli.common import STORE_RETRY_SECONDS, common, opened
from smoothcluster.cli.formatting import plain, shape
from smoothcluster.cluster import Cluster


@click.command()
@click.option("--runner", type=int, metavar="N", help="From now on, so many members are Runners.")
@click.option("--backup", type=int, metavar="N", help="From now on, so many are meant to stand by.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object, for scripts.")
@common
def spec(*, runner: int | None, backup: int | None, as_json: bool, url: str | None, group: str) -> None:
    """Show a group's numbers, or change them.

    A living group goes on: with more Runners, Backup Runners take the new seats; with fewer, some
    Runners stand by, and hand over what they have. Members that are started later must be given
    the new numbers, or none.
    """
    with opened(url) as backend:
        cluster = Cluster(backend, group, patience=STORE_RETRY_SECONDS)
        changed = runner is not None or backup is not None
        found = cluster.change_spec(runner=runner, backup=backup) if changed else cluster.spec()
    print(json.dumps({"group": group, "spec": found}) if as_json else f"group {plain(group)}: {shape(found)}")
