"""The command ``demo``: a crawl, a kill, a takeover, and a check that nothing was lost."""

import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from smoothcluster.cli.common import STORE_RETRY_SECONDS, Exit, Failure, opened, verbose
from smoothcluster.cli.demo import crawl
from smoothcluster.cli.demo.site import INDEX_PATH, Site, pages
from smoothcluster.cli.demo.stage import BACKUP_COUNT, RUNNER_COUNT, Stage, StuckError, private_folder, until
from smoothcluster.cli.output import json_text, print_data, print_message
from smoothcluster.cli.progress_bar import Bar, shown
from smoothcluster.cli.run import handover
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.cluster import Cluster
from smoothcluster.jobs.handle import JobHandle
from smoothcluster.jobs.progress import Progress
from smoothcluster.model import Outcome, Task
from smoothcluster.registry import masked

KILL_AFTER_SHARE_OF_PAGES = 0.4
"""The share of pages done when the demo kills a Runner."""


@dataclass(frozen=True, slots=True)
class Reckoning:
    """The result of a demo, from the handlers' log and the recorded outcomes."""

    pages: int
    done: int
    lost: int
    recorded_twice: int
    started_twice: int
    takeover_ms: float
    """From the kill to the first start of a task of the dead Runner's shards in another process."""
    evidence: str
    seconds: float

    @property
    def as_promised(self) -> bool:
        return (self.done, self.lost, self.recorded_twice) == (self.pages, 0, 0)


@click.command()
@click.option("--backend", "url", metavar="URL", help="Store of the demo; a temporary file if left out.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON object.")
@verbose
def demo(url: str | None, as_json: bool) -> None:  # noqa: FBT001  # an option
    """Crawl a small site, kill a Runner, and check the outcomes.

    Three Runners and two Backup Runners, a process each, crawl a site on this machine. Half-way the
    command kills a Runner (SIGKILL), and a Backup Runner takes over. In the end the command compares
    the recorded outcomes with a log written by the handlers themselves. The exit status is 1 if
    anything is lost or recorded twice.
    """
    with private_folder() as folder:
        try:
            found = _play(url or f"sqlite:///{folder}/demo.db", folder)
        except StuckError as error:
            raise Failure(str(error), Exit.FAILED) from None
    for line in [json_text(asdict(found))] if as_json else _table(found):
        print_data(line)
    if not found.as_promised:
        raise Failure("smoothcluster did not keep its promise: please report this", Exit.FAILED)


def _play(url: str, folder: Path) -> Reckoning:
    content, group = pages(), f"demo-{secrets.token_hex(4)}"
    with opened(url) as backend, Site(content) as site:
        cluster = Cluster(backend, group, patience=STORE_RETRY_SECONDS)
        cluster.absent()  # Fails before any process starts if the store is out of reach.
        print_message(
            f"a site of {len(content)} pages at {site.url}{INDEX_PATH}, and group {group} at {masked(backend.url)}"
        )
        with Stage(url, group, cluster, folder) as stage:
            until(stage.formed, f"{RUNNER_COUNT} Runners and {BACKUP_COUNT} Backup Runners")
            for member in stage.members():
                print_message(
                    f"  {member['name']}  {member['role']}, process {member['pid']}, {member['shards']} shards"
                )
            began = SYSTEM_CLOCK.monotonic()
            job = cluster.submit([Task(id=INDEX_PATH, url=site.url + INDEX_PATH)])
            with shown("crawling", len(content), "pages") as bar:
                victim, killed = _kill_one(stage, job, len(content), bar)
                event = until(lambda: _handover(cluster, victim["name"]), "the takeover")
                bar.print_line(f"  {event['member']} {handover(event)}")
                until(lambda: _seen(job, bar).finished, "the end of the job")
            seconds = SYSTEM_CLOCK.monotonic() - began
            return reckon(content, list(job.results()), list(crawl.read(stage.log)), event, killed, seconds)


def _seen(job: JobHandle, bar: Bar) -> Progress:
    progress = job.progress()
    bar.show(progress.done)
    return progress


def _kill_one(stage: Stage, job: JobHandle, pages: int, bar: Bar) -> tuple[Mapping[str, Any], float]:
    """Kill a Runner in the middle of its work; return the member and the time."""

    def busy() -> Mapping[str, Any] | None:
        if _seen(job, bar).done < KILL_AFTER_SHARE_OF_PAGES * pages:
            return None
        running = stage.running()
        return next((each for each in stage.members() if each["seat"] is not None and running.get(each["pid"])), None)

    victim = until(busy, "a busy Runner")
    killed = stage.kill(victim["pid"])
    bar.print_line(f"  {job.progress().done} of {pages} pages: SIGKILL to {victim['name']}, process {victim['pid']}")
    return victim, killed


def _handover(cluster: Cluster, former: str) -> Mapping[str, Any] | None:
    """Return the event of the takeover from *former*, with tasks of the shards that have started or are going to."""
    events: list[Mapping[str, Any]] = [event for event in cluster.events() if event["kind"] == "handover"]
    mine = [event for event in events if event["from"] == former != event["member"]]
    return next((event for event in mine if event["resumed_ms"] is not None or event["tasks_resumed"]), None)


def reckon(
    content: Mapping[str, str], outcomes: list[Outcome], log: list[crawl.Line], event: Mapping[str, Any],
    killed: float, seconds: float,
) -> Reckoning:  # fmt: skip
    """Compare the recorded outcomes with the handlers' log."""
    recorded = Counter(outcome.task_id for outcome in outcomes if outcome.state == "done")
    ended = {line.page for line in log if line.what == "end"}
    starts = Counter(line.page for line in log if line.what == "start")
    after = [
        line.at
        for line in log
        if line.what == "start" and line.at > killed and line.shard in event["shards"] and line.member != event["from"]
    ]
    return Reckoning(
        pages=len(content),
        done=len(recorded.keys() & ended & content.keys()),
        lost=len(content.keys() - (recorded.keys() & ended)),
        recorded_twice=sum(count > 1 for count in Counter(outcome.task_id for outcome in outcomes).values()),
        started_twice=sum(count > 1 for count in starts.values()),
        takeover_ms=round((min(after) - killed) * 1000, 1),
        evidence=str(event["evidence"]),
        seconds=round(seconds, 1),
    )


def _table(found: Reckoning) -> list[str]:
    rows = [
        ("pages done", f"{found.done} of {found.pages}, in {found.seconds} s"),
        ("lost", f"{found.lost}"),
        ("recorded twice", f"{found.recorded_twice}"),
        (
            "takeover",
            f"{found.takeover_ms} ms, from the kill to the first start of a task of the dead Runner elsewhere",
        ),
        ("evidence", found.evidence),
        ("started twice", f"{found.started_twice}: tasks that were running when the Runner was killed"),
    ]
    return [f"{name:<16}{value}" for name, value in rows]
