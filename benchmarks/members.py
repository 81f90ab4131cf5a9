"""Measure what members cost each other: at rest, when one joins, when one dies, and when all start at once.

    python benchmarks/members.py [--sizes 5,20,50,200] [--shape all|some] [--json]
    python benchmarks/members.py --backend redis://127.0.0.1:6379 [--sizes 5,20,50] [--seconds 60]

Without a store, real members run in one process over a store in memory, on a clock that the program moves. So requests,
keys and bytes are exact, and the same on each run. *Requests* are round trips to the store and wake-ups of watches,
renewals included. *Keys* are the keys read, and the operations of commits. *Bytes* are those of the keys and values
read and written. *ms* are milliseconds of the processor, the store included. The row of a join or a death shows the
cost in the seconds after the event without the cost at rest, for each member that stays. *Ratio* is the bytes divided
by those of the smallest group.

With a store, the members run in one process, too, each with a client of its own. Only *start* and *rest* are measured,
the requests of a renewal are not counted, and the processor's time is without the store's.
"""

import argparse
import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import final

from bench import machine
from counting import Counted, Tally

from smoothcluster import ClusterCrawler, connect
from smoothcluster.errors import SmoothclusterError
from smoothcluster.failure_detector import Peer
from smoothcluster.group.breaker import Pacing
from smoothcluster.group.spec import Wanted
from smoothcluster.member.environment import Environment
from smoothcluster.member.inbox import Inbox
from smoothcluster.member.loop import MemberLoop
from smoothcluster.member.settings import Settings
from smoothcluster.memory import MemoryBackend, MemoryStore
from smoothcluster.pool import Pool, Run
from smoothcluster.testing import HeldClock

LEASE_TTL_SECONDS = 10.0
RUNNERS_OF_SOME = 3
SECONDS_PER_TURN = 0.001
"""The time between a wake-up and the turn of the member that was woken, on the held clock."""

SETTLE_SECONDS = 90.0
"""Seconds until a group is at rest: longer than the memory of the circuit breaker."""
REST_SECONDS = 60.0
EVENT_SECONDS = 15.0
"""Seconds after a join or a death that count as its cost."""


@final
class NoTasks(Pool):
    """A pool for members without tasks."""

    def __init__(self) -> None:
        self.finished: deque[Run] = deque()

    def put(self, runs: Iterable[Run]) -> None:  # noqa: ARG002  # as `Pool` has it
        raise RuntimeError("there are no tasks")

    def take_back(self) -> list[Run]:
        return []

    def stop(self, timeout: float) -> int:  # noqa: ARG002  # as `Pool` has it
        return 0


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost for one member."""

    requests: float
    keys: float
    bytes: float
    ms: float

    def without(self, rest: "Cost", share: float) -> "Cost":
        """Return this cost without a *share* of the cost at *rest*."""
        return Cost(
            self.requests - share * rest.requests,
            self.keys - share * rest.keys,
            self.bytes - share * rest.bytes,
            self.ms - share * rest.ms,
        )


def average(before: Sequence[Tally], after: Sequence[Tally], seconds: float) -> Cost:
    """The cost for one member between two readings, with the processor's *seconds* of all of them."""
    pairs, count = list(zip(before, after, strict=True)), len(before)
    return Cost(
        sum(now.requests - then.requests for then, now in pairs) / count,
        sum(now.keys - then.keys for then, now in pairs) / count,
        sum(now.bytes - then.bytes for then, now in pairs) / count,
        1000 * seconds / count,
    )


def numbers(size: int, shape: str) -> tuple[int, int | None]:
    """The numbers of Runners and Backup Runners."""
    return (size, None) if shape == "all" else (min(RUNNERS_OF_SOME, size), max(0, size - RUNNERS_OF_SOME))


class HeldMember:
    """A member on a held clock: `turn` makes a turn if one is due."""

    def __init__(self, group: "HeldGroup", number: int) -> None:
        self._clock, self.inbox = group.clock, Inbox(group.clock)
        self.backend = Counted(MemoryBackend(group.store))
        self.incarnation, self.peers = "", set[str]()
        self.due = self.renewal = group.clock.monotonic() + number * SECONDS_PER_TURN
        environment = Environment(
            clock=group.clock, new_id=lambda: secrets.token_hex(8), host="localhost", pid=number,
            address=("127.0.0.1", 1 + number), announce=self._announce, watch_peers=self._watch_peers,
            make_pool=lambda _deliver, _can_start: NoTasks(), keep_alive=lambda _session: None, inbox=self.inbox,
        )  # fmt: skip
        settings = Settings("g", group.wanted, lease_ttl=LEASE_TTL_SECONDS, pacing=Pacing(share=1.0))
        self.loop = MemberLoop(self.backend, settings, environment)
        self.loop.working = self.loop._running = True  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # as in `run`

    def _announce(self, _group: str, _name: str, incarnation: str) -> None:
        self.incarnation = incarnation

    def _watch_peers(self, peers: set[Peer], *, first: bool) -> None:  # noqa: ARG002  # all notice a death at once
        self.peers = {peer.incarnation for peer in peers}

    def turn(self, now: float) -> None:
        """Renew the lease, and make a turn, if the time has come."""
        if self.inbox.wake.is_set():
            self.due = min(self.due, now + SECONDS_PER_TURN)
        if self.loop.session is not None and now >= self.renewal:
            self.renewal = now + LEASE_TTL_SECONDS / 3
            self.loop.session.renew_once()
            self.backend.tally.requests += 1
        if now >= self.due:
            self.due = now + max(SECONDS_PER_TURN, self.loop.step())


class HeldGroup:
    """A group on a held clock."""

    def __init__(self, size: int, shape: str) -> None:
        self.clock = HeldClock()
        # The store of a large group accepts large commits, so each size takes the same number of commits.
        self.store = MemoryStore(clock=self.clock)
        runner, backup = (
            (size, None) if shape == "all" else (min(RUNNERS_OF_SOME, size), max(0, size - RUNNERS_OF_SOME))
        )
        self.wanted = Wanted("m_<index>", runner, backup)
        self.members = [HeldMember(self, number) for number in range(size)]

    def play(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> float:
        """Let so many seconds pass; return the seconds until *enough*."""
        began = self.clock.monotonic()
        while (now := self.clock.monotonic()) < began + seconds and not enough():
            for member in self.members:
                member.turn(now)
            woken = any(member.inbox.wake.is_set() for member in self.members)
            due = min(min(member.due, member.renewal) for member in self.members)
            self.clock.advance(SECONDS_PER_TURN if woken else max(SECONDS_PER_TURN, due - now))
        return self.clock.monotonic() - began

    def cost(self, seconds: float, members: "Sequence[HeldMember]") -> "Cost":
        """What *members* cost in the next seconds, on average."""
        before, began = [member.backend.tally.copy() for member in members], time.process_time()
        self.play(seconds)
        return average(before, [member.backend.tally for member in members], time.process_time() - began)

    def add(self) -> None:
        """Start one more member."""
        self.members.append(HeldMember(self, len(self.members)))

    def kill(self, member: HeldMember) -> None:
        """End the process of *member*; the members that watch its port have the proof at once."""
        self.members.remove(member)
        for other in self.members:
            if member.incarnation in other.peers:
                other.inbox.proved_gone(member.incarnation)


def on_a_held_clock(size: int, shape: str) -> dict[str, Cost]:
    """Measure a group of *size* members."""
    group = HeldGroup(size, shape)
    started = group.cost(SETTLE_SECONDS, group.members)
    assert all(member.loop.life is not None for member in group.members), "a member has not joined"
    rest = group.cost(REST_SECONDS, group.members)
    there = list(group.members)
    group.add()
    joined = group.cost(EVENT_SECONDS, there)
    group.play(SETTLE_SECONDS)
    there = group.members[1:]
    group.kill(group.members[0])
    died = group.cost(EVENT_SECONDS, there)
    share = EVENT_SECONDS / REST_SECONDS
    return {"start": started, "rest": rest, "join": joined.without(rest, share), "death": died.without(rest, share)}


class StoreGroup:
    """Members of one group in this process, each with a client of the store at *url*."""

    def __init__(self, url: str, size: int, shape: str) -> None:
        self._group = f"members-{secrets.token_hex(4)}"
        self._runner, self._backup = numbers(size, shape)
        self.backends = [Counted(connect(url)) for _ in range(size)]
        self._crawlers: list[ClusterCrawler] = []
        self.failures: list[SmoothclusterError] = []

    def start(self) -> None:
        """Start all members at once, and wait until each has joined or failed."""
        threads = [threading.Thread(target=self._join, args=(backend,)) for backend in self.backends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _join(self, backend: Counted) -> None:
        try:
            crawler = ClusterCrawler(
                backend=backend, group=self._group, handler=print, runner=self._runner, backup=self._backup
            )
            self._crawlers.append(crawler.start())
        except SmoothclusterError as error:
            self.failures.append(error)

    def cost(self, act: Callable[[], object]) -> Cost:
        """What the members cost while *act* runs, on average."""
        before, began = [backend.tally.copy() for backend in self.backends], time.process_time()
        act()
        return average(before, [backend.tally for backend in self.backends], time.process_time() - began)

    def close(self) -> None:
        """Have all members leave."""
        for crawler in self._crawlers:
            crawler.stop()
        for backend in self.backends:
            backend.close()


def on_a_store(url: str, size: int, shape: str, seconds: float) -> dict[str, Cost]:
    """Start *size* members in this process at once, and measure the start and the rest."""
    group, began = StoreGroup(url, size, shape), time.monotonic()
    try:
        started = group.cost(group.start)
        taken = time.monotonic() - began
        print(f"{size:6}  {len(group.failures)} failed to join, the others joined in {taken:.1f} s", flush=True)
        for error in group.failures[:1]:
            print(f"        {error}")
        time.sleep(seconds)
        return {"start": started, "rest": group.cost(lambda: time.sleep(seconds))}
    finally:
        group.close()


def main() -> None:  # long: a line for each option
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", help="URL of a store; without it, a store in memory on a held clock")
    parser.add_argument("--sizes", default="5,20,50,200", help="numbers of members, separated by commas")
    parser.add_argument("--shape", choices=("all", "some"), default="all", help="whether all are Runners, or 3 of them")
    parser.add_argument("--seconds", type=float, default=REST_SECONDS, help="duration of a measurement on a store")
    parser.add_argument("--json", action="store_true", help="one JSON object for each line of the table")
    given = parser.parse_args()
    where = given.backend or "a store in memory, on a held clock"
    if not given.json:
        print(f"{machine()}\nthe cost for one member; {given.shape}; {where}")
        print(f"{'':16}{'requests':>10}{'keys':>10}{'bytes':>12}{'ms':>9}{'ratio':>8}")
    first: dict[str, Cost] = {}
    for size in map(int, given.sizes.split(",")):
        if given.backend:
            measured = on_a_store(given.backend, size, given.shape, given.seconds)
        else:
            measured = on_a_held_clock(size, given.shape)
        first = first or measured
        for what, cost in measured.items():
            row = asdict(cost) | {"ratio": cost.bytes / first[what].bytes if first[what].bytes else 1.0}
            if given.json:
                head = {"machine": machine(), "where": where, "shape": given.shape, "members": size, "what": what}
                print(json.dumps(head | {name: round(value, 3) for name, value in row.items()}), flush=True)
            else:
                print(f"{size:6}  {what:8}" + _TABLE_ROW.format(**row), flush=True)


_TABLE_ROW = "{requests:10.1f}{keys:10.1f}{bytes:12,.0f}{ms:9.2f}{ratio:8.2f}"

if __name__ == "__main__":
    main()
