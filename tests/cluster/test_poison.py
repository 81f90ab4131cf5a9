"""Tasks that kill: each costs one member at most, is quarantined with its evidence, and takes no other with it."""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from cluster.group import Group, NewGroup, meanwhile, named
from cluster.handlers import HOG, START
from cluster.stores import Store

from smoothcluster import Evidence, JobHandle, Outcome, State, Task
from smoothcluster.clock import SYSTEM_CLOCK

GOOD = 200


def submit(group: Group, *poisons: str, good: int = GOOD, nap: float = 0.02) -> tuple[JobHandle, set[str]]:
    """Tasks that nap, with some among them that die so; and the names of all."""
    tasks = [Task(id=name, meta={"nap": nap}) for name in named(good, "good")]
    for how in poisons:
        tasks.insert(len(tasks) // 2, Task(id=f"bad-{how}", meta={"dies": how, "nap": nap}))
    return group.cluster.submit(tasks), {task.id for task in tasks}


def is_convicted(group: Group, job: JobHandle, names: set[str]) -> list[Outcome]:
    """All that is bad is quarantined, with evidence that names starts that were made; all else is done."""
    outcomes = group.finish(job, names)
    bad = [outcome for outcome in outcomes if outcome.state is not State.DONE]
    assert {outcome.task_id for outcome in bad} == {name for name in names if name.startswith("bad")}
    assert {outcome.state for outcome in bad} <= {State.QUARANTINED}
    kept = {each.task.id: each for each in group.cluster.quarantine()}
    assert kept.keys() == {outcome.task_id for outcome in bad}
    for outcome in bad:
        condemned = kept[outcome.task_id]
        assert (condemned.error, condemned.attempts) == (outcome.error, outcome.attempts)
        epochs = {line.epoch for line in group.log() if line.task == outcome.task_id and line.what == START}
        # One whose member died just after it was marked may not have begun; what a child died of has.
        in_children = [each for each in condemned.evidence if str(each["evidence"]).startswith("child_")]
        assert condemned.evidence
        assert {each["epoch"] for each in in_children} <= epochs
        assert {each["incarnation"] for each in in_children} <= {each["incarnation"] for each in group.events("joined")}
        assert all(each["at"] for each in condemned.evidence if each["evidence"] != Evidence.LEFT)
    return bad


def kill(pid: int) -> None:
    """SIGKILL, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def killing_children(group: Group) -> Iterator[int]:
    """Kill a child of some member at each step."""
    while True:
        pids = [pid for member in group.living for pid in member.children()]
        if pids:
            kill(random.choice(pids))
        yield len(pids)


def killing_hogs(group: Group) -> Iterator[int]:
    """Kill whoever has most memory, as the kernel would if there were no more."""
    while True:
        for pid in [each for member in group.living for each in (member.pid, *member.children())]:
            with suppress(OSError, IndexError):
                if int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 > HOG:
                    kill(pid)
        yield 0


@pytest.mark.promise(5)
@pytest.mark.parametrize(
    ("how", "concurrency", "handler"),
    [
        pytest.param("exit", 1, "act", marks=pytest.mark.quick),
        pytest.param("segfault", 8, "act_async", marks=pytest.mark.long),
        ("kill", 8, "act"),
    ],
)
def test_a_task_that_kills(new_group: NewGroup, how: str, concurrency: int, handler: str) -> None:
    """It is quarantined, 200 others are done, one member of four is dead; in both shapes."""
    shape = {"runner": 4, "backup": None} if how == "exit" else {"runner": 3, "backup": 1}
    group = new_group(concurrency=concurrency, handler=handler, **shape)
    group.start(4)
    job, names = submit(group, how)
    (bad,) = is_convicted(group, job, names)
    assert group.dead == 1
    assert "process_gone" in (bad.error or "")
    group.eventually(lambda: [event["task"] for event in group.events("quarantined")] == [f"bad-{how}"])
    group.eventually(lambda: any(f"bad-{how}" in event["tasks"] for event in group.events("suspect")))
    group.converged()


@pytest.mark.promise(5)
@pytest.mark.long
def test_a_task_that_eats_all_memory(new_group: NewGroup) -> None:
    """Whatever the kernel kills for it, it is the one that is quarantined."""
    group = new_group(runner=3, backup=1)
    group.start(4)
    job, names = submit(group, "hog", good=50)
    with meanwhile(killing_hogs(group), 0.05):
        is_convicted(group, job, names)
    assert group.dead == 1


@pytest.mark.promise(5)
def test_a_handler_that_no_child_can_import(new_group: NewGroup) -> None:
    """Its suspects run alone in a member, so it costs two; and `status` says so beforehand."""
    group = new_group(runner=3, backup=1, handler="bound_act")
    group.start(4)
    assert {each["suspects"] for each in group.status()["members"]} == {"alone"}
    job, names = submit(group, "exit")
    is_convicted(group, job, names)
    assert group.dead <= 2


@pytest.mark.promise(5)
def test_suspects_that_are_innocent(new_group: NewGroup) -> None:
    """Thousands that ran with what killed are done soon, and where it failed for being in a child, once more."""
    group = new_group(runner=1, backup=1)
    group.start(2)
    group.converged()
    victim, heir = group.runners()[0], group.backups()[0]
    job = group.cluster.submit([Task(id=name) for name in named(6000, "good")])
    group.progressed(500)
    victim.kill()
    group.finish(job, named(6000, "good"))
    assert heir.alive


@pytest.mark.promise(5)
def test_the_whole_group_is_killed_with_a_task_half_convicted(new_group: NewGroup) -> None:
    """The next group goes on with it, and loses nobody; with coroutines, too, and with a crash."""
    group = new_group(runner=2, backup=1, lease_ttl=1.0, handler="act_async")
    group.start(3)
    job, names = submit(group, "segfault", good=50)
    group.eventually(lambda: group.events("suspect"))
    for member in group.living:
        member.kill_group()
    fresh = group.start(3)
    is_convicted(group, job, names)
    assert all(member.alive for member in fresh)


@pytest.mark.promise(5)
def test_two_outages_of_the_store(new_group: NewGroup, own_store: Store) -> None:
    """What is known of a task survives them, and no second member dies of it."""
    group = new_group(own_store.url, runner=2, backup=2, lease_ttl=1.0)
    group.start(4)
    job, names = submit(group, "exit", good=50)
    group.eventually(lambda: group.events("suspect"))
    for _ in range(2):
        own_store.kill()
        since = SYSTEM_CLOCK.monotonic()
        group.eventually(lambda since=since: SYSTEM_CLOCK.monotonic() > since + 1.2)  # type: ignore[misc]  # a default
        own_store.start()
        group.eventually(lambda: all(each["running"] for each in group.status()["members"]))
    is_convicted(group, job, names)
    assert group.dead == 1


@pytest.mark.promise(5)
def test_children_killed_from_outside(new_group: NewGroup) -> None:
    """Innocent suspects whose children are killed again and again are done in the end."""
    group = new_group(runner=1, backup=1)
    group.start(2)
    group.converged()
    victim, heir = group.runners()[0], group.backups()[0]
    job = group.submit(8, "good", hold="gate")
    group.busy(victim, tasks=8)
    victim.kill()
    kills = 0
    for _ in range(3):
        pids = group.eventually(heir.children)
        for pid in pids:
            kill(pid)
        kills += len(pids)
        group.eventually(lambda pids=pids: not set(pids) & set(heir.children()))  # type: ignore[misc]  # a default
    group.open("gate")
    group.finish(job, named(8, "good"))
    assert kills >= 3
    assert heir.alive


@pytest.mark.long
def test_no_child_outlives_its_member(new_group: NewGroup) -> None:
    """Not even one that is busy, when the member's process group is killed."""
    group = new_group(runner=1, backup=2, isolation={}, concurrency=2, lease_ttl=1.0)
    first = group.start_one()
    job = group.submit(4, hold="gate")
    group.busy(first, tasks=2)
    pids = first.children()
    assert len(pids) >= 2
    first.kill_group()
    group.eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    group.start(2)
    group.open("gate")
    group.finish(job, named(4))


@pytest.mark.promise(5)
@pytest.mark.quick
def test_isolation(new_group: NewGroup) -> None:
    """A task that kills costs a child, and no member; innocent ones whose children are killed are done."""
    group = new_group(runner=2, backup=1, isolation={}, concurrency=4)
    group.start(3)
    job, names = submit(group, "exit", "segfault", good=100, nap=0.05)
    with meanwhile(killing_children(group), 0.25):
        is_convicted(group, job, names)
    assert group.dead == 0


def test_a_task_that_takes_too_long_or_too_much(new_group: NewGroup) -> None:
    """It is failed, and the reason given; the others are done."""
    group = new_group(runner=1, backup=0, concurrency=2, isolation={"timeout": 1.5, "memory": HOG // 2})
    group.start(1)
    tasks = [
        Task(id="slow", meta={"nap": 60}),
        Task(id="hog", meta={"dies": "hog"}),
        *(Task(id=name) for name in named(20)),
    ]
    outcomes = {each.task_id: each for each in _results(group, group.cluster.submit(tasks))}
    assert (outcomes["slow"].state, outcomes["hog"].state) == (State.FAILED, State.FAILED)
    assert "its timeout of 1.5 seconds" in (outcomes["slow"].error or "")
    assert outcomes["hog"].error == "MemoryError (more than the memory limit of a task allows)"
    assert {outcomes[name].state for name in named(20)} == {State.DONE}
    assert group.dead == 0


def _results(group: Group, job: JobHandle) -> list[Outcome]:
    job.wait(60)
    return list(job.results())


@pytest.mark.promise(5)
@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(20))
def test_chaos(new_group: NewGroup, seed: int) -> None:
    """Poisons of all kinds, in members that are killed and started again, with their children: none innocent falls."""
    random.seed(seed)
    group = new_group(runner=3, backup=1, lease_ttl=1.0, isolation=random.choice((None, dict[str, float]())))
    group.start(4)
    job, names = submit(group, "exit", "segfault", "kill", nap=0.1)

    def chaos() -> Iterator[None]:
        children = killing_children(group)
        for step in count():
            for _ in range(4 - len(group.living)):
                group.spawn()
            if step < 40:
                victim = random.choice(group.living)
                random.choice((victim.kill, victim.kill_group, lambda: next(children), lambda: next(children)))()
            yield

    with meanwhile(chaos(), 0.5):
        is_convicted(group, job, names)
