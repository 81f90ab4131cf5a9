"""The five members of the demo, a process each, and their state."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar, final

from smoothcluster.cli.demo import crawl
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.cluster import Cluster

RUNNER_COUNT, BACKUP_COUNT, MEMBER_CONCURRENCY = 3, 2, 2

STUCK_AFTER_SECONDS = 60.0
"""Seconds after which the demo gives up waiting."""

Seen = TypeVar("Seen")


class StuckError(Exception):
    """The demo waited in vain for a condition."""


def until(condition: Callable[[], Seen | None], what: str, pause: float = 0.02) -> Seen:
    """Poll until *condition* is true, and return its value; raise StuckError after too long."""
    end = SYSTEM_CLOCK.monotonic() + STUCK_AFTER_SECONDS
    while not (seen := condition()):
        if SYSTEM_CLOCK.monotonic() > end:
            raise StuckError(f"the demo waited {STUCK_AFTER_SECONDS:.0f} s in vain for {what}")
        SYSTEM_CLOCK.sleep(pause)
    return seen


@contextmanager
def private_folder() -> Generator[Path]:
    """Make a temporary folder for the files of a demo. The user can use the folder, whatever the umask."""
    with tempfile.TemporaryDirectory(prefix="smoothcluster-demo-") as name:
        folder = Path(name)
        folder.chmod(0o700)
        yield folder


def open_private(path: Path) -> BinaryIO:
    """Open the file at *path* for appending. A new file can be read and written by the user alone.

    A log holds the pages that members fetch, and the errors of members.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.fchmod(descriptor, 0o600)  # The umask may forbid the user to read and write.
    return os.fdopen(descriptor, "ab")


@final
class Stage:
    """Three Runners and two Backup Runners of a group, as processes. They end with the ``with`` block."""

    def __init__(self, url: str, group: str, cluster: Cluster, folder: Path) -> None:
        self.log, self._errors = folder / "log", folder / "errors"
        self._url, self._group, self._cluster = url, group, cluster
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        options = {
            "runner": RUNNER_COUNT,
            "backup": BACKUP_COUNT,
            "concurrency": MEMBER_CONCURRENCY,
            "group": self._group,
        }
        command = [sys.executable, "-m", "smoothcluster", "run", "smoothcluster.cli.demo.crawl:crawl"]
        command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        environment = os.environ | {crawl.LOG_VARIABLE: str(self.log), "SMOOTHCLUSTER_BACKEND": self._url}
        with open_private(self.log), open_private(self._errors) as errors:
            for _ in range(RUNNER_COUNT + BACKUP_COUNT):
                # A session of its own: Ctrl-C reaches the demo alone, and the demo ends the members.
                process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
                    start_new_session=True,
                )  # fmt: skip
                self._processes[process.pid] = process
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()

    def members(self) -> list[dict[str, Any]]:
        """Return the members in the store, as `smoothcluster status` shows members."""
        return [] if self._cluster.absent() else list(self._cluster.status()["members"])

    def formed(self) -> bool:
        """Whether all members have joined, with equal shares of shards. Raise StuckError if a process has ended."""
        for process in self._processes.values():
            if process.poll() is not None:
                raise StuckError(f"a member ended by itself; its output:\n{self._errors.read_text(errors='replace')}")
        members = self.members()
        seated = [member["shards"] for member in members if member["seat"] is not None]
        return (
            len(members) == RUNNER_COUNT + BACKUP_COUNT
            and all(member["running"] for member in members)
            and len(seated) == RUNNER_COUNT
            and max(seated) - min(seated) <= 1
            and sum(seated) > 0
        )

    def kill(self, pid: int) -> float:
        """Send SIGKILL to process *pid*; return the time by the clock of the log."""
        now = SYSTEM_CLOCK.monotonic()
        os.kill(pid, signal.SIGKILL)
        return now

    def running(self) -> dict[int, set[str]]:
        """Return the pages that each process has started and not ended, by the log."""
        found: dict[int, set[str]] = {}
        for line in crawl.read(self.log):
            mine = found.setdefault(line.pid, set())
            (mine.add if line.what == "start" else mine.discard)(line.page)
        return found
