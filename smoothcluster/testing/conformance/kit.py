"""What the rules need of the backend under test, and the few things they all use."""

import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import ClassVar, TypeVar, final

import pytest

from smoothcluster.backend import Committed, CoordinationBackend, Create, Delete, Lease, Refused
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.testing.clock import eventually
from smoothcluster.testing.faults import Faulty

Answer = TypeVar("Answer")


class Ability(StrEnum):
    """What a conformance class can do to its store beyond what all must. Rules that need more are skipped."""

    CUT = "cut"
    """`Kit.cut` and `Kit.mend` break and restore one client's connection."""
    RESTART = "restart"
    """`Kit.restart_store` stops the store and starts it again."""


class Kit(ABC):
    """What a conformance class provides: `connect` and `expire` at least.

    *ttl*: seconds asked for where a lease is to live through a whole test.
    *rounds*: how often a race is run; more finds more, at the cost of time.
    """

    abilities: ClassVar[frozenset[Ability]] = frozenset()
    ttl: ClassVar[float] = 10.0
    rounds: ClassVar[int] = 30

    @abstractmethod
    def connect(self) -> CoordinationBackend:
        """A new client of the one store under test. Whoever asked for it closes it."""

    @abstractmethod
    def expire(self, lease: Lease) -> None:
        """Make the store end *lease* without its holder's doing, or wait until it has run out. Others may go too."""

    def cut(self, backend: CoordinationBackend) -> None:
        """Break this client's connection to the store, without a word to either side, until `mend`."""
        raise NotImplementedError

    def mend(self, backend: CoordinationBackend) -> None:
        """Let this client reach the store again."""
        raise NotImplementedError

    def restart_store(self) -> None:
        """Stop the store as a crash does, and start it again; return when it answers."""
        raise NotImplementedError

    def dropping_next_answer(self, backend: CoordinationBackend) -> CoordinationBackend:
        """A client, *backend* or one around it, whose next commit is applied and its answer lost.

        Override it where the real connection can be made to lose the answer.
        """
        faulty = Faulty(backend)
        faulty.drop_answer()
        return faulty

    def pass_time(self, seconds: float) -> None:
        """Let *seconds* pass on the store's clock."""
        SYSTEM_CLOCK.sleep(seconds)

    def need(self, ability: Ability) -> None:
        """Skip the test unless this class declares *ability*."""
        if ability not in self.abilities:
            pytest.skip(f"{type(self).__name__} does not declare Ability.{ability.name}")

    @pytest.fixture
    def backend(self) -> Iterator[CoordinationBackend]:
        """The client under test."""
        client = self.connect()
        yield client
        client.close()

    @pytest.fixture
    def other(self) -> Iterator[CoordinationBackend]:
        """A second client of the same store."""
        client = self.connect()
        yield client
        client.close()

    @pytest.fixture
    def root(self) -> str:
        """A directory that no other test uses."""
        return f"conformance-{secrets.token_hex(8)}"


@final
class Wakes:
    """Counts the calls of a watch: pass it as *notify*."""

    def __init__(self) -> None:
        self.count = 0
        self.flag = threading.Event()

    def __call__(self) -> None:
        self.count += 1
        self.flag.set()

    def since(self, count: int) -> None:
        """Wait until there was a call after the first *count*."""
        eventually(lambda: self.count > count)


def create(backend: CoordinationBackend, key: str, value: bytes = b"", lease: Lease | None = None) -> str:
    """Create *key*, which must succeed; return its version."""
    outcome = backend.commit([], [Create(key, value, lease)])
    assert isinstance(outcome, Committed)
    return outcome.versions[key]


def delete(backend: CoordinationBackend, key: str) -> None:
    """Delete *key*, which must succeed."""
    assert isinstance(backend.commit([], [Delete(key)]), Committed)


def refused(outcome: Committed | Refused) -> str:
    """The key that *outcome*, a refusal, names."""
    assert isinstance(outcome, Refused)
    return outcome.key


def gone(backend: CoordinationBackend, key: str) -> None:
    """Wait until *key* is absent."""
    eventually(lambda: backend.get(key) is None)


def in_parallel(calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """Start all *calls* at once, each in a thread; return their answers, or raise one's error."""
    barrier = threading.Barrier(len(calls))
    answers: dict[int, Answer] = {}
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            barrier.wait()
            answers[index] = calls[index]()
        except BaseException as error:  # noqa: BLE001  # raised again below, in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if errors:
        raise errors[0]
    return [answers[index] for index in range(len(calls))]
