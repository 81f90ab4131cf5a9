"""The outboxes of all owned shards: ask for moves of recorded outcomes to the results sink, and commit the moves.

The loop of the member calls `Outboxes.step` in each turn. A move runs in the background thread, so neither a slow sink
nor a sink that is away stops the loop: outcomes go on being recorded in the store. Once the records of a shard exceed a
bound, the shard starts no more tasks.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import final

from smoothcluster.clock import Clock
from smoothcluster.errors import BackendError, SmoothclusterError
from smoothcluster.member.moving import Move, Mover
from smoothcluster.work import ShardWork
from smoothcluster.work.outbox import Outbox

log = logging.getLogger("smoothcluster")

FIRST_SINK_PAUSE_SECONDS, LONGEST_SINK_PAUSE_SECONDS = 0.5, 15.0
"""Pause after a failed move, doubled after each further failure."""

LONGEST_REASON_CHARACTERS = 300

Background = Callable[[Callable[[], object]], object]
"""Runs a call in another thread."""


@final
class Outboxes:
    """The outboxes of one incarnation. *wake* wakes the loop."""

    def __init__(self, mover: Mover, background: Background, clock: Clock, wake: Callable[[], object]) -> None:
        self._mover, self._background, self._clock, self._wake = mover, background, clock, wake
        self._done: deque[tuple[ShardWork, Outbox, str, Move | Exception]] = deque()
        self._committing: dict[int, tuple[ShardWork, Move]] = {}
        self._away_until, self._pause = 0.0, FIRST_SINK_PAUSE_SECONDS
        self._reason: str | None = None
        """Why moves fail; None if they succeed."""
        self._any_full = False

    @property
    def trouble(self) -> str | None:
        """Why outcomes wait, and whether tasks wait for this reason; None if moves succeed in time."""
        if not self._any_full:
            return self._reason
        return f"{self._reason or 'the sink is slower than the crawl'}; full shards start no more tasks"

    def step(self, works: Mapping[int, ShardWork], *, leaving: bool) -> None:
        """Take in finished moves, and ask for moves that are due; none while *leaving*."""
        while self._done:
            self._take(*self._done.popleft())
        now = self._clock.monotonic()
        self._any_full = any(work.outbox is not None and work.outbox.full for work in works.values())
        for number, work in works.items():
            if work.outbox is None:
                work.outbox = Outbox.of(work.record.counts)
            self._settle(number, work, work.outbox)
            if leaving or now < self._away_until or work.moving:
                continue
            job = work.outbox.ask(now)
            if job is not None:
                self._background(partial(self._move, work, work.outbox, job))

    def next_time(self, works: Mapping[int, ShardWork]) -> float | None:
        """Return the latest time for the next turn, as far as moves need one."""
        times = [time for work in works.values() if work.outbox and (time := work.outbox.next_move()) is not None]
        return max(min(times), self._away_until) if times else None

    def _move(self, work: ShardWork, outbox: Outbox, job: str) -> None:
        """Move outcomes; called in the background thread."""
        try:
            result: Move | Exception = self._mover.move(job, work.number)
        except SmoothclusterError as error:
            result = error
        except Exception as error:
            log.exception("moving the results of job %s in shard %d failed", job, work.number)
            result = error
        self._done.append((work, outbox, job, result))
        self._wake()

    def _take(self, work: ShardWork, outbox: Outbox, job: str, result: Move | Exception) -> None:
        if isinstance(result, Move):
            self._recover()
        elif not isinstance(result, BackendError):  # The loop itself notices that the store is away.
            self._fail(str(result)[:LONGEST_REASON_CHARACTERS])
        if work.lost or work.outbox is not outbox:
            return  # The next owner moves the outcomes again.
        if isinstance(result, Move):
            if result.moved.tail is not None or result.moved.keys:
                work.news.moved[job] = result.moved
            self._committing[work.number] = (work, result)
        else:
            outbox.failed(float("-inf"))
            self._away_until = self._clock.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_SINK_PAUSE_SECONDS)

    def _settle(self, number: int, work: ShardWork, outbox: Outbox) -> None:
        """Note the end of a move once all commits of the move are applied."""
        if number not in self._committing:
            return
        mine, move = self._committing[number]
        if mine is not work or outbox.asked is None:  # The shard was claimed again, or the outbox began anew.
            del self._committing[number]
        elif outbox.asked not in work.news.moved and work.pending is None:
            del self._committing[number]
            outbox.moved(move.size, more=move.more)

    def _fail(self, why: str) -> None:
        if why != self._reason:
            log.warning("results wait in the store: %s", why)
        self._reason = why

    def _recover(self) -> None:
        if self._reason is not None:
            log.warning("results go to the sink again")
        self._reason, self._away_until, self._pause = None, 0.0, FIRST_SINK_PAUSE_SECONDS
