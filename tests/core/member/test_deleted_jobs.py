"""A job that a client deletes: everything of it goes but for the tombstone, whoever dies half-way."""

import re
from collections.abc import Callable, Iterator, Sequence

import pytest
from core_kit import KEYS, Group, done, failed, limits

from smoothcluster.backend import Change, Committed, Condition, Create, Refused
from smoothcluster.cluster import Cluster
from smoothcluster.errors import JobClosedError, OutcomeUnknownError, UnavailableError, UsageError
from smoothcluster.jobs.deletion import Step
from smoothcluster.jobs.handle import JobHandle
from smoothcluster.member.loop import MemberLoop
from smoothcluster.memory import MemoryBackend
from smoothcluster.model import Task
from smoothcluster.records.quarantine import QuarantinedTask


def submit(group: Group, count: int = 8, job: str = "j", patience: float = 1.0) -> Cluster:
    """A job of so many tasks."""
    cluster = Cluster(group.backend, "g", clock=group.clock, patience=patience)
    cluster.submit([Task(id=f"{job}{number}") for number in range(count)], job)
    return cluster


def left(group: Group, job: str = "j") -> list[str]:
    """The keys of the store that name the job, and those of records that do."""
    entries = group.store.tree.entries.items()
    name = re.compile(rf"(/{job}(-|/|$))|(\"{job}[-\"])")
    return sorted(key for key, entry in entries if name.search(key) or name.search(entry.value.decode("latin-1")))


def delete(job: JobHandle, act: Callable[[], object] = lambda: None, most: int = 200) -> int:
    """Delete *job*, and let the members act where the deletion waits; return the number of steps."""
    count = 0
    for count, step in enumerate(job.deletion(), 1):  # it is returned
        assert count < most, step
        if step.wait:
            act()
    return count


def finished(group: Group, loop: MemberLoop, *, failing: int = 0) -> JobHandle:
    """A job that is done."""
    cluster = submit(group)
    group.turn(loop)
    pool = group.pool(loop)
    while not cluster.job("j").progress().finished:
        runs = list(pool.start())
        pool.started.clear()
        pool.finished.extend([*map(failed, runs[:failing]), *map(done, runs[failing:])])
        group.turn(loop)
    return cluster.job("j")


def test_a_finished_job_leaves_a_tombstone() -> None:
    """It has the sums, and takes no tasks; progress is told, outcomes are gone."""
    group = Group()
    loop = group.member()
    job = finished(group, loop)
    before = job.progress()
    delete(job, lambda: group.turn(loop))
    assert left(group) == [KEYS.job("j")]
    assert (job.progress(), job.progress().state) == (before, "deleted")
    assert job.wait(timeout=0) == before
    with pytest.raises(UsageError, match="job 'j' is deleted: its outcomes are gone"):
        list(job.results())
    with pytest.raises(JobClosedError, match="job 'j' is deleted and takes no more tasks"):
        submit(group)
    assert Cluster(group.backend, "g").jobs() == {"j": "deleted"}
    before_again = dict(group.store.tree.entries)
    job.delete()
    job.cancel()
    assert dict(group.store.tree.entries) == before_again


@pytest.mark.promise(3)
def test_an_open_job_is_cancelled_first() -> None:
    """What runs ends before anything is removed."""
    group = Group()
    loop = group.member()
    cluster = submit(group, 1000)
    group.turn(loop)
    pool = group.pool(loop)
    runs = [pool.waiting.popleft()]
    states: list[str] = []

    def act() -> None:
        states.append(cluster.jobs()["j"])
        group.turn(loop)
        if len(states) == 5:
            pool.finished.extend(map(done, runs))
            group.turn(loop)

    delete(cluster.job("j"), act)
    assert states[:5] == ["cancelling"] * 5
    assert left(group) == [KEYS.job("j")]
    assert (cluster.job("j").progress().done, cluster.job("j").progress().cancelled) == (1, 999)
    submit(group, 2, "k")
    group.turn(loop)
    assert [run.context.job for run in pool.start()] == ["k"] * 2


def test_shards_without_an_owner_are_tidied_by_the_client() -> None:
    """Everybody has left before they could."""
    group = Group()
    loop = group.member()
    job = finished(group, loop)
    assert any(read is not None and read.record.counts for read in group.view().shards)
    loop.inbox.leaving.set()
    loop.run()
    delete(job)
    assert left(group) == [KEYS.job("j")]
    again = group.member("again")
    submit(group, 2, "k")
    group.turn(again)
    assert len(group.pool(again).start()) == 2


def test_a_dead_owners_shards_are_tidied_by_the_client() -> None:
    """The owner comes back too late: its commits are refused."""
    group = Group()
    loop = group.member()
    job = finished(group, loop)
    submit(group, 1, "k")
    group.turn(loop)
    group.pool(loop).start()
    group.clock.advance(group.ttl + 1)
    delete(job)
    assert left(group) == [KEYS.job("j")]
    group.pool(loop).finish()
    group.turn(loop)
    assert left(group) == [KEYS.job("j")]


def test_without_members_an_open_job_is_cancelled_and_the_error_says_so() -> None:
    """The next call, with a member, deletes it."""
    group = Group()
    loop = group.member()
    cluster = submit(group)
    loop.close()
    group.clock.advance(group.ttl + 1)
    with pytest.raises(UnavailableError, match="8 tasks of job 'j' wait for members, and group 'g' has none"):
        delete(cluster.job("j"), lambda: group.clock.advance(0.5))
    again = group.member("again")
    delete(cluster.job("j"), lambda: group.turn(again))
    assert left(group) == [KEYS.job("j")]
    assert group.pool(again).start() == []


def steps_of(group: Group, loop: MemberLoop, job: JobHandle) -> Iterator[Step]:
    """The steps of a deletion in which the members act."""
    for step in job.deletion():
        yield step
        group.turn(loop)


@pytest.mark.parametrize("dies_after", range(12))
def test_a_deletion_that_was_interrupted_is_completed_by_the_next_call(dies_after: int) -> None:
    """Wherever it was; meanwhile nobody reads outcomes as if they were all."""
    group = Group(guarantees=limits(most_operations=4))
    loop = group.member()
    job = finished(group, loop)
    for number, _ in enumerate(steps_of(group, loop, job)):
        if number == dies_after:
            with pytest.raises(UsageError, match="job 'j' is deleting"):
                list(job.results())
            break
    delete(job, lambda: group.turn(loop))
    assert left(group) == [KEYS.job("j")]


@pytest.mark.parametrize("answer", ["lost", "late"])
def test_a_deletion_goes_on_after_commits_without_an_answer(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they have happened or not."""
    group = Group(guarantees=limits(most_operations=4))
    loop = group.member()
    finished(group, loop)

    backend, count = MemoryBackend(group.store), iter(range(1000))
    commit = backend.commit

    def flaky(conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        unlucky = next(count) % 2 == 0
        if unlucky and answer == "lost":
            raise OutcomeUnknownError("no answer")
        result = commit(conditions, changes)
        if unlucky:
            raise OutcomeUnknownError("no answer")
        return result

    monkeypatch.setattr(backend, "commit", flaky)
    cluster = Cluster(backend, "g")
    delete(cluster.job("j"), lambda: group.turn(loop))
    assert left(group) == [KEYS.job("j")]


@pytest.mark.promise(3)
def test_a_late_commit_of_a_deletion_meets_no_other_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store goes back to before the end of the job, when the deletion's commits are still under way."""
    group = Group()
    loop = group.member()
    job = finished(group, loop)
    past = group.store.past()
    sent: list[tuple[Sequence[Condition], Sequence[Change]]] = []
    commit = group.backend.commit

    def spy(conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        sent.append((conditions, changes))
        return commit(conditions, changes)

    monkeypatch.setattr(group.backend, "commit", spy)
    delete(job, lambda: group.turn(loop))
    monkeypatch.undo()
    late = [each for each in sent if any("/results/" in change.key for change in each[1])]
    assert late
    group.store.go_back(past)
    assert all(isinstance(group.backend.commit(*each), Refused) for each in late)
    delete(job, lambda: group.turn(loop))
    assert left(group) == [KEYS.job("j")]


def test_a_reader_of_outcomes_is_told_of_the_deletion() -> None:
    """It has read a part, and must not take that for all."""
    group = Group()
    loop = group.member()
    job = finished(group, loop)
    reader = job.results()
    next(reader)
    delete(job, lambda: group.turn(loop))
    with pytest.raises(UsageError, match="job 'j' is deleted: its outcomes are gone"):
        list(reader)


def test_tasks_in_quarantine_go_with_their_job() -> None:
    """Those of other jobs stay."""
    group = Group()
    loop = group.member()
    job = finished(group, loop)
    for number, name in (("1", "j"), ("2", "k")):
        record = QuarantinedTask.of(number, name, Task(id="t"), [], 1, "m", 0, 1, 0.0)
        group.backend.commit([], [Create(KEYS.quarantined(number), record.to_json())])
    delete(job, lambda: group.turn(loop))
    assert group.backend.keys(KEYS.quarantine) == [KEYS.quarantined("2")]
