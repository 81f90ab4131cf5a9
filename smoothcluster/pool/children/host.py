"""The host of a member's suspects: one child process that runs several suspects at once, kept warm for a takeover.

A child for each suspect would name the killer at once, but thirty-two fresh interpreters take seconds to start, and
all tasks that ran in the dead member wait meanwhile. So suspects share a host. If the host dies while it runs several
tasks, the death names none of them: each of them runs alone in a fresh child from then on.
"""

import itertools
import logging
import threading
from typing import Any, final

from smoothcluster.clock import Clock
from smoothcluster.pool.children.messages import NonsenseError
from smoothcluster.pool.children.process import LONGEST_START_SECONDS, STOP_CHECK_SECONDS, Child, texts
from smoothcluster.pool.run import Run, RunState
from smoothcluster.records.blame import CHILD_SHARED

log = logging.getLogger("smoothcluster")


@final
class _Guest:
    """A run in the host."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.begun = False
        self.added: list[str] = []
        self.over = threading.Event()


@final
class Host:
    """A ready *child* that was made to run several tasks at once. Any thread may call the methods."""

    def __init__(self, child: Child, clock: Clock) -> None:
        self.child = child
        self._clock = clock
        self._lock = threading.Lock()
        """Guards sending and the guests: a run is sent, or refused because the host has ended."""
        self._guests: dict[int, _Guest] = {}
        self._numbers = itertools.count(1)
        self._died_idle = self._given_up = False
        threading.Thread(target=self._read, name="smoothcluster-host", daemon=True).start()

    @property
    def usable(self) -> bool:
        """Whether the host takes further tasks."""
        return not self.child.spent and self.child.alive()

    @property
    def died_idle(self) -> bool:
        """Whether the host, which is not usable, died while it ran no task: a kill from outside."""
        return self._died_idle or not (self.child.spent or self._guests)

    def run(self, run: Run) -> None:
        """Run a task in the host beside others, and fill in the outcome or the death. Blocks until the end."""
        guest = _Guest(run)
        with self._lock:
            if self.child.spent:
                return
            number = next(self._numbers)
            self._guests[number] = guest
            self._send(self.child.order(run, number))
        until = self._clock.monotonic() + LONGEST_START_SECONDS
        while not guest.over.wait(STOP_CHECK_SECONDS):
            if run.context.stopping.is_set():
                self._stop()
            if not guest.begun and self._clock.monotonic() > until and not self._given_up:
                log.warning(
                    "child process %d has not taken a task in time, so the member ends the child", self.child.pid
                )
                self._given_up = True
                self.child.kill()

    def _send(self, message: dict[str, object]) -> None:
        """Send *message*; a host that does not read has ended, or is to end, and `_read` tells the guests."""
        try:
            self.child.send(message)
        except OSError:
            self.child.kill()

    def _stop(self) -> None:
        """Set the stop flag of all guests; the host takes no further task."""
        with self._lock:
            if not self.child.spent:
                self.child.spent = True
                self._send({"stop": True})

    def _read(self) -> None:
        """Take the messages of the child to the guests until the child ends."""
        death: str | None = None
        try:
            while not (self.child.spent and not self._guests):
                # A process that a task forked may keep the child's end of the connection open for any time.
                alive = self.child.alive()
                try:
                    message = self.child.reader.read()
                except TimeoutError:
                    if not alive:
                        break
                else:
                    if message is not None:
                        self._take(message)
        except (OSError, EOFError):
            pass
        except Exception as error:  # noqa: BLE001 - what a child sends may make no sense in any way
            death = self.child.misled(error, *[guest.run.task.id for guest in self._guests.values()])
        self._ended(death)

    def _take(self, message: dict[str, Any]) -> None:
        """Give *message* to its guest. A message of no guest shows that a task has meddled with the connection."""
        number = message.get("run")
        if not isinstance(number, int) or (guest := self._guests.get(number)) is None:
            raise NonsenseError("a message out of turn")
        if "begun" in message:
            guest.run.began = self._clock.monotonic()
            guest.begun = True
        elif "added" in message:
            guest.added += texts(message)
        else:
            self.child.fill_in(guest.run, message, guest.added)
            with self._lock:
                self._guests.pop(number, None)
            guest.over.set()

    def _ended(self, death: str | None) -> None:
        """End the child, if it is alive, and tell all guests: it died of *death*, or as its exit status says."""
        with self._lock:
            # First: as soon as the child is spent, `died_idle` depends on this alone.
            self._died_idle = not (self.child.spent or self._guests)
            self.child.spent = True
            guests, self._guests = list(self._guests.values()), {}
        begun = [guest.run for guest in guests if guest.begun]
        if not guests:
            self.child.end()
            return
        death = death or self.child.died()
        for run in begun:
            run.state, run.death = RunState.DIED, CHILD_SHARED if len(begun) > 1 or self._given_up else death
        for guest in guests:
            guest.over.set()
