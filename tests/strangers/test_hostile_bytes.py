"""Whoever can write the store can put any text there: it acts on no terminal, and no command stops at bad records."""

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from cli_kit import HOSTILE, Invoke, harmful, invoke_on
from click.testing import Result

from smoothcluster import Cluster, Task, connect
from smoothcluster.backend import CoordinationBackend, Create
from smoothcluster.records.codec import dump
from smoothcluster.records.group import Member
from smoothcluster.records.quarantine import QuarantinedTask

JOB = {"state": "sealed", "tasks": 0, "chunks": 0, "at": "", "id": ""}
"""The record of a job without tasks."""

Plant = Callable[[str, object], str]


@pytest.fixture
def name(store: str) -> Iterator[str]:
    """A group with a job "j" of one task."""
    name = f"test-{secrets.token_hex(6)}"
    with closing(connect(store)) as backend:
        Cluster(backend, name).submit([Task(id="good")], "j")
        yield name


@pytest.fixture
def backend(store: str, name: str) -> Iterator[CoordinationBackend]:
    """A client of the group's part of the store."""
    with closing(connect(store)) as backend:
        yield backend.for_group(name)


@pytest.fixture
def plant(backend: CoordinationBackend, name: str) -> Plant:
    """Write any record under the group's keys; return the key."""

    def plant(path: str, value: object) -> str:
        key = f"{name}/{path}"
        backend.commit([], [Create(key, value if isinstance(value, bytes) else dump(value))])
        return key

    return plant


@pytest.fixture
def command(store: str, name: str) -> Invoke:
    """Run a command on the group."""

    def run(*words: str, stdin: str | None = None) -> Result:
        result = invoke_on(store)(*words, "--group", name, stdin=stdin)
        assert harmful(result.output) == []
        return result

    return run


def listed(result: Result) -> list[dict[str, object]]:
    """The lines of JSON that a command printed, which are plain ASCII, and have no NaN, which other parsers refuse."""
    assert result.exit_code == 0, result.output
    assert result.stdout.isascii()
    return [json.loads(line, parse_constant=pytest.fail) for line in result.stdout.splitlines()]


def quarantined(number: str, **changes: object) -> dict[str, object]:
    """The record of a task in quarantine."""
    blame = ["a@1:process_gone", "b@2:child_exit_1@5"]
    return QuarantinedTask.of(number, "j", Task(id="t"), blame, 3, "m", 0, 2, 1.7e9).as_dict() | changes


def outcomes(*tasks: object, **changes: object) -> object:
    """A record of outcomes."""
    return {"runner": "m", "epoch": 1, "outcomes": list(tasks)} | changes


def test_no_text_of_the_store_acts_on_a_terminal(plant: Plant, command: Invoke, name: str) -> None:
    """Whatever record it stands in, and whichever command shows it; as JSON it comes out as it went in."""
    card = Member("m", "m", 1, "h", 1, "", 0, 1, True, None, "")
    plant("members/m", replace(card, name=HOSTILE, host=HOSTILE, unfit=HOSTILE, apart=False).to_json())
    plant("members/n", {HOSTILE: HOSTILE})
    plant("breaker", {HOSTILE: HOSTILE, "open": HOSTILE})
    plant("shards/3", {"owner": HOSTILE, "name": HOSTILE, HOSTILE: [HOSTILE]})
    plant("events/m/0", {"at": 1, "n": 0, "kind": HOSTILE, "member": HOSTILE, HOSTILE: [HOSTILE]})
    plant("quarantine/0.1", quarantined("0.1", task={"id": HOSTILE}, error=HOSTILE, runner=HOSTILE))
    plant("results/j/0/0", outcomes([HOSTILE, "failed", None, HOSTILE, 1], runner=HOSTILE))
    plant("results/j/0/1", outcomes(["t", "done", {HOSTILE: HOSTILE}, None, 1]))
    for words in (
        ["status"], ["results", "--format", "text"], ["quarantine", "list"], ["spec"], ["events"],
        ["submit", "http://h/"], ["wait", "j", "--timeout", "0"], ["status", "--verbose"], ["results", "--verbose"],
        ["run", HOSTILE], ["results", "--job", HOSTILE], ["quarantine", "drop", HOSTILE], ["submit", HOSTILE],
    ):  # fmt: skip
        result = command(*words)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    (status,) = listed(command("status", "--json"))
    assert HOSTILE in {member["name"] for member in status["members"]}  # type: ignore[attr-defined]  # a list
    assert HOSTILE in {event["kind"] for event in listed(command("events"))}
    assert HOSTILE in {outcome["error"] for outcome in listed(command("results"))}
    (task,) = listed(command("quarantine", "list", "--json"))
    assert task["error"] == HOSTILE


def reported(result: Result, keys: Sequence[str]) -> None:
    """Each of *keys* is told on standard error."""
    assert result.exit_code == 0, result.output
    assert [key for key in keys if f"garbage at {key}: " not in result.stderr] == []


TASKS: list[dict[str, object]] = [
    {"at": 1e300}, {"at": -1e300}, {"at": float("nan")}, {"at": float("inf")}, {"at": "soon"}, {"at": None},
    {"attempts": float("inf")}, {"attempts": "x"}, {"shard": []}, {"epoch": {}}, {"task": {}}, {"task": []},
    {"evidence": 5}, {"evidence": [{}]}, {"evidence": [5]}, {"evidence": [{"evidence": []}]}, {"evidence": {"a": 1}},
    {"job": "../x"}, {"job": 5}, {"id": "0.1"}, {"id": "../spec"}, {"error": []},
]  # fmt: skip


def test_a_bad_record_hides_no_task_in_quarantine(
    plant: Plant, command: Invoke, backend: CoordinationBackend, name: str
) -> None:
    """It is reported, and the others are listed, released and dropped. It is dropped by its id or its key."""
    plant("quarantine/0.1", quarantined("0.1"))
    bad = [plant(f"quarantine/7.{n}", quarantined(f"7.{n}") | changes) for n, changes in enumerate(TASKS)]
    bad += [plant(f"quarantine/8.{n}", value) for n, value in enumerate((b"?", b"[]", b"{}", b"[" * 9999))]
    table = command("quarantine", "list")
    reported(table, bad)
    assert [line.split()[0] for line in table.stdout.splitlines()] == ["ID", "0.1"]
    lines = command("quarantine", "list", "--json")
    reported(lines, bad)
    assert [line["id"] for line in listed(lines)] == ["0.1"]
    assert command("quarantine", "drop", "0.1").exit_code == 0
    assert command("quarantine", "list").stdout == "no task is in quarantine\n"
    *ids, by_key = bad
    for key in (ids[0], by_key):
        refusal = command("quarantine", "release", key.rpartition("/")[2])
        assert (refusal.exit_code, refusal.stdout) == (2, "")
        assert "is unreadable, so it cannot be released" in refusal.stderr.splitlines()[-1]
    assert command("quarantine", "drop", *(key.rpartition("/")[2] for key in ids), by_key).exit_code == 0
    assert backend.keys(f"{name}/quarantine") == []
    assert "no task" in command("quarantine", "drop", by_key).stderr


NOTHING: list[object] = []
EMPTY: dict[str, object] = {}

OUTCOMES: list[Any] = [
    outcomes(5), outcomes(NOTHING), outcomes(["t", "lost", None, None, 1]), outcomes(["t", NOTHING, None, None, 1]),
    outcomes(["t", "done", None, None, float("inf")]), outcomes(["t", "done", None, None, EMPTY]), outcomes(outcomes=5),
    outcomes(epoch=float("inf")), outcomes(epoch=float("nan")), outcomes(epoch=NOTHING), outcomes(outcomes="done"),
    outcomes(outcomes=None), {}, [], b"?", b"[" * 9999,
]  # fmt: skip


def test_a_bad_record_hides_no_outcome(plant: Plant, command: Invoke) -> None:
    """Nor does a job under a name that no job can have."""
    bad = [plant(f"results/j/0/{n}", value) for n, value in enumerate(OUTCOMES)]
    plant("results/j/0/last", outcomes(["good", "done", 5, None, 1], ["odd", "done", [float("inf")], None, 1]))
    bad += [plant("jobs/a+b", JOB), plant("jobs/a", b"?")]
    lines = command("results")
    reported(lines, bad)
    assert [(line["task_id"], line["value"]) for line in listed(lines)] == [("good", 5), ("odd", [None])]
    text = command("results", "--format", "text")
    reported(text, bad)
    assert text.stdout == "j\tgood\tdone\t1\tm\t5\nj\todd\tdone\t1\tm\t[null]\n"


EVENTS: list[dict[str, object]] = [
    {"at": float("nan")}, {"at": float("inf")}, {"at": "soon"}, {"at": 10**400}, {"at": None}, {"n": 10**400},
    {"n": float("nan")}, {"n": float("inf")}, {"n": None}, {"n": []}, {"n": True}, {"kind": None}, {"kind": []},
]  # fmt: skip


def test_a_bad_record_hides_no_event(plant: Plant, command: Invoke) -> None:
    """It is shown as it is, or as garbage; those before and after it come in their order."""
    for n, changes in enumerate(EVENTS):
        plant(f"events/a/{n}", {"at": 5, "n": n, "kind": "odd", "member": "a"} | changes)
    bad = [plant(f"events/b/{n}", value) for n, value in enumerate((b"?", b"[]", b"[" * 9999))]
    plant("events/c", b"?")
    for n in range(3):
        plant(f"events/d/{n}", {"at": 9 + n, "n": n, "kind": "good", "member": "d"})
    events = listed(command("events"))
    assert [event["n"] for event in events if event["kind"] == "good"] == [0, 1, 2]
    assert [event["key"] for event in events if event["kind"] == "garbage"] == bad
    assert len(events) == len(EVENTS) + len(bad) + 3


def test_a_bad_record_hides_no_member_and_no_job(plant: Plant, command: Invoke) -> None:
    """The status names it, and shows all else."""
    card = Member("good", "m", 1, "h", 1, "", 0, 1, True, None, "")
    plant("members/m", card.to_json())
    plant("members/o", replace(card, incarnation="o", name="odd", join=2**53, pid=-5, checked=2**62).to_json())
    bad = [plant(f"members/x{n}", value) for n, value in enumerate((b"?", {}, {"name": 5}, b"[" * 9999))]
    bad += [plant(path, b"?") for path in ("jobs/a", "breaker", "shards/3")] + [plant("jobs/a+b", JOB)]
    reported(command("status"), bad)
    (status,) = listed(command("status", "--json"))
    assert {"good", "odd"} == {member["name"] for member in status["members"]}  # type: ignore[attr-defined]  # a list
    assert status["garbage"].keys() == set(bad)  # type: ignore[attr-defined]  # a dict
    assert status["jobs"].keys() == {"j"}  # type: ignore[attr-defined]  # as above
    text = command("status").stdout
    assert [key for key in bad if f"garbage at {key}: " not in text] == []
