"""What the members of a test's group do with their tasks, and the log that they keep of it.

The log is the independent witness: one line for each start and each end, appended by the
handlers themselves with a single write, so that lines of many processes never mix and what was
written survives the process. Nothing of smoothcluster has a part in it.
"""

import asyncio
import ctypes
import json
import os
import re
import signal
import stat
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast
from urllib.parse import urldefrag, urljoin, urlsplit

from smoothcluster import Task, TaskContext
from smoothcluster.clock import SYSTEM_CLOCK

START, END, RAISED = "START", "END", "RAISED"

HOG = 300 * 1024 * 1024
"""Bytes that a task takes which is to be killed for it."""

LOG, FOLDER, MEMBER = "CLUSTER_LOG", "CLUSTER_FOLDER", "CLUSTER_MEMBER"
"""Variables of the environment, which children inherit: the log, the folder of gates, the member's own process."""


def be_member(log: str, folder: str) -> None:
    """What the handlers of this process, and of its children, log is this member's."""
    os.environ |= {LOG: log, FOLDER: folder, MEMBER: str(os.getpid())}


def by_name(name: str) -> Callable[..., Any]:
    """The handler called *name*; ``bound_`` before it makes it one that no child process can import."""
    found: dict[str, Callable[..., Any]] = {
        "act": act, "act_async": act_async, "crawl": crawl, "nothing": nothing,
    }  # fmt: skip
    if name == "act_here":
        return cast("Callable[..., Any]", import_module("cluster.only_here").act_here)
    handler = found[name.removeprefix("bound_")]
    return partial(handler) if name.startswith("bound_") else handler


def note(what: str, task: Task, context: TaskContext) -> None:
    """Log that something became of *task*, now."""
    line = [what, context.member, int(os.environ[MEMBER]), task.id, context.epoch, SYSTEM_CLOCK.monotonic()]
    os.write(_log(), json.dumps(line).encode() + b"\n")


@cache
def _log() -> int:
    return os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def _is_open(gate: str) -> bool:
    return Path(os.environ[FOLDER], gate).exists()


def act(task: Task, context: TaskContext) -> object:
    """Do what ``task.meta`` says, in this order; without it, return the task's id at once.

    ``hold``: wait until the gate of that name is open, whatever happens; ``nap``: seconds;
    ``spawn``: submit so many tasks, with ids of their own, and with the same orders if ``endless``;
    ``links``: submit tasks with these ids, whatever they are; ``fails``: raise in so many first
    attempts; ``raise``: raise it; ``returns``: an *object* that is no JSON, or so many bytes of text;
    ``dies``: end the process, by `die`.
    """
    orders = _orders(task)
    note(START, task, context)
    while (gate := orders.get("hold")) and not _is_open(gate):
        SYSTEM_CLOCK.sleep(0.02)
    SYSTEM_CLOCK.sleep(orders.get("nap", 0.0))
    if "dies" in orders:
        die(orders["dies"])
    return _finish(task, context, orders)


async def act_async(task: Task, context: TaskContext) -> object:
    """As `act`, without a thread."""
    orders = _orders(task)
    note(START, task, context)
    while (gate := orders.get("hold")) and not _is_open(gate):  # noqa: ASYNC110 - another process opens it
        await asyncio.sleep(0.02)
    await asyncio.sleep(orders.get("nap", 0.0))
    if "dies" in orders:
        die(orders["dies"])
    return _finish(task, context, orders)


def die(how: str) -> None:
    """End this process as a task does that kills: by SIGKILL, by leaving, by a crash; or eat, and wait to be killed.

    Or write *nonsense* to all sockets, and wait: in a child, whose member ends it for that.
    """
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(3)
    if how == "segfault":
        ctypes.string_at(0)
    while how == "nonsense":
        for number in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208  # numbers
            with suppress(OSError):
                if stat.S_ISSOCK(os.fstat(number).st_mode):
                    os.write(number, b"no message at all, whatever its length\n" * 1000)
        SYSTEM_CLOCK.sleep(0.1)
    hog = bytearray(HOG)
    hog[::4096] = b"x" * len(hog[::4096])
    while True:
        SYSTEM_CLOCK.sleep(0.1)


def _finish(task: Task, context: TaskContext, orders: dict[str, Any]) -> object:
    try:
        heirs = task.meta if orders.get("endless") else None
        context.submit(Task(id=f"{task.id}/{number}", meta=heirs) for number in range(orders.get("spawn", 0)))
        context.submit(Task(id=name) for name in orders.get("links", ()))
        if "raise" in orders or context.attempt <= orders.get("fails", 0):
            raise ValueError(orders.get("raise", f"attempt {context.attempt}"))
    except Exception:
        note(RAISED, task, context)
        raise
    note(END, task, context)
    returns = orders.get("returns", task.id)
    if returns == "object":
        return object()
    return "x" * returns if isinstance(returns, int) else returns


def crawl(task: Task, context: TaskContext) -> object:
    """Fetch a page and submit the pages of its host that it links to."""
    assert task.url is not None
    note(START, task, context)
    page = _fetch(task.url)
    links = _links(task.url, page or "")
    context.submit(Task(id=urlsplit(link).path, url=link) for link in links)
    note(END, task, context)
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
