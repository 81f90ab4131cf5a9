"""``smoothcluster status``: a group as it is now."""

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from typing import Any

import click

from smoothcluster.cli.frame import PATIENCE, common, opened
from smoothcluster.cli.words import plain, ranges, table
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.cluster import Cluster

COLUMNS = ("NAME", "ROLE", "SEAT", "SHARDS", "HOST", "PID", "RUNNING")


PAUSE = 1.0
"""Seconds between two looks while watching."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object a line, for scripts.")
@click.option("--watch", "-w", is_flag=True, help="Again every second, until Ctrl-C.")
@common
def status(as_json: bool, watch: bool, url: str | None, group: str) -> None:  # noqa: FBT001  # options
    """Show the members, tasks and jobs of a group."""
    with opened(url) as backend, suppress(KeyboardInterrupt) if watch else nullcontext():
        cluster = Cluster(backend, group, patience=PATIENCE)
        while True:
            found = cluster.status()
            if watch and not as_json:
                click.clear()  # Nothing, where nobody looks.
            print(json.dumps(found) if as_json else "\n".join(report(found)), flush=True)
            if not watch:
                break
            SYSTEM_CLOCK.sleep(PAUSE)


def report(found: Mapping[str, Any]) -> Iterator[str]:
    """The lines that people read."""
    spec = found["spec"]
    yield f"group {plain(found['group'])}: {_shape(spec['runner'], spec['backup'])}, {spec['shards']} shards"
    yield ""
    yield from table(COLUMNS, [[member[column.lower()] for column in COLUMNS] for member in found["members"]])
    yield ""
    alone = [plain(member["name"]) for member in found["members"] if member["suspects"] == "alone"]
    if alone:
        yield f"no child process can run the handler of {', '.join(alone)}: suspects are run alone in the member"
    yield "tasks: " + ", ".join(f"{count} {state}" for state, count in found["tasks"].items())
    yield "jobs: " + (", ".join(f"{plain(job)} ({plain(state)})" for job, state in found["jobs"].items()) or "none")
    yield "shards that nobody owns: " + (ranges(found["unassigned"]) or "none")
    for key, what in found["garbage"].items():
        yield f"garbage at {plain(key)}: {plain(what)}"


def _shape(runner: int | None, backup: int | None) -> str:
    if runner is None:
        return "no member has joined yet"
    runners = f"{runner} Runner{'s' * (runner != 1)}"
    if backup is None:
        return f"all are Runners, {runners}"
    return f"{runners}, {backup} Backup Runner{'s' * (backup != 1)}"
