"""``smoothcluster doctor`` says what a store promises, and why."""

import json
import logging
import secrets
from dataclasses import replace
from typing import final

import pytest
from cli_kit import invoke_on, one_line

from smoothcluster import connect
from smoothcluster.backend import Change, CommitSize, Committed, Condition, Refused, commit_size
from smoothcluster.cli.doctor import VERDICT_HELD, VERDICT_NOT_HELD, VERDICT_WEAKER, Measured, assess, report
from smoothcluster.cli.logs import adapter_logging_to_stderr
from smoothcluster.cli.store_limits import probe_limits
from smoothcluster.errors import OutcomeUnknownError
from smoothcluster.memory import WEAKEST, MemoryBackend, MemoryStore

MEASURED = Measured(read_ms=0.5, commit_ms=1.0, watch_ms=2.0, granted_s=10.0, shortest_s=1.0)
STRONG = replace(WEAKEST, survives_failover=True)


def test_a_store_is_tried_and_left_as_it_was() -> None:
    """The outcome is for people, or one JSON object for scripts."""
    url = f"memory://{secrets.token_hex(8)}"
    result = invoke_on(url)("doctor", url, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["url"], found["measured"]["granted_s"]) == (url, 10.0)
    assert found["measured"]["watch_ms"] is not None
    assert found["guarantees"]["linearizable_writes"] is True
    limits = {limit["name"]: limit["found"] for limit in found["limits"]}
    assert limits == {name: found["guarantees"][name] for name in limits}
    assert limits.keys() == {"largest_value", "largest_commit", "most_operations"}
    told = invoke_on(url)("doctor").stdout
    assert "leases last from 0.001 s to 86400 s" in told
    assert "the store's present history: history 0" in told
    backend = connect(url)
    assert isinstance(backend, MemoryBackend)
    assert backend.store.tree.entries == {}


@pytest.mark.parametrize(
    ("guarantees", "verdict"),
    [
        (STRONG, VERDICT_HELD),
        (WEAKEST, VERDICT_WEAKER),
        (replace(STRONG, linearizable_writes=False), VERDICT_NOT_HELD),
    ],
)
def test_what_a_store_does_not_keep_weakens_what_rests_on_it(guarantees: object, verdict: str) -> None:
    """Seats, shards and outcomes are as safe as acknowledged commits."""
    promises = {promise.what: promise.verdict for promise in assess(guarantees, MEASURED)}  # type: ignore[arg-type]  # parametrised
    rests = [verdict for what, verdict in promises.items() if what.startswith(("never more", "one "))]
    assert rests == [verdict] * 3
    assert promises["no two machines' clocks are compared"] == VERDICT_HELD


def test_watches_that_do_not_wake_are_told() -> None:
    """Members then look by themselves only."""
    (promise,) = [each for each in assess(STRONG, replace(MEASURED, watch_ms=None)) if each.verdict != VERDICT_HELD]
    assert (promise.what, promise.verdict) == ("all is taken over and finished", VERDICT_WEAKER)


def test_what_an_adapter_warns_of_weakens_what_rests_on_the_stores_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without persistence, for instance, is another one when it comes back."""
    sync = MemoryBackend.sync

    def warn(backend: MemoryBackend) -> None:
        logging.getLogger("smoothcluster.memory").warning("there is no persistence")
        sync(backend)

    monkeypatch.setattr(MemoryBackend, "sync", warn)
    found = json.loads(invoke_on("memory://")("doctor", "--json").stdout)
    assert found["warnings"] == ["there is no persistence"]
    (promise,) = [each for each in found["promises"] if each["what"] == "nothing is lost while the store is away"]
    assert (promise["verdict"], promise["why"]) == (VERDICT_WEAKER, "there is no persistence")


def test_an_adapters_warnings_are_told_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    """As the library's own are; and as long as the command lasts."""
    stranger = type("Stranger", (), {"__module__": "smoothcluster_stranger.adapter"})()
    log = logging.getLogger("smoothcluster_stranger")
    driver = logging.getLogger("smoothcluster_stranger.driver")
    driver.setLevel(logging.INFO)  # As some drivers must be kept to.
    with adapter_logging_to_stderr(stranger) as warnings:
        driver.info("connected")
        log.warning("stranger://me:secret@h is slow")
    assert warnings == ["stranger://***@h is slow"]
    told = capsys.readouterr().err
    assert "WARNING stranger://***@h is slow" in told
    assert "connected" not in told, "who wants to hear that asks for more with -v"
    assert log.handlers == []


def test_a_store_that_is_not_there_is_an_error() -> None:
    """One line."""
    assert "no backend is registered for nowhere://" in one_line(invoke_on("memory://")("doctor", "nowhere://x"), 2)


@pytest.mark.parametrize(
    ("seconds", "said"), [(40.0, "40 s"), (86_400.0, "86400 s"), (3 * 86_400.0, "3 days"), (9e9, "a year and more")]
)
def test_lease_times_are_told_as_people_say_them(seconds: float, said: str) -> None:
    """Nobody counts the seconds of a year."""
    promised = replace(STRONG, longest_ttl=seconds)
    assert f"leases last from 1 s to {said}" in report("x://", promised, MEASURED, [])


@final
class Stingy:
    """A server that takes less than the client believes, and breaks the connection, as ZooKeeper does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: CommitSize, failures: int = 0) -> None:
        self.commit = MemoryStore.commit
        self.most, self.failures = most, failures

        def commit(store: MemoryStore, conditions: list[Condition], changes: list[Change]) -> Committed | Refused:
            return self.answer(store, conditions, changes)

        monkeypatch.setattr(MemoryStore, "commit", commit)

    def answer(self, store: MemoryStore, conditions: list[Condition], changes: list[Change]) -> Committed | Refused:
        """The answer to a commit."""
        size = commit_size(conditions, changes)
        self.failures -= 1
        if size.bytes > self.most.bytes or size.operations > self.most.operations or self.failures >= 0:
            raise OutcomeUnknownError("the connection was lost")
        return self.commit(store, conditions, changes)


def test_a_server_that_takes_less_than_promised_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each limit with what the server takes, what to do, and what the store said; nothing is left in the store."""
    monkeypatch.setattr(MemoryBackend, "limits_advice", "raise its limits")
    Stingy(monkeypatch, CommitSize(200_000, 50))
    url = f"memory://{secrets.token_hex(8)}"
    result = invoke_on(url)("doctor", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    limits = {limit["name"]: limit["found"] for limit in found["limits"]}
    assert 170_000 < limits["largest_value"] < 200_000
    assert 180_000 < limits["largest_commit"] <= 200_000
    assert 48 <= limits["most_operations"] <= 50
    (promise,) = [each for each in found["promises"] if each["verdict"] == VERDICT_NOT_HELD]
    assert "raise its limits; the store said: the connection was lost" in promise["why"]
    backend = connect(url)
    assert isinstance(backend, MemoryBackend)
    assert backend.store.tree.entries == {}


def test_a_failure_while_the_limits_are_tried_is_not_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost connection may have any reason: each size is tried again."""
    store = MemoryStore()
    Stingy(monkeypatch, CommitSize(10**9, 10**9), failures=1)
    assert not any(limit.lower for limit in probe_limits(MemoryBackend(store), WEAKEST))
