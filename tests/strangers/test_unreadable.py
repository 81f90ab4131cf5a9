"""Of a damaged record the good tasks and outcomes are saved; the job ends, and `status` says so."""

import json
from collections.abc import Callable

import pytest
from cli_kit import invoke_on
from cluster.group import Group, NewGroup

from smoothcluster import Cluster, State, Task
from smoothcluster.backend import Delete, Entry, Update
from smoothcluster.jobs.chunks import job_of
from smoothcluster.records.keys import last_part
from smoothcluster.records.shard import Shard


@pytest.fixture
def group(new_group: NewGroup) -> Group:
    """A group without members yet."""
    return new_group(runner=1, backup=0, lease_ttl=2.0)


def first_chunk(group: Group, job: str) -> Entry:
    """The first chunk of a job."""
    entries = [entry for shard in range(32) for entry in group.backend.list(f"{group.name}/tasks/{shard}")]
    return min((entry for entry in entries if job_of(last_part(entry.key)) == job), key=lambda entry: entry.key)


def spoil(value: bytes) -> bytes:
    """The second task was accepted by another version."""
    tasks = json.loads(value)
    return json.dumps([tasks[0], {"id": "spoilt", "params": {"page": 1}}, *tasks[2:]], separators=(",", ":")).encode()


def tear(value: bytes) -> bytes:
    """The second task is no JSON."""
    second = value.index(b'{"id"', 2)
    return value[: second + 3] + b"\xff" + value[second + 4 :]


def overwrite(_: bytes) -> bytes:
    """Nothing is left."""
    return b"garbage"


@pytest.mark.parametrize(("damage", "lost"), [(spoil, 1), (tear, 1), (overwrite, None)], ids=["task", "bytes", "whole"])
def test_a_damaged_chunk_takes_no_innocent_along(
    group: Group, store: str, damage: Callable[[bytes], bytes], lost: int | None
) -> None:
    """Of 300 tasks in several chunks all that can be read are done, all others failed, and the job is finished."""
    job = Cluster(group.backend, group.name).submit([Task(id=f"task-{number}") for number in range(300)])
    chunk = first_chunk(group, job.id)
    size = len(json.loads(chunk.value))
    lost = lost or size
    group.backend.commit([], [Update(chunk.key, damage(chunk.value))])
    group.start(1)
    progress = job.wait(60)
    assert (progress.done, progress.failed, progress.unreadable, progress.finished) == (300 - lost, lost, lost, True)
    failed = {outcome.task_id: outcome for outcome in job.results() if outcome.state is State.FAILED}
    name = last_part(chunk.key)
    named = ["spoilt"] if damage is spoil else [f"{name}#{index}" for index in ([1] if lost == 1 else range(size))]
    assert sorted(failed) == sorted(named)
    assert all("not readable" in str(outcome.error) for outcome in failed.values())
    status = invoke_on(store)("status", "--group", group.name)
    assert f"job {job.id}: {lost} tasks were not readable, and ended as failed" in status.output
    assert any(event["kind"] == "tasks_unreadable" for event in group.cluster.events())


def test_a_chunk_that_vanishes_while_it_is_open_takes_only_its_own_tasks(group: Group) -> None:
    """The next owner records them as failed, and the job ends."""
    group.start(1)
    job = group.submit(300, hold="gate")
    (member,) = group.runners()
    group.eventually(lambda: group.running(member))
    member.kill()
    shards = [
        (last_part(entry.key), Shard.from_json(entry.value)) for entry in group.backend.list(f"{group.name}/shards")
    ]
    number, name = next((number, name) for number, shard in shards for name in shard.open)
    group.backend.commit([], [Delete(f"{group.name}/tasks/{number}/{name}")])
    group.open("gate")
    group.start(1)
    progress = job.wait(60)
    assert (progress.done + progress.failed, progress.finished) == (300, True)
    assert progress.unreadable == progress.failed > 0


def test_a_damaged_record_of_outcomes_takes_no_good_outcome_along(group: Group, store: str) -> None:
    """One of its outcomes is nested too deeply for any reader, and another lacks a part."""
    group.start(1)
    job = group.submit(20)
    job.wait(60)
    records = [group.backend.list(f"{group.name}/results/{job.id}/{shard}") for shard in range(32)]
    record = max((entry for entries in records for entry in entries), key=lambda entry: len(entry.value))
    held = json.loads(record.value)
    deep = "[" * 99_999 + "]" * 99_999
    bad = [f'["deep","done",{deep},null,1]', '["short","done"]']
    texts = [json.dumps(each, separators=(",", ":")) for each in held["outcomes"]]
    texts[1:1] = bad
    head = json.dumps({name: held[name] for name in ("runner", "epoch")}, separators=(",", ":"))[:-1]
    group.backend.commit([], [Update(record.key, f'{head},"outcomes":[{",".join(texts)}]}}'.encode())])
    printed = invoke_on(store)("results", "--group", group.name, "--job", job.id)
    ids = {json.loads(line)["task_id"] for line in printed.stdout.splitlines()}
    assert ids == {f"task-{number}" for number in range(20)}
    assert "not readable" in printed.stderr
