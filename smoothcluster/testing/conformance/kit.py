"""The hooks for the backend under test, and helpers shared by the rules."""

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
    """A store operation available to a conformance class beyond the required hooks.

    Rules that need an undeclared ability are skipped.
    """

    CUT = "cut"
    """`Kit.cut` and `Kit.mend` break and restore one client's connection."""
    RESTART = "restart"
    """`Kit.restart_store` stops the store and starts the store again."""


class Kit(ABC):
    """The base class with the hooks for one backend: `connect` and `expire` at least.

    *ttl*: seconds asked for where a lease must live through a whole test. *rounds*: the number of repetitions of a
    race; more repetitions find more bugs, at the cost of time.
    """

    abilities: ClassVar[frozenset[Ability]] = frozenset()
    ttl: ClassVar[float] = 10.0
    rounds: ClassVar[int] = 30

    @abstractmethod
    def connect(self) -> CoordinationBackend:
        """Return a new client of the store under test. The caller closes the client."""

    @abstractmethod
    def expire(self, lease: Lease) -> None:
        """Make the store end *lease* without the holder's call, or wait until the end. Other leases may end too."""

    def cut(self, backend: CoordinationBackend) -> None:
        """Break this client's connection to the store, without notice to either side, until `mend`."""
        raise NotImplementedError

    def mend(self, backend: CoordinationBackend) -> None:
        """Let this client reach the store again."""
        raise NotImplementedError

    def restart_store(self) -> None:
        """Stop the store as a crash does, and start the store again; return when the store answers."""
        raise NotImplementedError

    def dropping_next_answer(self, backend: CoordinationBackend) -> CoordinationBackend:
        """Return *backend*, or a client around *backend*: the next commit is applied, and the answer is lost.

        Override this method where the real connection can be made to lose the answer.
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
        """A directory not used by other tests."""
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


def fill(backend: CoordinationBackend, directory: str, count: int, value: bytes = b"") -> list[str]:
    """Create *count* keys in *directory*, as many in a commit as the store takes; return the names, sorted."""
    names = [f"{directory}/{number:06}" for number in range(count)]
    largest = min(backend.guarantees.largest_commit // (2 * (len(value) + 1024)), backend.guarantees.most_operations)
    for start in range(0, count, largest):
        changes = [Create(name, value) for name in names[start : start + largest]]
        assert isinstance(backend.commit([], changes), Committed)
    return names


def delete(backend: CoordinationBackend, key: str) -> None:
    """Delete *key*, which must succeed."""
    assert isinstance(backend.commit([], [Delete(key)]), Committed)


def refused(outcome: Committed | Refused) -> str:
    """The key named by *outcome*, a refusal."""
    assert isinstance(outcome, Refused)
    return outcome.key


def gone(backend: CoordinationBackend, key: str) -> None:
    """Wait until *key* is absent."""
    eventually(lambda: backend.get(key) is None)


def in_parallel(calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """Start all *calls* at once, each in a thread; return their answers, or raise the first error."""
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


def outcome_in_thread(call: Callable[[], object]) -> Callable[[], object]:
    """Start *call* in a thread. The returned function waits for the end, and returns the answer or the error."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001  # handed to the test
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def end() -> object:
        thread.join(60)
        assert outcome, "the thread was not told, and still waits"
        return outcome[0]

    return end
