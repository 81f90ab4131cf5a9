"""The hooks for the sink under test, and helpers shared by the rules."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar

import pytest

from smoothcluster.model import Outcome, State
from smoothcluster.sinks import NumberedOutcome, Part, ResultSink, Tail, open_sink


class SinkAbility(StrEnum):
    """An operation on the place of a sink, beyond the required hooks. Rules that need an undeclared one are skipped."""

    AWAY = "away"
    """`SinkKit.take_away` and `SinkKit.bring_back` make the place unreachable and reachable."""
    REFUSE = "refuse"
    """`SinkKit.refuse` makes the place refuse some outcomes for good."""
    KILL = "kill"
    """Other processes reach the place by URL, so writers can be killed."""


class SinkKit(ABC):
    """The base class with the hooks for one sink: `url` at least.

    *kill_points*: names of functions, of Python or of libraries; at each call of such a function within a write, a
    writer is killed. *least_kills* and *most_kills*: the number of such calls in a write.
    """

    abilities: ClassVar[frozenset[SinkAbility]] = frozenset()
    options: ClassVar[Mapping[str, Any]] = {}
    kill_points: ClassVar[frozenset[str]] = frozenset()
    least_kills: ClassVar[int] = 3
    most_kills: ClassVar[int] = 24

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL of the place under test. The rules use new jobs, so all tests may share a place."""

    def open(self) -> ResultSink:
        """Return a new client of the place. The caller closes the client."""
        return open_sink(self.url, self.options)

    def take_away(self) -> None:
        """Make the place unreachable for every client, until `bring_back`."""
        raise NotImplementedError

    def bring_back(self) -> None:
        """Make the place reachable again, with all that was written."""
        raise NotImplementedError

    def refuse(self, sink: ResultSink, job: str, task_id: str) -> None:
        """Make the place refuse the outcome of task *task_id* of *job* for good."""
        raise NotImplementedError

    def need(self, ability: SinkAbility) -> None:
        """Skip the test unless this class declares *ability*."""
        if ability not in self.abilities:
            pytest.skip(f"{type(self).__name__} does not declare SinkAbility.{ability.name}")

    @pytest.fixture
    def sink(self) -> Iterator[ResultSink]:
        """The client under test."""
        client = self.open()
        yield client
        client.close()

    @pytest.fixture
    def other(self) -> Iterator[ResultSink]:
        """A second client of the same place."""
        client = self.open()
        yield client
        client.close()

    @pytest.fixture
    def part(self) -> Part:
        """A part not used by other tests."""
        return Part(f"conformance-{secrets.token_hex(8)}", 7)


def numbered(*seqs: int, mood: str = "") -> list[NumberedOutcome]:
    """Return an outcome for each commit; outcomes with another *mood* are those of another history of the store."""
    return [NumberedOutcome(seq, Outcome(f"task{seq}{mood}", State.DONE, seq, None, 1, "m", 1)) for seq in seqs]


def read_all(sink: ResultSink, part: Part, tail: Tail) -> list[NumberedOutcome]:
    """Return the outcomes up to *tail*, by number."""
    return sorted(sink.read(part, tail), key=lambda each: each.seq)


def in_order(batch: Sequence[NumberedOutcome]) -> list[NumberedOutcome]:
    """Return *batch* by number, and by task for the same number."""
    return sorted(batch, key=lambda each: (each.seq, each.outcome.task_id))
