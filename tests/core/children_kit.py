"""Handlers that child processes import, and what they are called with."""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.model import Task, TaskContext
from smoothcluster.pool import Run
from smoothcluster.pool.children.messages import send


def handle(task: Task, context: TaskContext) -> object:
    """Do what ``meta`` says."""
    orders = cast("dict[str, Any]", task.meta or {})
    return _ACTS[orders.get("act", "tell")](orders, context)


async def handle_async(task: Task, context: TaskContext) -> object:
    """Likewise; ``leave``: leave a coroutine behind that exits when the next task has begun."""
    for _, next_began in _left:
        next_began.set()
    orders = cast("dict[str, Any]", task.meta or {})
    if "leave" in orders:
        next_began = asyncio.Event()
        _left.append((asyncio.create_task(_exit_after(next_began)), next_began))
    await asyncio.sleep(600 if orders.get("act") == "hold" else 0.05)
    return handle(task, context)


_left: list[tuple[asyncio.Task[None], asyncio.Event]] = []


async def _exit_after(event: asyncio.Event) -> None:
    await event.wait()
    raise SystemExit(3)


class Handlers:
    """A place for one."""

    @staticmethod
    def handle(task: Task, context: TaskContext) -> object:
        """Say so."""
        return "static"

    def bound(self, task: Task, context: TaskContext) -> object:
        """Not to be found by its name."""


def _tell(orders: dict[str, Any], context: TaskContext) -> object:
    context.submit([Task(id="more")])
    return [context.member, context.job, context.shard, context.epoch, context.attempt, os.getpid() == os.getsid(0)]


def _raise(orders: dict[str, Any], context: TaskContext) -> object:
    raise ValueError("no")


def _kill(orders: dict[str, Any], context: TaskContext) -> object:
    os.kill(os.getpid(), orders["signal"])
    SYSTEM_CLOCK.sleep(0.2)
    return "still here"


def _exit(orders: dict[str, Any], context: TaskContext) -> object:
    os._exit(4)


def _crash(orders: dict[str, Any], context: TaskContext) -> object:
    return ctypes.string_at(0)


def _eat(orders: dict[str, Any], context: TaskContext) -> object:
    return len(bytearray(orders["bytes"]))


def _nap(orders: dict[str, Any], context: TaskContext) -> object:
    SYSTEM_CLOCK.sleep(orders["seconds"])
    return None


def _leave(orders: dict[str, Any], context: TaskContext) -> object:
    threading.Timer(orders["seconds"], os.kill, (os.getpid(), signal.SIGSEGV)).start()
    return None


def _show(orders: dict[str, Any], context: TaskContext) -> object:
    """Write down in which process this is, and wait until there is something at *gate*."""
    Path(orders["file"]).write_text(str(os.getpid()))
    while not Path(orders["gate"]).exists():
        SYSTEM_CLOCK.sleep(0.02)
    return None


def _fork(orders: dict[str, Any], context: TaskContext) -> object:
    """Leave a copy of this process behind, with all that it has open, and die."""
    if (copy := os.fork()) == 0:
        SYSTEM_CLOCK.sleep(orders["seconds"])
        os._exit(0)
    Path(orders["file"]).write_text(str(copy))
    os._exit(4)


def _copy(orders: dict[str, Any], context: TaskContext) -> object:
    """Return twice: here, and in a copy of this process."""
    os.fork()
    return None


def _write(orders: dict[str, Any], context: TaskContext) -> object:
    """Answer out of turn, on whatever is open."""
    for link in sorted(int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2):  # noqa: PTH208  # numbers
        with suppress(OSError), socket.socket(fileno=link) as found:
            send(found, {"no": "sense"})
            found.detach()
    return None


def _links() -> Iterator[socket.socket]:
    """All open sockets."""
    for number in sorted(int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2):  # noqa: PTH208  # numbers
        with suppress(OSError), socket.socket(fileno=number) as found:
            yield found
            found.detach()


def _shout(orders: dict[str, Any], context: TaskContext) -> object:
    """Write *text* to all open sockets, *times* times, as long as anybody reads; then return, or wait."""
    for link in _links():
        with suppress(OSError):
            for _ in range(orders.get("times", 1)):
                link.sendall(orders["text"].encode("latin-1"))
    return context.stopping.wait(orders.get("seconds", 0.0))


def _shut(orders: dict[str, Any], context: TaskContext) -> object:
    """End the writing side of all sockets, and go on."""
    for link in _links():
        link.shutdown(socket.SHUT_WR)
    return context.stopping.wait(30.0)


def _close(orders: dict[str, Any], context: TaskContext) -> object:
    """Close all descriptors, as a daemon does, and open connections in their place."""
    os.closerange(3, 4096)  # The connection may have any number, where many files are open.
    for _ in range(20):
        link = socket.socket(socket.AF_UNIX)
        link.connect(orders["path"])
        link.detach()
    return None


def _submit(orders: dict[str, Any], context: TaskContext) -> object:
    """Submit many large tasks."""
    context.submit(Task(id=str(number), body='"' * orders["size"]) for number in range(orders["count"]))
    return None


def _ring(orders: dict[str, Any], context: TaskContext) -> object:
    """Leave an alarm behind."""

    def ring(number: int, frame: object) -> None:
        raise TimeoutError("too late")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, orders["seconds"])
    return None


def _timer(orders: dict[str, Any], context: TaskContext) -> object:
    """Return the seconds to the next alarm."""
    return signal.getitimer(signal.ITIMER_REAL)[0]


def _terminate_copies(orders: dict[str, Any], context: TaskContext) -> object:
    """Fork again and again, and send SIGTERM to the copies at once; return how many have not died of it."""
    deaf = 0
    for _ in range(orders["count"]):
        if (copy := os.fork()) == 0:
            SYSTEM_CLOCK.sleep(orders["seconds"])
            os._exit(0)
        os.kill(copy, signal.SIGTERM)
        deaf += os.waitpid(copy, 0)[1] == 0
    return deaf


def _wait(orders: dict[str, Any], context: TaskContext) -> object:
    return context.stopping.wait(30.0)


def _start_program(orders: dict[str, Any], context: TaskContext) -> object:
    """Start a program that ends only by a signal, send SIGTERM, and return the exit status."""
    program = subprocess.Popen(["sleep", "600"])
    program.terminate()
    return program.wait()


def _use_pool(orders: dict[str, Any], context: TaskContext) -> object:
    """Let worker processes compute, and end them."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, 2, -3])


_ACTS = {
    "tell": _tell, "raise": _raise, "kill": _kill, "exit": _exit, "crash": _crash,
    "eat": _eat, "wait": _wait, "nap": _nap, "leave": _leave, "show": _show,
    "fork": _fork, "copy": _copy, "write": _write,
    "start program": _start_program, "use pool": _use_pool, "terminate copies": _terminate_copies,
    "shout": _shout, "shut": _shut, "close": _close, "submit": _submit, "ring": _ring, "timer": _timer,
}  # fmt: skip


def new_run(**orders: object) -> Run:
    """A run for a child."""
    run = Run(Task(id="t", meta=orders), TaskContext("m", "j", 5, 7, 2, threading.Event()))
    run.apart = True
    return run


SIGKILL, SIGTERM = int(signal.SIGKILL), int(signal.SIGTERM)
