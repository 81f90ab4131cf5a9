"""The process whose children are killed in the middle of a write, each at a later call. A plan comes by standard input.

Each child opens the sink and writes a part of its own. At its n-th call of a function in ``kill_points``, the child
kills itself by SIGKILL, *before* the call; so nothing is cleaned up. The first child that is not killed ends the run.
Prints the names of the calls, as a JSON array.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from itertools import count
from types import FrameType
from typing import Any

from smoothcluster.sinks import Part, Tail, open_sink
from smoothcluster.testing.sink_conformance.failing import victims_batch


def main() -> None:
    """Run the plan."""
    plan: dict[str, Any] = json.load(sys.stdin)
    _import_all(plan)
    killed: list[str] = []
    for number, (shard, tail) in zip(count(1), plan["tails"].items(), strict=False):
        part = Part(plan["job"], int(shard))
        status, name = _fork(lambda pipe: _write(plan, part, Tail.from_json(tail), number, pipe))  # noqa: B023 - runs here
        if status == 0:
            break
        if status != -signal.SIGKILL:
            sys.exit(f"the writer ended with status {status} at call {number}")
        killed.append(name)
    else:
        sys.exit(f"more calls than parts: {killed}")
    sys.stdout.write(json.dumps(killed))


def _fork(child: Callable[[int], object]) -> tuple[int, str]:
    """Run *child* in a child process, with a pipe; return the status, and the text from the pipe."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        child(write_end)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        text = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def _import_all(plan: dict[str, Any]) -> None:
    """Import the modules of the sink's libraries once, for all children. Opening a sink here would start threads."""

    def rehearse(pipe: int) -> None:
        open_sink(plan["url"], plan["options"]).has_mark("warm")
        with os.fdopen(pipe, "w") as file:
            file.write("\n".join(sys.modules))

    _, names = _fork(rehearse)
    for name in names.splitlines():
        with suppress(Exception):  # Some modules belong to a later moment.
            import_module(name)


def _write(plan: dict[str, Any], part: Part, tail: Tail, number: int, write_end: int) -> None:
    points, calls, writing = frozenset(plan["kill_points"]), count(1), threading.Event()

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        name = str(argument.__name__) if event == "c_call" else frame.f_code.co_name if event == "call" else ""
        if name in points and writing.is_set() and next(calls) == number:
            os.write(write_end, name.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(profile)  # For the threads of libraries.
    sys.setprofile(profile)
    sink = open_sink(plan["url"], plan["options"])
    sink.has_mark("warm")  # Connected, with all modules imported: so the calls are those of the write.
    writing.set()
    sink.write(part, victims_batch(), tail)
    writing.clear()


if __name__ == "__main__":
    main()
