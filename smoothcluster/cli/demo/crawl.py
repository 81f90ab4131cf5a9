"""What the demo's members run: fetch a page, follow its links, and write down that it was done.

The log is the demo's own witness: it is written beside the store, by the handlers themselves.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit
from urllib.request import urlopen

from smoothcluster.cli.demo.site import links
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.model import Task, TaskContext

LOG_VARIABLE = "SMOOTHCLUSTER_DEMO_LOG"

LEAST_PAGE_SECONDS = 0.1
"""Seconds that each page takes at least: a site on this machine would be crawled before one could look."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log."""

    what: str
    """start or end."""
    at: float
    """Monotonic seconds: one clock for all processes of a machine."""
    member: str
    pid: int
    shard: int
    page: str


def crawl(task: Task, context: TaskContext) -> int:
    """Fetch ``task.url`` and submit what it links to; return its size in bytes."""
    url = task.url or ""
    _note("start", url, context)
    with urlopen(url, timeout=10) as answer:  # noqa: S310  # the demo's own site
        body: bytes = answer.read()
    context.submit(Task(id=path, url=urljoin(url, path)) for path in links(body.decode()))
    SYSTEM_CLOCK.sleep(LEAST_PAGE_SECONDS)
    _note("end", url, context)
    return len(body)


def _note(what: str, url: str, context: TaskContext) -> None:
    line = Line(what, SYSTEM_CLOCK.monotonic(), context.member, os.getpid(), context.shard, urlsplit(url).path)
    log = os.open(os.environ[LOG_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(log, json.dumps(asdict(line)).encode() + b"\n")  # One write: lines never mix.
    finally:
        os.close(log)


def read(log: Path) -> Iterator[Line]:
    """The whole lines that there are so far."""
    whole = log.read_text().rpartition("\n")[0] if log.exists() else ""
    for line in whole.splitlines():
        yield Line(**json.loads(line))
