"""A store client behind a simulated network that delays and loses messages, but never repeats or forgets them.

Each call travels to the store and back, and the scheduler may run any other process meanwhile. Reads lag behind other
processes' commits, as at a follower, and a read of many keys is no snapshot. Some processes are far from the store,
some from the leader. While a process is cut off, the calls fail after a while. A commit sent in this time may be
applied, or be applied much later, even after the sender's death.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar, final

from smoothcluster.backend import (
    Change,
    Committed,
    Condition,
    CoordinationBackend,
    Entry,
    Guarantees,
    Lease,
    Refused,
    Watch,
)
from smoothcluster.errors import BackendError, CommitTooLargeError, OutcomeUnknownError, UnavailableError
from smoothcluster.memory import MemoryBackend, MemoryStore
from smoothcluster.testing.lagging import Lagging
from smoothcluster.testing.simulate.invariants import Violation
from smoothcluster.testing.simulate.scheduler import Process, Scheduler

T = TypeVar("T")

CALL_TIMEOUT_SECONDS = 0.5
"""Seconds after which a call to an unreachable store fails."""

LONGEST_STALL_SECONDS = 0.4
"""The longest delay of a slow message, in seconds: long enough for other processes to do much."""


@final
class SimLease(Lease):
    """A lease, granted and renewed over the network."""

    def __init__(self, backend: "SimBackend", inner: Lease) -> None:
        self._backend, self._inner = backend, inner

    @property
    def id(self) -> str:
        return self._inner.id

    @property
    def ttl(self) -> float:
        return self._inner.ttl

    def renew(self) -> bool:
        return self._backend.ask("renew", self._inner.renew)

    def revoke(self) -> None:
        self._backend.ask("renew", self._inner.revoke)


@final
class SimBackend(CoordinationBackend):
    """The store client of one process."""

    def __init__(
        self,
        scheduler: Scheduler,
        process: Process,
        store: MemoryStore,
        on_author: Callable[[str], None],
        slow: str,
        on_stall: Callable[[float], None],
    ) -> None:
        self.cut = False
        """Whether the process is cut off from the store."""
        self.deaf = False
        """Whether the wake-ups of the watches get lost."""
        self.drop = 0.0
        """The share of acknowledgements that get lost."""
        self._scheduler, self._process, self._store = scheduler, process, store
        self._on_author, self._slow, self._on_stall = on_author, slow, on_stall
        self._leader = MemoryBackend(store)
        self._lagging = Lagging(store)
        self._far = scheduler.random.choice((1, 1, 1, 4))
        self._behind = scheduler.random.choice((1, 1, 1, 20))
        self._due = self._closed = False
        store.observers.append(self._expect)

    @property
    def guarantees(self) -> Guarantees:
        return self._store.guarantees

    @property
    def url(self) -> str:
        return "memory://simulated"

    def _expect(self, _: object) -> None:
        """After a commit, schedule the news to this process's server."""
        if not self._due and not self.cut and not self._process.dead:
            self._due = True
            self._scheduler.at(self._takes("news", self._behind), self._deliver_news, self._process)

    def _deliver_news(self) -> None:
        self._due = False
        if not self.cut:
            self._lagging.catch_up()

    def mend(self) -> None:
        """End the cut: the server hears the missed news now."""
        self.cut = False
        self._expect(None)

    def _takes(self, kind: str, times: float = 1.0) -> float:
        """Seconds until a message of this *kind* arrives: usually few, now and then many."""
        random = self._scheduler.random
        usual = times * self._far * random.choice((0.0005, 0.002, 0.005, 0.01, 0.04)) * random.random()
        if random.random() > (0.5 if kind == self._slow else 0.01):
            return usual
        stall = LONGEST_STALL_SECONDS * random.random()
        self._on_stall(stall)
        return usual + stall

    def _travel(self, kind: str) -> None:
        self._scheduler.pause(self._takes(kind))

    def _fail(self) -> None:
        self._scheduler.pause(CALL_TIMEOUT_SECONDS)

    def ask(self, kind: str, question: Callable[[], T]) -> T:
        """Make a call that may be repeated without harm."""
        self._travel(kind)
        self._arrive()
        answer = question()
        self._travel(kind)
        self._arrive()
        return answer

    def _arrive(self) -> None:
        if self.cut:
            self._fail()
            raise UnavailableError("cut off")

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        return self.ask("read", lambda: self._read(keys))

    def _read(self, keys: Sequence[str]) -> list[Entry | None]:
        """Read *keys* in order, now and then in two parts with time for other commits in between."""
        parts = 1 if self._slow == "read" else 3
        half = self._scheduler.random.randrange(parts * len(keys)) if len(keys) > 1 else 0
        if not 0 < half < len(keys):
            return self._lagging.get_many(keys)
        first = self._lagging.get_many(keys[:half])
        self._scheduler.pause(self._takes("read", self._scheduler.random.choice((1, 1, 10))))
        return first + self._lagging.get_many(keys[half:])

    def _listed(self, directory: str) -> "list[Entry]":
        return [entry for entry in self._read(self._lagging.keys(directory)) if entry is not None]

    def keys(self, directory: str) -> "list[str]":
        return self.ask("read", lambda: self._lagging.keys(directory))

    def list(self, directory: str) -> "list[Entry]":
        return self.ask("read", lambda: self._listed(directory))

    def sync(self) -> None:
        self.ask("read", self._lagging.sync)

    def commit(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        random = self._scheduler.random
        self._travel("commit")
        if self.cut:
            return self._lose(conditions, changes)
        if random.random() < self.drop / 3:
            return self._lose(conditions, changes)
        self._on_author(self._process.name)
        try:
            answer = self._leader.commit(conditions, changes)
        except CommitTooLargeError as error:
            raise Violation(f"P7: {self._process.name} sends a commit that is too large: {error}") from error
        if isinstance(answer, Committed) or random.random() < 0.5:
            self._lagging.catch_up()  # A client sees its own commits. A refusal promises nothing.
        self._travel("commit")
        if self._lost():
            self._fail()
            raise OutcomeUnknownError("the acknowledgement was lost")
        return answer

    def _lost(self) -> bool:
        """Whether an acknowledgement gets lost."""
        return self.cut or self._scheduler.random.random() < self.drop

    def _lose(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        """Fail a commit: never sent, sent and lost, or on the way for a long time."""
        random = self._scheduler.random
        fate = random.random()
        if fate < 0.3:
            self._fail()
            raise UnavailableError("not sent")
        if fate < 0.7:
            self._scheduler.at(random.uniform(0.0, 4.0), lambda: self._land(conditions, changes))
        self._fail()
        raise OutcomeUnknownError("no answer")

    def _land(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> None:
        self._on_author(self._process.name)
        try:
            self._store.commit(conditions, changes)
        except BackendError:  # The sender has long received the error of an unknown outcome.
            return

    def lease(self, ttl: float) -> Lease:
        return SimLease(self, self.ask("renew", lambda: self._lagging.lease(ttl)))

    def watch(self, path: str, notify: Callable[[], None], *, values: bool = True) -> Watch:
        return self.ask("watch", lambda: self._lagging.watch(path, self._guarded(notify), values=values))

    def _guarded(self, notify: Callable[[], None]) -> Callable[[], None]:
        def deliver() -> None:
            if self._closed:
                return  # The wake-up of the close: the process has ended.
            if not self.deaf:
                self._scheduler.at(self._takes("news"), notify, self._process)

        return deliver

    def close(self) -> None:
        self._closed = True
        self._store.observers.remove(self._expect)
        self._leader.close()
        self._lagging.close()
