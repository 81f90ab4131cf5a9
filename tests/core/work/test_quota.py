"""The bound on what handlers add to a job: nothing is refused below it, and little is added beyond it."""

from collections.abc import Iterable

import pytest
from core_kit import KEYS, Bench, decode_chunk, done, put

from smoothcluster.cluster import Cluster
from smoothcluster.errors import UnavailableError, UsageError
from smoothcluster.group.store import GroupStore
from smoothcluster.group.view import Versioned
from smoothcluster.jobs.chunks import digest
from smoothcluster.model import Task, TaskContext
from smoothcluster.pool import Run
from smoothcluster.records.shard import Shard
from smoothcluster.testing import Faulty
from smoothcluster.work.quota import READING_SECONDS, Quota

SHARDS = 4


@pytest.fixture
def bench() -> Bench:
    """A store with shards that have counted nothing."""
    return Bench(shards=SHARDS, max_tasks=1000)


@pytest.fixture
def quota(bench: Bench) -> Quota:
    """The allowances of a member."""
    return bench.context.quota


def added(bench: Bench, *counts: int, skipped: int = 0) -> None:
    """What the shards have counted."""
    for number, count in enumerate(counts):
        put(bench.backend, KEYS.shard(number), Shard(counts={"j": {"added": count, "skipped": skipped}}).to_json())


def submit(bench: Bench, count: int, max_tasks: int | None = None) -> None:
    """A job of so many tasks."""
    cluster = Cluster(bench.backend, "g", clock=bench.clock)
    cluster.submit([Task(id=str(number)) for number in range(count)], "j", max_tasks=max_tasks)


def wish(bench: Bench, quota: Quota, count: int) -> int:
    """Prepare a commit that adds so many tasks; how many may be added."""
    run = Run(Task(id="t"), TaskContext("m", "j", 0, 1, 1, bench.stopping), None)
    run.added = [Task(id=str(number)) for number in range(count)]
    quota.prepare([run])
    return quota.take("j", count)


def test_nothing_is_refused_below_the_bound(bench: Bench, quota: Quota) -> None:
    """Submitted tasks, added ones and skipped ones are counted; what is beyond is refused, and told once."""
    submit(bench, 10, 100)
    added(bench, 30, 30, 10, 10, skipped=5)
    assert wish(bench, quota, 40) == 30, "100 less 10 submitted, less 80 added, but for 20 repeats"
    added(bench, 60, 30, 10, 10, skipped=5)
    bench.clock.advance(READING_SECONDS)
    assert wish(bench, quota, 5) == 0
    assert [event["kind"] for event in bench.events] == ["tasks_refused"]


def test_a_job_has_the_bound_of_its_first_submit_or_that_of_its_members(bench: Bench, quota: Quota) -> None:
    """The second submit cannot give another."""
    submit(bench, 1)
    added(bench, 990)
    assert wish(bench, quota, 50) == 9
    with pytest.raises(UsageError, match="no max_tasks of its own since its first submit: leave max_tasks=5 out"):
        submit(bench, 1, 5)
    submit(bench, 1)
    Cluster(bench.backend, "g", clock=bench.clock).submit([], "k", max_tasks=5)
    with pytest.raises(UsageError, match="has max_tasks=5 since its first submit"):
        Cluster(bench.backend, "g", clock=bench.clock).submit([], "k", max_tasks=6)
    Cluster(bench.backend, "g", clock=bench.clock).submit([], "k", max_tasks=5)


@pytest.mark.parametrize("bound", [0, -1, 1.5, True, "5"])
def test_a_bound_that_is_none_is_refused(bench: Bench, bound: object) -> None:
    """Before anything is written."""
    with pytest.raises(UsageError, match="max_tasks must be a whole number of at least 1"):
        submit(bench, 1, bound)  # type: ignore[arg-type]
    assert bench.backend.get(KEYS.job("j")) is None


def test_far_from_the_bound_the_counts_are_seldom_read(
    bench: Bench, quota: Quota, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for a fourth of the tasks that are left, then for a fourth of the rest; a full job is read once a second."""
    readings: list[int] = []
    read = GroupStore.read_shards

    def counted(store: GroupStore, numbers: Iterable[int]) -> list[Versioned[Shard] | None]:
        readings.append(len(readings))
        return read(store, numbers)

    monkeypatch.setattr(GroupStore, "read_shards", counted)
    submit(bench, 0, 10_000)
    total = 0
    while total < 10_000:
        added(bench, total)
        total += wish(bench, quota, 10)
    assert total == 10_000
    assert len(readings) < 40
    added(bench, total)
    del readings[:]
    for _ in range(100):
        assert wish(bench, quota, 10) == 0
    assert len(readings) <= 1


def test_an_old_reading_is_none(bench: Bench, quota: Quota) -> None:
    """Others may have added what was left."""
    submit(bench, 0, 10_000)
    assert wish(bench, quota, 1) == 1
    added(bench, 0, 10_000)
    bench.clock.advance(READING_SECONDS)
    assert wish(bench, quota, 1) == 0
    added(bench, 0, 10_000, skipped=1)
    bench.clock.advance(READING_SECONDS)
    assert wish(bench, quota, 5) == 4 - 2, "the skipped repeats of two shards have made room"


def test_refused_tasks_are_counted_and_not_written() -> None:
    """The outcome of the task that added them is recorded; they were never sent, so they may come again."""
    bench = Bench(max_tasks=5)
    bench.chunk("j-0", "a", "b")
    put(bench.backend, KEYS.job("j"), b'{"state":"sealed","tasks":2,"chunks":1,"at":"","id":""}')
    work = bench.own()
    first, second = bench.start(work)
    for run, count in ((first, 2), (second, 4)):
        work.finish(done(run, *[Task(id=f"{run.task.id}-{number}") for number in range(count)]), 0.0)
    bench.commit(work)
    assert bench.read().record.counts == {"j": {"done": 2, "added": 3, "refused": 3}}
    chunks = [decode_chunk(entry.value) for entry in bench.backend.list(KEYS.tasks(0))]
    assert [task.id for chunk in chunks for task in chunk] == ["a-0", "a-1", "b-0"]
    assert ("j", digest("b-0")) in bench.context.sent
    assert ("j", digest("b-1")) not in bench.context.sent


def test_a_store_that_is_away_changes_nothing() -> None:
    """The commit is built once the counts can be read."""
    bench = Bench(max_tasks=5)
    bench.chunk("j-0", "a")
    work = bench.own()
    (run,) = bench.start(work)
    work.finish(done(run, Task(id="b")), 0.0)
    before = work.record.copy()
    faulty = Faulty(bench.backend)
    bench.context.store.backend = faulty
    faulty.cut()
    with pytest.raises(UnavailableError):
        work.prepare(0, 0.0)
    assert (work.record, len(work.news.finished)) == (before, 1)
    faulty.mend()
    bench.commit(work)
    assert bench.read().record.counts == {"j": {"done": 1, "added": 1}}
