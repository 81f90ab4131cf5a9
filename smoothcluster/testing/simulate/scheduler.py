"""Virtual time in one thread: every actor runs until the actor waits, and a seed decides all delays.

An actor is real code in a greenlet. An actor gives way only when waiting: for a signal of the actor's clock, or for
the store. Events are kept by virtual time, so a run is the same for the same seed.
"""

import heapq
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from greenlet import getcurrent, greenlet

from smoothcluster.clock import Clock, Signal


class Killed(BaseException):
    """Thrown into the code of a killed process. Nothing may catch this exception."""


class Process:
    """The actors of one member or client, which run, pause and die together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.paused = False
        self.actors: list[Actor] = []
        self.held_up: list[Callable[[], None]] = []
        """The events held back while the process was paused."""


class Actor:
    """One thread of a process."""

    def __init__(self, scheduler: "Scheduler", process: Process, body: Callable[[], None]) -> None:
        self.process = process
        self.turn = 0
        """Counts waits: a late wake-up for an earlier wait must not end a later wait."""
        self.greenlet: Any = greenlet(lambda: self._run(body), parent=scheduler.hub)

    def _run(self, body: Callable[[], None]) -> None:
        with suppress(Killed):
            body()


class Scheduler:
    """The hub: runs the next event."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.hub: Any = getcurrent()
        self.current: Actor | None = None
        self.failure: BaseException | None = None
        self._events: list[tuple[float, int, Process | None, Callable[[], None]]] = []
        self._count = 0

    def at(self, delay: float, act: Callable[[], None], process: Process | None = None) -> None:
        """Do *act* after *delay*; with a *process*, only while the process runs."""
        self._count += 1
        heapq.heappush(self._events, (self.now + max(0.0, delay), self._count, process, act))

    def spawn(self, process: Process, body: Callable[[], None]) -> None:
        actor = Actor(self, process, body)
        process.actors.append(actor)
        self.at(0.0, lambda: self._switch(actor, 0), process)

    def step(self) -> bool:
        """Do the next event; return False if there is none."""
        if not self._events:
            return False
        when, _, process, act = heapq.heappop(self._events)
        self.now = max(self.now, when)
        self._do(process, act)
        if self.failure is not None:
            raise self.failure
        return True

    def _do(self, process: Process | None, act: Callable[[], None]) -> None:
        if process is None or not (process.dead or process.paused):
            act()
        elif process.paused and not process.dead:
            process.held_up.append(act)

    def _switch(self, actor: Actor, turn: int) -> None:
        if actor.turn != turn or actor.greenlet.dead:
            return
        actor.turn += 1
        self.current = actor
        try:
            actor.greenlet.switch()
        finally:
            self.current = None

    def block(self, register: Callable[[Callable[[], None]], None], timeout: float | None) -> None:
        """Give way until the wake-up handed to *register* is called, or *timeout* has passed."""
        actor = self.current
        assert actor is not None, "only actors wait"
        turn = actor.turn

        def wake() -> None:
            self.at(0.0, lambda: self._switch(actor, turn), actor.process)

        register(wake)
        if timeout is not None:
            self.at(timeout, lambda: self._switch(actor, turn), actor.process)
        self.hub.switch()
        if actor.process.dead:
            raise Killed

    def pause(self, seconds: float) -> None:
        """Let *seconds* pass for the calling actor."""
        self.block(lambda wake: None, seconds)

    def kill(self, process: Process) -> None:
        """Stop the process at the current point, for good."""
        process.dead = True
        process.held_up.clear()
        for actor in process.actors:
            # A greenlet not started yet is false, and will never start.
            if actor is not self.current and actor.greenlet and not actor.greenlet.dead:
                actor.greenlet.throw(Killed)
        process.actors.clear()

    def stop(self, process: Process) -> None:
        """SIGSTOP."""
        process.paused = True

    def go_on(self, process: Process) -> None:
        """SIGCONT: events held back during the pause happen now, in some order."""
        process.paused = False
        held_up, process.held_up = process.held_up, []
        for act in held_up:
            self.at(self.random.uniform(0.0, 0.002), act, process)


class SimSignal(Signal):
    """A flag in virtual time."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._flag = False
        self._waiting: list[Callable[[], None]] = []

    def set(self) -> None:
        self._flag = True
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()

    def clear(self) -> None:
        self._flag = False

    def is_set(self) -> bool:
        return self._flag

    def wait(self, timeout: float | None = None) -> bool:
        if not self._flag:
            self._scheduler.block(self._waiting.append, timeout)
        return self._flag


class SimClock(Clock):
    """The scheduler's time, for one process. Each clock has another zero: clocks of two machines differ."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._offset = scheduler.random.uniform(0.0, 1e6)

    def monotonic(self) -> float:
        return self._scheduler.now + self._offset

    def wall(self) -> float:
        return 1.7e9 + self._scheduler.now + self._offset % 1000

    def signal(self) -> Signal:
        return SimSignal(self._scheduler)
