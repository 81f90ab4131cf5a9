"""A member's child processes: brought up one by one as they are needed, and kept warm.

A task that is to run alone gets a fresh one, beside a bystander that runs nothing: whoever kills
children at random kills bystanders, too.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import final

from smoothcluster.clock import SYSTEM_CLOCK, Clock
from smoothcluster.pool.children.handler_ref import Origin
from smoothcluster.pool.children.process import LONGEST_START, Child, UnableError
from smoothcluster.pool.children.protocol import Apart
from smoothcluster.pool.children.spawner import Spawner
from smoothcluster.pool.protocol import always
from smoothcluster.pool.run import Run, RunState

log = logging.getLogger("smoothcluster")

RAMP = 0.1
"""Seconds that all children must have been busy for before as many again are brought up for suspects."""

TRIES = 3
"""Children in a row that die while they get ready, before it is believed that they always will."""

DIE = "child processes die while they get ready"


@final
class Children(Apart):
    """At most *most* at once, besides bystanders and those that run a task alone.

    Args:
        origin: where they find the handler; None if they cannot.
        most: how many run tasks at once.
        every: whether all tasks run in children.
        timeout: seconds that a task may take.
        memory: bytes that it may use.
        spawn: makes a child process.
    """

    def __init__(
        self,
        origin: Origin | None,
        most: int,
        *,
        every: bool = False,
        timeout: float | None = None,
        memory: int | None = None,
        clock: Clock = SYSTEM_CLOCK,
        spawn: Callable[..., Child] = Child,
    ) -> None:
        self.every = every
        self.wake: Callable[[], None] = lambda: None
        """Called when a child has come up, or is known never to."""
        self.can_start: Callable[[Run], bool] = always
        """Asked once more when a child was found, which may have taken its time."""
        self._origin, self._most, self._timeout, self._memory = origin, most, timeout, memory
        self._clock, self._spawn = clock, spawn
        self._able: bool | None = None if origin is not None else False
        self._change = threading.Condition()
        self._idle: list[Child] = []
        self._all: set[Child] = set()
        """Every child that lives or has not been found dead."""
        self._working = 0
        """Idle, busy and coming up, alone ones left out."""
        self._coming = 0
        self._failures = 0
        """Children in a row that did not get ready, and had only themselves to blame."""
        self._failing_since: float | None = None
        self._bystander: Child | None = None
        self._spare: Child | None = None
        """One that is to run a task alone."""
        self._disturbed_at = self._grown_at = -1e9
        self._closed = False
        self._spawner = Spawner()

    @property
    def able(self) -> bool | None:
        return self._able

    def ready(self, waiting: int) -> int:
        with self._change:
            now = self._clock.monotonic()
            if self._able is False or self._closed:
                return 0
            if self.every:
                return max(1, self._most // 2)  # These run alone, beside the others.
            up = self._working - self._coming
            lacking = up == 0 or (not self._idle and now >= self._grown_at + RAMP)
            if not self._coming and lacking:
                wanted = min(self._most, waiting + up - len(self._idle))
                for _ in range(min(max(1, up), wanted - self._working)):
                    self._bring_up()
            return up

    def disturbed(self, since: float) -> bool:
        with self._change:
            quiet = [*self._idle, *([self._bystander] if self._bystander is not None else [])]
            if not all(child.alive() for child in quiet):
                self._disturbed_at = self._clock.monotonic()
            self._idle = [child for child in self._idle if child.alive() or self._forget(child)]
            if self._bystander is not None and not self._bystander.alive():
                self._all.discard(self._bystander)
                self._bystander.end()
                self._bystander = None
            return self._disturbed_at >= since

    def run(self, run: Run) -> None:
        child = self._alone() if run.alone else self._lease()
        if child is None:
            return
        if self.can_start(run):
            child.run(run, self._timeout)
        if run.state is RunState.DIED and self._spare is None:
            self._spare = self._spawned()  # It gets ready while that death is waited to count.
        if run.alone:
            child.end()
            with self._change:
                self._all.discard(child)
        else:
            self._give_back(child)

    def check(self) -> str | None:
        """Why no child can import the handler, though it has a name to be found by; None if one can.

        The first time, and after it has failed, one is brought up to see. Where all tasks run in
        children it is kept.
        """
        if self._origin is None or self._able:
            return None
        child, why = self._tried()
        if child is None:
            return why
        with self._change:
            if self.every:
                self._working += 1
                self._idle.append(child)
                return None
            self._all.discard(child)
        child.end()
        return None

    def close(self) -> None:
        """End all children, whatever they are at."""
        with self._change:
            self._closed = True
            children, self._all = list(self._all), set()
            self._change.notify_all()
        self._spawner.close()
        for child in children:
            child.end()

    # All of this holds the lock

    def _forget(self, child: Child) -> bool:
        child.end()
        self._all.discard(child)
        self._working -= 1
        return False

    def _bring_up(self) -> None:
        """Have one more child, without waiting for it."""
        self._working += 1
        self._coming += 1
        threading.Thread(target=self._grow, name="smoothcluster-child", daemon=True).start()

    def _failed(self, child: Child | None, why: str) -> None:
        """One has not got ready. Whoever kills children must not make us believe that none ever will: not so soon."""
        now = self._clock.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        if child is None or not child.killed or now - self._failing_since > LONGEST_START:
            self._failures += TRIES if why != DIE else 1
        if self._failures >= TRIES and not self.every and self._able is not False and not self._closed:
            self._able = False
            log.warning("no child process can run the handler (%s): suspects are run alone in this process", why)

    # And none of this does

    def _lease(self) -> Child | None:
        with self._change:
            while not self._closed and self._able is not False:
                while self._idle:
                    child = self._idle.pop()
                    if child.alive():
                        return child
                    self._disturbed_at = self._clock.monotonic()
                    self._forget(child)
                if self._working < self._most and not (self._coming and not self.every):
                    self._bring_up()
                self._change.wait(1.0)
            return None

    def _give_back(self, child: Child) -> None:
        if child.spent or self._closed:
            child.end()
        with self._change:
            if child.spent:
                self._forget(child)
            else:
                self._idle.append(child)
            self._change.notify()

    def _grow(self) -> None:
        """Bring up a child for all, and tell."""
        child = None
        with suppress(UnableError):
            child = self._made()
        with self._change:
            self._coming -= 1
            if child is not None:
                self._grown_at = self._clock.monotonic()
                self._idle.append(child)
            else:
                self._working -= 1
            self._change.notify_all()
        if child is None:
            self._clock.sleep(RAMP)
        self.wake()

    def _alone(self) -> Child | None:
        """A fresh child, and a bystander beside it, which is there to be killed and need not get ready."""
        self.disturbed(0.0)  # What has happened before says nothing of what will.
        if self._bystander is None:
            self._bystander = self._spawned()
        try:
            return self._made() if self._bystander is not None else None
        except UnableError:
            return None

    def _tried(self) -> tuple[Child | None, str]:
        """A child, if one gets ready at last; if not, why."""
        for _ in range(TRIES):  # One may have been killed by somebody.
            try:
                child = self._made(patient=not self.every)
            except UnableError as error:
                return None, str(error)
            if child is not None:
                return child, ""
        return None, DIE

    def _made(self, *, patient: bool = False) -> Child | None:
        """A child that is new and ready; None if it died before. Raise UnableError."""
        with self._change:
            child, self._spare = self._spare, None
        child = child or self._spawned(patient=patient)
        error: UnableError | None = None
        try:
            ready = child is not None and child.greet()
        except UnableError as unable:
            ready, error = False, unable
        with self._change:
            if ready:
                self._able, self._failures, self._failing_since = True, 0, None
                return child
            self._failed(child, DIE if error is None else str(error))
            self._all -= {child}
        if error is not None:
            raise error
        return None

    def _spawned(self, *, patient: bool = False) -> Child | None:
        """A new child; None if there can be none now."""
        assert self._origin is not None
        child = self._spawner.spawned(partial(self._spawn, self._origin, self._memory, self._clock, patient=patient))
        if child is not None:
            with self._change:
                self._all.add(child)
                closed = self._closed
            if closed:
                child.end()
        return child
