"""`results` where outcomes lie in a sink: they are printed, and a sink that is away is told in one line."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from cli_kit import Invoke
from core_kit import put
from dict_sink import PLACE, DictSink, register

from smoothcluster import Cluster, Task, connect
from smoothcluster.errors import SinkUnavailableError
from smoothcluster.model import Outcome, State
from smoothcluster.records.group import Spec
from smoothcluster.records.keys import Keys
from smoothcluster.records.tail import TailRecord
from smoothcluster.sinks import NumberedOutcome, Part

KEYS = Keys("default")


@pytest.fixture(autouse=True)
def _moved(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The outcome of a job lies in the sink."""
    register(monkeypatch, DictSink)
    backend = connect(url)
    Cluster(backend).submit([Task(id="t")], "j")
    spec = backend.get(KEYS.spec)
    assert spec is not None
    put(backend, KEYS.spec, replace(Spec.from_json(spec.value), results="dict://place", results_id="g").to_json())
    part = Part("j.g", 0)
    tail = DictSink().write(part, [NumberedOutcome(1, Outcome("t", State.DONE, 7, None, 1, "m", 1))], None)
    put(backend, KEYS.tail("j", 0), TailRecord("dict://place", part, tail).to_json())
    yield
    PLACE.clear()


def test_results_from_the_sink(invoke: Invoke) -> None:
    """As those from the store."""
    found = json.loads(invoke("results").stdout)
    assert (found["task_id"], found["value"], found["job"]) == ("t", 7, "j")


def test_a_sink_that_is_away(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status is that of a store that is away: try again later."""

    def read(sink: DictSink, *_: object) -> None:
        raise SinkUnavailableError("cannot read from dict://place: away")

    monkeypatch.setattr(DictSink, "read", read)
    result = invoke("results")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "cannot read from dict://place: away" in result.stderr


def test_a_sink_that_lost_outcomes(invoke: Invoke) -> None:
    """A warning, and the others are printed."""
    PLACE.clear()
    result = invoke("results")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no block" in result.stderr
