"""Strangers write under the group's keys: that is reported, stepped over, and never fatal."""

import json

import pytest
from cluster.group import Group, NewGroup, named

from smoothcluster import Task
from smoothcluster.backend import Create, Delete, Update
from smoothcluster.errors import SmoothclusterError
from smoothcluster.jobs.chunks import digest, shard_of

JUNK = b'\xff{"not": what belongs here'
WRONG = b'{"owner": 5, "holder": [], "state": null, "name": {}}'


def spoil(group: Group, path: str, value: bytes = JUNK) -> str:
    """Write *value* under *path* of the group, over what may be there; return the key."""
    key = f"{group.name}/{path}"
    there = group.backend.get(key) is not None
    group.backend.commit([], [Update(key, value) if there else Create(key, value)])
    return key


def reported(group: Group) -> set[str]:
    """The keys that members or this client have complained of."""
    list(group.cluster.events())
    told = {str(event["key"]) for event in group.events("garbage")}
    return told | set(group.status()["garbage"])


KINDS = {"junk": JUNK, "wrong": WRONG, "empty": b"", "number": b"5", "deep": b"[" * 100_000}


@pytest.mark.parametrize("value", KINDS.values(), ids=KINDS)
def test_garbage_that_was_there_before(new_group: NewGroup, value: bytes) -> None:
    """Members form a group and do the job in spite of whatever lies in each of its directories."""
    group = new_group(lease_ttl=1.0)
    job = group.submit(100)
    paths = "members/stranger", "jobs/stranger", "tasks/3/stranger-1", "seats/0", "events/stranger/0"
    seen = {spoil(group, path, value) for path in paths}
    for path in (
        "tasks/3/stranger", "tasks/stranger/1", "seats/9", "seats/stranger", "shards/99", "shards/stranger", "jobs/a/b",
        "members/a/b", f"seen/{job.id}/3/0", f"seen/{job.id}/3/stranger", f"results/{job.id}/stranger/0",
        "quarantine/0", "breaker", "locks/stranger/0", "strange/0", "stranger",
    ):  # fmt: skip
        spoil(group, path, value)
    group.start(5)
    group.finish(job, named(100))
    group.converged()
    group.eventually(lambda: seen <= reported(group))


@pytest.mark.parametrize("value", [JUNK, b'{"runner":3,"backup":2,"shards":30000000,"joins":9,"id":""}'])
def test_garbage_in_place_of_the_numbers(group: Group, value: bytes) -> None:
    """The last good numbers stand: all members live, and do the tasks that are there."""
    members = group.start(5)
    group.converged()
    job = group.submit(40, nap=0.01)
    spec = group.backend.get(f"{group.name}/spec")
    assert spec is not None
    key = spoil(group, "spec", value)
    group.eventually(lambda: group.ended() >= 40)
    group.eventually(lambda: key in {str(event["key"]) for event in group.events("garbage")})
    assert all(member.alive for member in members)
    group.backend.commit([], [Update(key, spec.value)])
    group.finish(job, named(40))
    group.converged()


def test_garbage_where_a_handlers_results_are(group: Group) -> None:
    """What is no result is left out of the results, and reported."""
    group.start(2)
    job = group.submit(20)
    job.wait(60)
    key = spoil(group, f"results/{job.id}/3/stranger")
    other = spoil(group, f"results/{job.id}/4/stranger", WRONG)
    group.finish(job, named(20))
    assert {key, other} <= set(group.status()["garbage"])


@pytest.mark.parametrize(
    "tasks",
    [[{"id": ["x"]}], [{"id": {}}], [{"id": "x", "more": 1}], [5], {"id": "x"}, [{"id": "x", "body64": "x"}], [{}]],
)
def test_chunks_that_hold_no_tasks(new_group: NewGroup, tasks: object) -> None:
    """Text that could almost be tasks is reported, and the job goes on."""
    group = new_group(lease_ttl=1.0)
    group.start(2)
    job = group.submit(50, nap=0.02)
    key = spoil(group, f"tasks/3/{job.id}-stranger", json.dumps(tasks).encode())
    group.finish(job, named(50))
    group.eventually(lambda: key in reported(group))


def test_a_shard_that_was_overwritten(new_group: NewGroup) -> None:
    """Nobody touches it, and its tasks wait; all others are done. Once it is taken away, they are, too."""
    group = new_group(lease_ttl=1.0)
    names = named(200)
    there = {name for name in names if shard_of(digest(name), 32) == 7}
    assert there
    job = group.cluster.submit([Task(id=name) for name in names])
    key = spoil(group, "shards/7")
    group.start(5)
    group.eventually(lambda: job.progress().done == len(names) - len(there))
    assert group.status()["unassigned"] == [7]
    assert key in reported(group)
    group.backend.commit([], [Delete(key)])
    group.finish(job, names)
    group.converged()


def test_a_shard_overwritten_under_its_owner(new_group: NewGroup) -> None:
    """The owner lets go of it; the rest of the job is done."""
    group = new_group(lease_ttl=1.0)
    group.start(5)
    group.converged()
    group.submit(400, nap=0.02)
    group.progressed(50)
    spoil(group, "shards/7")
    there = sum(shard_of(digest(name), 32) == 7 for name in named(400))
    group.eventually(lambda: group.status()["tasks"]["done"] >= 400 - there)
    assert len(group.living) == 5


@pytest.mark.parametrize("backup", [0, 2])
def test_a_seat_overwritten_under_its_holder(new_group: NewGroup, backup: int) -> None:
    """It is filled again, with or without somebody to stand in."""
    group = new_group(lease_ttl=1.0, backup=backup)
    group.start(3 + backup)
    group.converged()
    job = group.submit(300, nap=0.02)
    group.busy(*group.runners())
    spoil(group, "seats/1")
    group.finish(job, named(300))
    group.converged()


def test_a_directory_where_a_seat_belongs(new_group: NewGroup) -> None:
    """Nobody can take that seat, and nobody dies of it: whoever has another works."""
    group = new_group(lease_ttl=1.0)
    key = spoil(group, "seats/2/stranger").rpartition("/")[0]
    group.start(5)
    group.finish(group.submit(100), named(100))
    group.eventually(lambda: key in reported(group))
    assert (len(group.runners()), len(group.living)) == (2, 5)


def test_a_members_record_overwritten(new_group: NewGroup) -> None:
    """It joins anew, as after any loss of its record."""
    group = new_group(lease_ttl=1.0)
    group.start(5)
    group.converged()
    job = group.submit(300, nap=0.02)
    group.busy(*group.runners())
    for key in group.backend.keys(f"{group.name}/members"):
        spoil(group, key.removeprefix(f"{group.name}/"))
    group.finish(job, named(300))
    group.converged()


def test_events_overwritten(new_group: NewGroup) -> None:
    """Members write theirs over it, and readers see the rest."""
    group = new_group(lease_ttl=1.0)
    group.start(2)
    group.eventually(lambda: len(group.events("joined")) == 2)
    for key in group.backend.keys(f"{group.name}/events"):
        for number in range(4):
            spoil(group, f"{key.removeprefix(f'{group.name}/')}/{number}")
    group.eventually(lambda: group.events("garbage"))
    group.living[0].kill()
    group.finish(group.submit(50), named(50))


def test_a_spec_that_cannot_be_read(group: Group) -> None:
    """Without its numbers there is no group: whoever would join, ask or submit is told what is wrong, and where."""
    key = spoil(group, "spec")
    for act in (group.status, lambda: group.submit(1), group.start_one):
        with pytest.raises((SmoothclusterError, AssertionError)) as caught:
            act()
        assert key in str(caught.value)
        assert "not JSON" in str(caught.value)
