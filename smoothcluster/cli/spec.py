"""``smoothcluster spec``: show or change a group's numbers while the group works."""

import click

from smoothcluster.cli.common import STORE_RETRY_SECONDS, common, opened
from smoothcluster.cli.formatting import shape
from smoothcluster.cli.output import json_text, print_data
from smoothcluster.cluster import Cluster


@click.command()
@click.option("--runner", type=int, metavar="N", help="The new number of Runners.")
@click.option("--backup", type=int, metavar="N", help="The new number of Backup Runners.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, for scripts.")
@common
def spec(*, runner: int | None, backup: int | None, as_json: bool, url: str | None, group: str) -> None:
    """Show or change a group's numbers.

    The group continues to work meanwhile. After an increase, Backup Runners take the new seats. After
    a decrease, some Runners hand over their shards and stand by. Start later members with the new
    numbers, or with none.
    """
    with opened(url) as backend:
        cluster = Cluster(backend, group, patience=STORE_RETRY_SECONDS)
        changed = runner is not None or backup is not None
        found = cluster.change_spec(runner=runner, backup=backup) if changed else cluster.spec()
    print_data(json_text({"group": group, "spec": found}) if as_json else f"group {group}: {shape(found)}")
