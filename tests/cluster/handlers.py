"""What the members of a test's group do with their tasks, and the log that they keep of it.

The log is the independent witness: one line for each start and each end, appended by the
handlers themselves with a single write, so that lines of many processes never mix and what was
written survives the process. Nothing of smoothcluster has a part in it.
"""

import asyncio
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast, final
from urllib.parse import urldefrag, urljoin, urlsplit

from smoothcluster import Task, TaskContext
from smoothcluster.clock import SYSTEM_CLOCK

START, END, RAISED = "START", "END", "RAISED"


@final
class Log:
    """An append-only file that many processes write to."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def add(self, what: str, task: Task, context: TaskContext) -> None:
        """Note that something became of *task*, now."""
        line = [what, context.member, os.getpid(), task.id, context.epoch, SYSTEM_CLOCK.monotonic()]
        os.write(self._file, json.dumps(line).encode() + b"\n")


@final
class Handlers:
    """Handlers that log what they do; *folder* holds the gates that a test opens."""

    def __init__(self, log: Log, folder: Path) -> None:
        self._log = log
        self._folder = folder

    def by_name(self, name: str) -> Callable[..., Any]:
        """The handler called *name*."""
        return {"act": self.act, "act_async": self.act_async, "crawl": self.crawl, "nothing": nothing}[name]

    def act(self, task: Task, context: TaskContext) -> object:
        """Do what ``task.meta`` says, in this order; without it, return the task's id at once.

        ``hold``: wait until the gate of that name is open, whatever happens; ``nap``: seconds;
        ``spawn``: submit so many tasks, with ids of their own; ``links``: submit tasks with these ids,
        whatever they are; ``fails``: raise in so many first attempts; ``raise``: raise it; ``returns``:
        an *object* that is no JSON, or so many bytes of text.
        """
        orders = _orders(task)
        self._log.add(START, task, context)
        while (gate := orders.get("hold")) and not (self._folder / gate).exists():
            SYSTEM_CLOCK.sleep(0.02)
        SYSTEM_CLOCK.sleep(orders.get("nap", 0.0))
        return self._finish(task, context, orders)

    async def act_async(self, task: Task, context: TaskContext) -> object:
        """As `act`, without a thread."""
        orders = _orders(task)
        self._log.add(START, task, context)
        while (gate := orders.get("hold")) and not (self._folder / gate).exists():  # noqa: ASYNC110 - another process opens it
            await asyncio.sleep(0.02)
        await asyncio.sleep(orders.get("nap", 0.0))
        return self._finish(task, context, orders)

    def _finish(self, task: Task, context: TaskContext, orders: dict[str, Any]) -> object:
        try:
            context.submit(Task(id=f"{task.id}/{number}") for number in range(orders.get("spawn", 0)))
            context.submit(Task(id=name) for name in orders.get("links", ()))
            if "raise" in orders or context.attempt <= orders.get("fails", 0):
                raise ValueError(orders.get("raise", f"attempt {context.attempt}"))
        except Exception:
            self._log.add(RAISED, task, context)
            raise
        self._log.add(END, task, context)
        returns = orders.get("returns", task.id)
        if returns == "object":
            return object()
        return "x" * returns if isinstance(returns, int) else returns

    def crawl(self, task: Task, context: TaskContext) -> object:
        """Fetch a page and submit the pages of its host that it links to."""
        assert task.url is not None
        self._log.add(START, task, context)
        page = _fetch(task.url)
        links = _links(task.url, page or "")
        context.submit(Task(id=urlsplit(link).path, url=link) for link in links)
        self._log.add(END, task, context)
        return {"found": page is not None, "links": len(links)}


def nothing(task: Task, context: TaskContext) -> object:
    """Not even a line in the log."""
    return None


def _orders(task: Task) -> dict[str, Any]:
    return cast("dict[str, Any]", task.meta or {})


def _fetch(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return str(answer.read().decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404:
                return None
            raise


def _links(base: str, page: str) -> set[str]:
    found = (urldefrag(urljoin(base, href)).url for href in re.findall(r"""<a\s[^>]*?\bhref=["']([^"']*)["']""", page))
    host = urlsplit(base).netloc
    return {link for link in found if urlsplit(link).netloc == host and urlsplit(link).path.endswith(".html")}
