"""The handler of the demo: fetch a page, submit its links as tasks, and write start and end to a log.

The handlers write the log to a file beside the store, so the demo can check the store's outcomes against the log.
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
"""The least seconds for a page. Otherwise the crawl would end before a person could watch."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log."""

    what: str
    """``start`` or ``end``."""
    at: float
    """Monotonic seconds. All processes of a machine share this clock."""
    member: str
    pid: int
    shard: int
    page: str


def crawl(task: Task, context: TaskContext) -> int:
    """Fetch ``task.url`` and submit the links as tasks; return the size of the page in bytes."""
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
    log = os.open(os.environ[LOG_VARIABLE], os.O_WRONLY | os.O_APPEND)  # `Stage` has made the file.
    try:
        os.write(
            log, json.dumps(asdict(line)).encode() + b"\n"
        )  # A single write, so that lines of several processes never mix.
    finally:
        os.close(log)


def read(log: Path) -> Iterator[Line]:
    """Yield the complete lines written so far."""
    whole = log.read_text().rpartition("\n")[0] if log.exists() else ""
    for line in whole.splitlines():
        yield Line(**json.loads(line))
