"""The demo's actors: five members as processes, and what is known of them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, final

from smoothcluster.cli.demo import crawl
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.cluster import Cluster

RUNNER_COUNT, BACKUP_COUNT, MEMBER_CONCURRENCY = 3, 2, 2

STUCK_AFTER_SECONDS = 60.0
"""Seconds that anything may take before the demo gives up."""

Seen = TypeVar("Seen")


class StuckError(Exception):
    """Something did not happen in time."""


def until(condition: Callable[[], Seen | None], what: str, pause: float = 0.02) -> Seen:
    """Look again and again until *condition* is true; raise StuckError if that takes too long."""
    end = SYSTEM_CLOCK.monotonic() + STUCK_AFTER_SECONDS
    while not (seen := condition()):
        if SYSTEM_CLOCK.monotonic() > end:
            raise StuckError(f"waited {STUCK_AFTER_SECONDS:.0f} s for {what}")
        SYSTEM_CLOCK.sleep(pause)
    return seen


@final
class Stage:
    """Three Runners and two Backup Runners of one group, as processes that end with it."""

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
        with self._errors.open("ab") as errors:
            for _ in range(RUNNER_COUNT + BACKUP_COUNT):
                # In a session of their own: Ctrl-C is for the demo, which ends them.
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
        """As they stand in the store."""
        return [] if self._cluster.absent() else list(self._cluster.status()["members"])

    def formed(self) -> bool:
        """Whether all have joined and all shards are shared out. Raise StuckError if one has ended instead."""
        for process in self._processes.values():
            if process.poll() is not None:
                raise StuckError(f"a member ended by itself:\n{self._errors.read_text(errors='replace')}")
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
        """SIGKILL; return when, by the clock of the log."""
        now = SYSTEM_CLOCK.monotonic()
        os.kill(pid, signal.SIGKILL)
        return now

    def running(self) -> dict[int, set[str]]:
        """For each process, the pages that it has begun and not ended, by the log."""
        found: dict[int, set[str]] = {}
        for line in crawl.read(self.log):
            mine = found.setdefault(line.pid, set())
            (mine.add if line.what == "start" else mine.discard)(line.page)
        return found
