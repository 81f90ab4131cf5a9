"""Pictures of a group, records in a store, and members without threads: what the core's unit tests are made of."""

import sys
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import final

from smoothcluster.backend import CoordinationBackend, Create, Guarantees, Update
from smoothcluster.clock import Clock
from smoothcluster.failure_detector import Peer
from smoothcluster.group.breaker import Pacing
from smoothcluster.group.spec import Wanted
from smoothcluster.group.store import GroupStore
from smoothcluster.group.view import Report, Versioned, View
from smoothcluster.jobs.chunk_reading import UnreadableTask, read_chunk
from smoothcluster.jobs.chunks import encode_task
from smoothcluster.member.environment import Environment
from smoothcluster.member.inbox import Inbox
from smoothcluster.member.loop import MemberLoop
from smoothcluster.member.settings import Settings
from smoothcluster.memory import WEAKEST, MemoryBackend, MemoryStore
from smoothcluster.model import Evidence, Stopping, Task
from smoothcluster.options import Retries
from smoothcluster.pool import Apart, NoChildren, Pool, Run, RunState
from smoothcluster.pool.protocol import always
from smoothcluster.recipes.session import Session
from smoothcluster.records.breaker import CLOSED_BREAKER, Breaker
from smoothcluster.records.codec import load
from smoothcluster.records.group import Member, Seat, Spec
from smoothcluster.records.keys import Keys
from smoothcluster.records.shard import Shard
from smoothcluster.testing import HeldClock
from smoothcluster.work import Quota, SentTasks, ShardWork, WorkContext
from smoothcluster.work.observer import WorkloadObserver

KEYS = Keys("g")


def member(name: str, join: int = 0, *, running: bool = True, seat: int | None = None) -> Member:
    """A member whose incarnation is called as it is."""
    return Member(name, name, join, "host", 1, "127.0.0.1", 0, 4, running, seat, "")


def picture(
    members: Iterable[Member],
    seats: Sequence[str | None],
    owners: Sequence[str | None] = (),
    *,
    gone: Mapping[str, Evidence] | None = None,
    complete: bool = True,
    breaker: Breaker = CLOSED_BREAKER,
) -> View:
    """A view in which seat and shard number n belong to the n-th of *seats* and *owners*."""
    spec = Spec(len(seats), 0, len(owners), 0, "")
    return View(
        Versioned(spec, "0"),
        [Versioned(Seat(holder, ""), "0") for holder in seats],
        [Versioned(Shard(owner=owner, name=owner), "0") for owner in owners],
        {each.incarnation: Versioned(each, "0") for each in members},
        gone or {},
        complete,
        Versioned(breaker, "0"),
    )


def all_run(
    members: Iterable[Member],
    owners: Sequence[str | None],
    *,
    runner: int = 5,
    gone: Mapping[str, Evidence] | None = None,
    breaker: Breaker = CLOSED_BREAKER,
) -> View:
    """A view of a group in which all members are Runners, up to *runner*."""
    view = picture(members, [], owners, gone=gone, breaker=breaker)
    return replace(view, spec=Versioned(Spec(runner, None, len(owners), 0, ""), "0"))


def runners(*names: str) -> list[Member]:
    """Members that joined in this order and hold the seats in this order."""
    return [member(name, join, seat=join) for join, name in enumerate(names)]


@final
@dataclass
class Garbage:
    """Collects what is reported."""

    found: dict[str, str] = field(default_factory=dict[str, str])

    def __call__(self, key: str, what: str) -> None:
        """Take note of it."""
        self.found[key] = what


def ids(prefix: str = "id") -> Callable[[], str]:
    """Ids that are never repeated."""
    numbers = count()
    return lambda: f"{prefix}{next(numbers)}"


def store_of(
    backend: CoordinationBackend,
    report: Report | None = None,
    clock: Clock | None = None,
    new_id: Callable[[], str] | None = None,
) -> GroupStore:
    """The store of the group g, with a clock that stands and ids that tell nothing, unless others are given."""
    return GroupStore(backend, KEYS, report or Garbage(), clock or HeldClock(), new_id or ids())


def put(backend: CoordinationBackend, key: str, value: bytes) -> None:
    """Have *value* at *key*, whatever was there."""
    old = backend.get(key)
    backend.commit([], [Create(key, value) if old is None else Update(key, value)])


def steps(act: Callable[[], object]) -> int:
    """The number of functions that are called while *act* runs, those written in C included."""
    counted, before = 0, sys.getprofile()

    def count_call(_frame: object, event: str, _argument: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(count_call)
    try:
        act()
    finally:
        sys.setprofile(before)
    return counted


def kept_memory(act: Callable[[], object], files: str) -> int:
    """The bytes that lines of *files* have allocated during *act*, and that its result or others still hold.

    What other threads allocate meanwhile, in other files, does not count.
    """
    tracemalloc.start()
    try:
        result = act()
        traces = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(inclusive=True, filename_pattern=files)])
    finally:
        tracemalloc.stop()
    del result
    return sum(trace.size for trace in traces.traces)


def limits(**changes: int) -> Guarantees:
    """The weakest store's limits, but for some."""
    return replace(WEAKEST, **changes)  # type: ignore[arg-type]  # only the numbers are ever changed


@final
class Quiet:
    """Nothing is stopping."""

    def is_set(self) -> bool:
        """No."""
        return False

    def wait(self, timeout: float | None = None) -> bool:
        """No."""
        return False


@final
@dataclass
class Kennel(Apart):
    """Children that are there when a test says so."""

    every: bool = False
    can: bool | None = True
    up: int = 1
    harmed: float = -1.0
    """When a bystander was."""
    asked: list[int] = field(default_factory=list[int])

    @property
    def able(self) -> bool | None:
        """As the test says."""
        return self.can

    def ready(self, waiting: int) -> int:
        """So many as there are."""
        self.asked.append(waiting)
        return self.up

    def disturbed(self, since: float) -> bool:
        """Whether that was later."""
        return self.harmed >= since

    def run(self, run: Run, can_start: Callable[[Run], bool] = always) -> None:
        """The hand pool does that."""


@final
@dataclass
class News(WorkloadObserver):
    """Keeps the news of a workload."""

    woken: int = 0
    starts: list[int] = field(default_factory=list[int])
    losses: list[int] = field(default_factory=list[int])
    behinds: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])

    def wake(self) -> None:
        """Count it."""
        self.woken += 1

    def started(self, shard: int) -> None:
        """Keep it."""
        self.starts.append(shard)

    def lost(self, shard: int) -> None:
        """Keep it."""
        self.losses.append(shard)

    def behind(self, shard: int, kept: int, acknowledged: int) -> None:
        """Keep it."""
        self.behinds.append((shard, kept, acknowledged))


def decode_chunk(value: bytes) -> list[Task]:
    """The tasks of a chunk, all of them readable."""
    return [task for task in read_chunk("j-0", value) if not isinstance(task, UnreadableTask)]


@final
@dataclass
class Bench:
    """A store, and the work on its shards as their owner does it, without a pool."""

    guarantees: Guarantees = WEAKEST
    shards: int = 1
    retries: Retries = field(default_factory=Retries)
    clock: HeldClock = field(default_factory=HeldClock)
    garbage: Garbage = field(default_factory=Garbage)
    kennel: Kennel = field(default_factory=Kennel)
    stopping: Stopping = field(default_factory=Quiet)
    events: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    max_tasks: int = 1_000_000

    def __post_init__(self) -> None:
        self.store = MemoryStore(clock=self.clock, guarantees=self.guarantees)
        self.clock.listeners.append(self.store.expire)
        self.backend = MemoryBackend(self.store)
        self.new_id = ids()
        store = store_of(self.backend, self.garbage, self.clock, self.new_id)
        self.context = WorkContext(
            store, self.shards, "runner", "me", self.retries, self.stopping, SentTasks(), self.kennel,
            self._note, Quota(store, self.shards, self.max_tasks, self._note),
        )  # fmt: skip

    def _note(self, kind: str, **details: object) -> None:
        self.events.append({"kind": kind, **details})

    def chunk(self, name: str, *tasks: str, shard: int = 0) -> None:
        """Write a chunk with tasks of these ids."""
        texts = ",".join(encode_task(Task(id=task)) for task in tasks)
        put(self.backend, KEYS.chunk(shard, name), f"[{texts}]".encode())

    def own(self, number: int = 0, record: Shard | None = None) -> ShardWork:
        """The work on a shard whose record, *record* or a new one, says that we own it."""
        mine = replace(record or Shard(), owner="me", name="runner")
        put(self.backend, KEYS.shard(number), mine.to_json())
        return ShardWork(number, self.read(number), self.context, lambda: None)

    def read(self, number: int = 0) -> Versioned[Shard]:
        """A shard's record as it stands in the store."""
        entry = self.backend.get(KEYS.shard(number))
        assert entry is not None
        return Versioned(Shard.from_json(entry.value), entry.version)

    def start(self, work: ShardWork, want: int = 10, now: float = 0.0) -> list[Run]:
        """Let *work* start up to *want* tasks and commit that."""
        work.backlog.fill(want)
        return self.commit(work, want, now)

    def commit(
        self, work: ShardWork, want: int = 0, now: float = 0.0, *, apart: int = 0, alone: bool = False
    ) -> list[Run]:
        """Build the next commit and send it; what may run then."""
        pending = work.prepare(want, now, apart, alone=alone)
        return self.send(work) if pending is not None else []

    def send(self, work: ShardWork) -> list[Run]:
        """Send the pending commit, which must not be refused."""
        assert work.pending is not None
        result = self.backend.commit([], work.pending.changes)
        assert hasattr(result, "versions"), result
        return work.applied(self.read(work.number).version or "")

    def results(self, job: str, shard: int = 0) -> list[bytes]:
        """The results recorded for *job*."""
        return [entry.value for entry in self.backend.list(KEYS.results(job, shard))]


def done(run: Run, *added: Task, value: str = "null") -> Run:
    """*run*, as if its handler had returned *value* and submitted *added*."""
    run.state, run.encoded = RunState.DONE, value
    run.added = list(added)
    run.added_encoded = [encode_task(task) for task in added]
    return run


def failed(run: Run, why: str = "no") -> Run:
    """*run*, as if its handler had raised."""
    run.fail(why)
    return run


def died(run: Run, how: str, began: float = 0.0) -> Run:
    """*run*, as if its child had died so."""
    run.state, run.death, run.began = RunState.DIED, how, began
    return run


@final
class HandPool(Pool):
    """A pool whose runs end when a test says so."""

    def __init__(self, can_start: Callable[[Run], bool] = lambda run: True) -> None:
        self.finished: deque[Run] = deque()
        self.waiting: deque[Run] = deque()
        self.started: list[Run] = []
        self.stopped = False
        self._can_start = can_start

    def put(self, runs: Iterable[Run]) -> None:
        """Keep them until `start`."""
        self.waiting.extend(runs)

    def take_back(self) -> list[Run]:
        """All that waits."""
        taken = list(self.waiting)
        self.waiting.clear()
        return taken

    def stop(self, timeout: float) -> int:
        """Take note of it."""
        self.stopped = True
        return len(self.started)

    def start(self) -> list[Run]:
        """Start all that waits."""
        while self.waiting:
            run = self.waiting.popleft()
            (self.started if self._can_start(run) else self.finished).append(run)
        return self.started

    def finish(self, value: str = "null") -> int:
        """Start all that waits and end all that was started; how many."""
        ended = [done(run, value=value) for run in self.start()]
        self.started.clear()
        self.finished.extend(ended)
        return len(ended)


@final
@dataclass
class Group:
    """Members of one group on one store and one clock, each a loop that a test turns by hand."""

    runner: int | None = 1
    backup: int | None = 0
    shards: int = 4
    ttl: float = 10.0
    pacing: Pacing = field(default_factory=Pacing)
    guarantees: Guarantees = WEAKEST
    clock: HeldClock = field(default_factory=HeldClock)
    new_id: Callable[[], str] = field(default_factory=ids)
    pools: dict[str, HandPool] = field(default_factory=dict[str, HandPool])
    watched: dict[str, set[Peer]] = field(default_factory=dict[str, set[Peer]])
    ports: Iterator[int] = field(default_factory=lambda: count(1000))
    moves: deque[Callable[[], object]] = field(default_factory=deque[Callable[[], object]])
    """What the background threads of all members have to do."""

    def __post_init__(self) -> None:
        self.store = MemoryStore(clock=self.clock, guarantees=self.guarantees)
        self.clock.listeners.append(self.store.expire)
        self.backend = MemoryBackend(self.store)

    def member(
        self,
        name: str = "m_<index>",
        backend: CoordinationBackend | None = None,
        *,
        join: bool = True,
        grace: float = 0.0,
        capacity: int | None = None,
        apart: Apart | None = None,
        results: str | None = None,
    ) -> MemberLoop:
        """One more member, joined unless told otherwise."""
        mark = f"p{len(self.pools)}"

        def make_pool(_: Callable[[], None], can_start: Callable[[Run], bool]) -> Pool:
            self.pools[mark] = HandPool(can_start)
            return self.pools[mark]

        def watch_peers(peers: set[Peer], *, first: bool) -> None:  # as `Environment` has it
            self.watched[mark] = peers

        environment = Environment(
            clock=self.clock,
            new_id=self.new_id,
            host="host",
            pid=1,
            address=("127.0.0.1", next(self.ports)),
            announce=lambda group, name, incarnation: None,
            watch_peers=watch_peers,
            make_pool=make_pool,
            keep_alive=lambda session: None,
            inbox=Inbox(self.clock),
            apart=apart or NoChildren(),
            background=self.moves.append,
        )
        wanted = Wanted(name, self.runner, self.backup, self.shards).with_results(results)
        settings = Settings("g", wanted, 2, self.ttl, grace=grace, capacity=capacity, pacing=self.pacing)
        loop = MemberLoop(backend or MemoryBackend(self.store), settings, environment)
        loop.working = loop._running = True  # pyright: ignore[reportPrivateUsage]  # what `run` says of itself
        if join:
            loop.mark_results()
            while not loop.try_join():
                pass
            loop.take_seat()
        return loop

    @staticmethod
    def pool(loop: MemberLoop) -> HandPool:
        """The pool of a member."""
        assert isinstance(loop.pool, HandPool)
        return loop.pool

    def turn(self, *loops: MemberLoop, times: int = 8) -> None:
        """Let each take its turns."""
        for _ in range(times):
            for loop in loops:
                loop.step()

    def move(self) -> int:
        """Do what the background threads have to do; how many calls."""
        calls = [*self.moves]
        self.moves.clear()
        for call in calls:
            call()
        return len(calls)

    def renew(self, *loops: MemberLoop) -> None:
        """Keep their leases alive."""
        for loop in loops:
            if loop.session is not None:
                loop.session.renew_once()

    def view(self) -> View:
        """The group as it stands in the store."""
        view = store_of(self.backend).read_view({})
        assert view is not None
        return view

    def owners(self) -> list[str | None]:
        """Names of those who own the shards, in order; None where nobody living does."""
        view = self.view()
        living = view.living()
        owners = [read.record.owner if read is not None else None for read in view.shards]
        return [living[owner].name if owner in living else None for owner in owners]

    def events(self, name: str) -> list[Mapping[str, object]]:
        """The events that a member has written."""
        return [load(entry.value) for entry in self.backend.list(KEYS.events(name))]

    def kinds(self, name: str) -> list[object]:
        """Their kinds."""
        return [event["kind"] for event in self.events(name)]


def session(backend: CoordinationBackend, clock: HeldClock, ttl: float = 10.0) -> Session:
    """A session that nobody renews."""
    return Session(backend, ttl, clock)
