"""A whole group of real processes, and what a test does to them and waits for."""

import json
import os
import random
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, final

from cluster.audit import Line, LogReader, audit
from cluster.handlers import END, RAISED, START
from cluster.nursery import Born
from processes import pause

from smoothcluster import Cluster, JobHandle, Outcome, Task, connect
from smoothcluster.backend import Delete
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import BackendError
from smoothcluster.testing import eventually

PATIENCE = 60.0
"""Seconds that anything may take: on a busy machine everything does."""

Seen = TypeVar("Seen")

_TESTS = Path(__file__).parents[1]


@final
class Member:
    """A process that is a member, or is about to become one. *can_write*: whether others can write to the store."""

    def __init__(self, options: dict[str, Any], files: Path, can_write: Callable[[], bool]) -> None:
        self._can_write = can_write
        self._out, self._err = files.with_suffix(".out"), files.with_suffix(".err")
        self._process = Born(options, files.parent, self._out, self._err)
        self.pid = self._process.pid
        self.paused = False

    def __repr__(self) -> str:
        return f"<member {self.pid}>"

    @property
    def constructed(self) -> bool:
        """Whether its constructor has returned. Raise AssertionError if it never will."""
        if self._out.read_text().endswith("\n"):
            return True
        assert self.alive, f"{self} ended with {self._process.returncode}:\n{self.errors}"
        return False

    @property
    def name(self) -> str:
        """As it was when the constructor returned."""
        return str(json.loads(self._out.read_text())["name"])

    @property
    def role(self) -> str:
        """Likewise."""
        return str(json.loads(self._out.read_text())["role"])

    @property
    def errors(self) -> str:
        """What it has written to its standard error."""
        return self._err.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def memory(self, what: str) -> int:
        """Bytes, by the kernel: *what* is VmRSS for now, VmHWM for the most there ever was."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) * 1024
        raise LookupError(what)

    def kill(self) -> float:
        """SIGKILL; return when, by the clock of the log."""
        now = SYSTEM_CLOCK.monotonic()
        self._process.kill()
        return now

    def kill_group(self) -> None:
        """SIGKILL to all processes of its process group."""
        os.killpg(self.pid, signal.SIGKILL)

    def children(self) -> list[int]:
        """Its child processes, by the kernel."""
        try:
            return [int(pid) for each in Path(f"/proc/{self.pid}/task").iterdir() for pid in _words(each / "children")]
        except OSError:  # It ended meanwhile.
            return []

    def pause(self) -> float:
        """SIGSTOP; return when. Not in the middle of a write that all others would have to wait for.

        On sqlite one such moment in a hundred is in the middle of a write. What that leads to has tests of its
        own, in which it is no matter of luck.
        """
        self.paused = True
        until = SYSTEM_CLOCK.monotonic() + PATIENCE
        while True:
            pause(self.pid)
            now = SYSTEM_CLOCK.monotonic()
            if self._can_write():
                return now
            assert now < until, f"nobody could write, whenever {self} was paused"
            self._process.send_signal(signal.SIGCONT)

    def resume(self) -> None:
        """SIGCONT."""
        self.paused = False
        self._process.send_signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> float:
        """Send a signal; return when."""
        self._process.send_signal(number)
        return SYSTEM_CLOCK.monotonic()

    def status(self, within: float = PATIENCE) -> int:
        """Wait for the end of the process: its exit status, or minus the signal it died of."""
        return self._process.wait(within)

    def end(self) -> None:
        """Kill it if need be, and leave no zombie."""
        self._process.kill()
        self._process.wait()


@final
class Group:
    """A group in a store. *options* are those of `ClusterCrawler` and name the handler; each member may have others."""

    def __init__(self, url: str, folder: Path, **options: Any) -> None:
        self.name = f"test-{secrets.token_hex(6)}"
        self.members: list[Member] = []
        self.backend = connect(url).for_group(self.name)
        self.cluster = Cluster(self.backend, self.name)
        self._folder = folder
        log = folder / "log"
        self._log = LogReader(log)
        self._options: dict[str, Any] = {"runner": 3, "backup": 2, "handler": "act"} | options
        self._options |= {"url": url, "group": self.name, "folder": str(folder), "log": str(log)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for member in self.members:
            member.end()
        self.backend.close()
        for member in self.members:
            sys.stdout.write(f"--- {member}\n{member.errors[-8000:]}\n")  # pytest shows it if the test failed.

    # Members

    def spawn(self, **options: Any) -> Member:
        """Start a process and do not wait for it."""
        files = self._folder / f"member-{len(self.members)}"
        member = Member(self._options | options, files, self.can_write)
        self.members.append(member)
        return member

    def start(self, count: int = 1, **options: Any) -> list[Member]:
        """Start members, all at once, and wait until they are constructed."""
        started = [self.spawn(**options) for _ in range(count)]
        self.eventually(lambda: all(member.constructed for member in started))
        return started

    def start_one(self, **options: Any) -> Member:
        """Start a member and wait until it is constructed."""
        return self.start(1, **options)[0]

    @property
    def living(self) -> list[Member]:
        """The members whose processes run."""
        return [member for member in self.members if member.alive and not member.paused]

    @property
    def dead(self) -> int:
        """How many members have died."""
        return sum(not member.alive for member in self.members)

    def can_write(self) -> bool:
        """Whether the store answers somebody who wants to change it."""
        try:
            self.backend.commit([], [Delete(f"{self.name}-never")])  # Refused, and that is an answer.
        except BackendError:
            return False
        return True

    def status(self) -> dict[str, Any]:
        """As `Cluster.status`."""
        return self.cluster.status()

    def of_role(self, role: str) -> list[Member]:
        """The living members that the store says are of this role, in order of joining."""
        by_pid = {member.pid: member for member in self.living}
        pids = [each["pid"] for each in self.status()["members"] if each["role"] == role]
        return [by_pid[pid] for pid in pids if pid in by_pid]

    def runners(self) -> list[Member]:
        """Who holds the seats."""
        return self.of_role("runner")

    def backups(self) -> list[Member]:
        """Who stands by, first candidate first."""
        return self.of_role("backup-runner")

    def shards(self) -> dict[int, int]:
        """How many shards each member owns, by the pid of its process."""
        return {each["pid"]: each["shards"] for each in self.status()["members"]}

    def change_spec(self, **numbers: int) -> None:
        """Change the living group's numbers; those that are started from now on are given the new ones."""
        self.cluster.change_spec(**numbers)
        self._options |= numbers

    # Tasks

    def submit(self, count: int, prefix: str = "task", job: str | None = None, **orders: object) -> JobHandle:
        """Submit tasks *prefix*-0 and so on, all with the same orders."""
        return self.cluster.submit([Task(id=name, meta=orders) for name in named(count, prefix)], job)

    def open(self, gate: str) -> None:
        """Let go of the tasks that are held at *gate*."""
        (self._folder / gate).touch()

    def log(self) -> list[Line]:
        """What the handlers have logged so far."""
        return self._log.lines()

    def ended(self) -> int:
        """How many runs the log says have ended."""
        return sum(line.what == END for line in self.log())

    def progressed(self, count: int) -> None:
        """Wait until more than *count* runs have ended."""
        self.eventually(lambda: self.ended() > count)

    def running(self, member: Member) -> set[str]:
        """The tasks that *member* has started and not ended, by the log."""
        mine = [line for line in self.log() if line.pid == member.pid]
        over = {(line.task, line.epoch) for line in mine if line.what in (END, RAISED)}
        return {line.task for line in mine if line.what == START and (line.task, line.epoch) not in over}

    def has_run(self, member: Member) -> int:
        """How many tasks *member* has had running at once, at most, by the log."""
        running = most = 0
        for line in self.log():
            if line.pid == member.pid:
                running += 1 if line.what == START else -1
                most = max(most, running)
        return most

    def starts(self, tasks: Iterable[str], since: float, but: Member) -> dict[str, float]:
        """When each of *tasks* was first started after *since*, by others than *but*."""
        wanted, found = set(tasks), dict[str, float]()
        for line in self.log():
            if line.what == START and line.at > since and line.pid != but.pid and line.task in wanted:
                found.setdefault(line.task, line.at)
        return found

    def all_started(self, tasks: Iterable[str], since: float, but: Member) -> float:
        """Wait until others than *but* have started all of *tasks*; seconds from *since* to the first."""
        wanted = set(tasks)
        self.eventually(lambda: self.starts(wanted, since, but).keys() == wanted)
        return min(self.starts(wanted, since, but).values()) - since

    # Waiting

    def eventually(self, condition: Callable[[], Seen], within: float = PATIENCE) -> Seen:
        """Wait for *condition*; if it never comes, raise AssertionError with the group's state."""
        try:
            return eventually(condition, within)
        except AssertionError as error:
            error.add_note(self._state())
            raise

    def busy(self, *members: Member, tasks: int = 1) -> None:
        """Wait until each of *members* has so many tasks running, or has had: not all are held until we look."""
        self.eventually(lambda: all(self.has_run(member) >= tasks for member in members))

    def all_running(self, count: int) -> None:
        """Wait until the living members have *count* tasks running between them."""
        self.eventually(lambda: sum(len(self.running(member)) for member in self.living) >= count)

    def converged(self) -> None:
        """Wait until the store shows exactly the living members, all seats filled and all shards fairly divided."""
        self.eventually(self._has_converged)

    def _has_converged(self) -> bool:
        status, living = self.status(), {member.pid for member in self.living}
        seated = [each for each in status["members"] if each["role"] == "runner"]
        others = [each for each in status["members"] if each["role"] != "runner"]
        owned = [each["shards"] for each in seated]
        return (
            {each["pid"] for each in status["members"] if each["running"]} == living
            and len(status["members"]) == len(living)
            and len(seated) == min(self._options["runner"], len(living))
            and not status["unassigned"]
            and not any(each["shards"] for each in others)
            and max(owned, default=0) - min(owned, default=0) <= 1
        )

    def finish(
        self, job: JobHandle, wanted: Iterable[str], within: float = 2 * PATIENCE, *, counted: bool = True
    ) -> list[Outcome]:
        """Wait until *job* is finished, and hold what was recorded against the log, and starts too if *counted*."""
        try:
            progress = job.wait(within)
        except TimeoutError as error:
            error.add_note(self._state())
            raise
        outcomes, names = list(job.results()), set(wanted)
        assert audit(self.log(), outcomes, names, counted=counted) == []
        assert (progress.total, progress.pending) == (len(names), 0)
        return outcomes

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind, oldest first."""
        return [dict(event) for event in self.cluster.events() if event["kind"] == kind]

    def handovers(self, former: str) -> list[dict[str, Any]]:
        """The handovers, once there are any, of shards that were *former*'s and that it did not give away itself."""
        return self.eventually(
            lambda: [e for e in self.events("handover") if e["from"] == former != e["member"] and e["shards"]]
        )

    def _state(self) -> str:
        try:
            status = json.dumps(self.status())
            return "\n".join([status, *(json.dumps(event) for event in self.cluster.events()[-20:])])
        except Exception as error:  # noqa: BLE001 - it explains another error, and must not hide it
            return f"the group's state cannot be read: {error!r}"


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


NewGroup = Callable[..., Group]
"""What the fixture `new_group` is: call it with options of `Group`."""


@contextmanager
def meanwhile(act: Iterator[object], pause: float) -> Generator[None]:
    """Take a step of *act* every now and then, in a thread."""
    over = threading.Event()

    def go() -> None:
        for _ in act:
            if over.wait(pause * 2 * random.random()):
                return

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def child_environment() -> dict[str, str]:
    """This process's environment, in which helpers beside the tests can be imported, too."""
    path = os.pathsep.join(filter(None, [str(_TESTS), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": path}


def named(count: int, prefix: str = "task") -> list[str]:
    """The ids that `Group.submit` gives."""
    return [f"{prefix}-{number}" for number in range(count)]


def names(members: Sequence[Member]) -> set[str]:
    """What *members* are called."""
    return {member.name for member in members}
