"""One member of a group as a process of its own, which `cluster.nursery` forks.

Writes a line of JSON with its name and role once it is constructed, and ends with status 0 once it
has left.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.handlers import be_member, by_name

from smoothcluster import ClusterCrawler, Isolation, Pacing, Retries, connect
from smoothcluster.backend import Change, Committed, Condition, CoordinationBackend, Refused
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.failure_detector import Listener, sockets
from smoothcluster.work import suspects


def mortal(backend: CoordinationBackend, part: str) -> CoordinationBackend:
    """End this process by SIGKILL as soon as *backend* has committed a change of a key that has *part* in it."""
    commit = backend.commit

    def once(conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        answer = commit(conditions, changes)
        if isinstance(answer, Committed) and any(part in change.key for change in changes):
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    vars(backend)["commit"] = once
    return backend


def set_clocks(ahead: float, *, wall_only: bool) -> None:
    """Set the clocks of this process *ahead* by so many seconds, as on another machine."""
    monotonic, wall = SYSTEM_CLOCK.monotonic, SYSTEM_CLOCK.wall
    vars(SYSTEM_CLOCK)["wall"] = lambda: wall() + ahead
    if not wall_only:
        vars(SYSTEM_CLOCK)["monotonic"] = lambda: monotonic() + ahead


def stand_behind(door: Path) -> None:
    """Announce the port in the name of the file *door*, and write the listener's own port into the file."""
    address = vars(Listener)["address"].fget

    def announced(listener: Listener) -> tuple[str, int]:
        door.write_text(str(address(listener)[1]))
        return "127.0.0.1", int(door.name.removeprefix("door-"))

    setattr(Listener, "address", property(announced))  # noqa: B010 - it is no method


def main(options: dict[str, Any]) -> None:
    """Be a member until told to leave."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("smoothcluster.pool.run").setLevel(logging.WARNING)  # Handlers that raise are meant to.
    be_member(options.pop("log"), options.pop("folder"))
    handler = by_name(options.pop("handler"))
    for name, kind in {"pacing": Pacing, "retries": Retries, "isolation": Isolation}.items():
        if options.get(name) is not None:
            options[name] = kind(**options[name])
    # So that a test can be sure to be faster than the second that a child's death waits to count.
    suspects.CONFIRM_DEATH_SECONDS *= options.pop("patience", 1)
    if "door" in options:
        stand_behind(Path(options.pop("door")))
    if "keepalive" in options:
        seconds = options.pop("keepalive")
        sockets._KEEPALIVE_OPTIONS[:] = [(option, seconds) for option, _ in sockets._KEEPALIVE_OPTIONS]  # pyright: ignore[reportPrivateUsage]
    set_clocks(options.pop("ahead", 0.0), wall_only=options.pop("wall_only", True))
    backend = connect(options.pop("url"))
    if "dies_of" in options:
        backend = mortal(backend.for_group(options["group"]), options.pop("dies_of"))
    crawler = ClusterCrawler(backend=backend, handler=handler, **options)
    sys.stdout.write(json.dumps({"name": crawler.name, "role": crawler.role}) + "\n")
    sys.stdout.flush()
    crawler.run()
