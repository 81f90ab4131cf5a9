"""A store that loses what it had acknowledged: the group notices, says so, and runs again what was lost."""

from collections.abc import Iterator

import pytest
from core.by_hand import work_off
from core_kit import KEYS, Bench, Group, done, put, store_of

from smoothcluster.backend import AtVersion, Committed, Create, Delete, Refused, Update
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.cluster import Cluster
from smoothcluster.errors import OutcomeUnknownError, UnavailableError
from smoothcluster.jobs.progress import mark_finished
from smoothcluster.member.loop import MemberLoop
from smoothcluster.memory import MemoryBackend, MemoryStore
from smoothcluster.model import Task
from smoothcluster.records.codec import load
from smoothcluster.testing import Faulty, HeldClock

TASKS = 12


def submit(group: Group, count: int = TASKS) -> Cluster:
    """A job ``j`` of so many tasks."""
    cluster = Cluster(group.backend, "g", clock=group.clock)
    cluster.submit([Task(id=f"t{number}") for number in range(count)], "j")
    return cluster


def work_off_with_link(group: Group, loop: MemberLoop) -> None:
    """As `work_off`, but ``t0`` adds a task called ``link``."""
    for _ in range(30):
        group.turn(loop, times=1)
        pool = group.pool(loop)
        links = [done(run, *([Task(id="link")] if run.task.id == "t0" else [])) for run in pool.start()]
        pool.started.clear()
        pool.finished.extend(links)
        group.clock.advance(0.05)
        group.renew(loop)


def recorded(cluster: Cluster) -> list[str]:
    """The ids of all outcomes, repeats and all."""
    return sorted(each.task_id for each in cluster.job("j").results())


def wanted(count: int = TASKS) -> list[str]:
    """The ids of what `submit` submits."""
    return sorted(f"t{number}" for number in range(count))


def doubts(group: Group, name: str = "m_0") -> list[dict[str, object]]:
    """The events of kind ``doubt``, in the order in which they were noted."""
    events = [load(entry.value) for entry in group.backend.list(KEYS.events(name))]
    return [event for event in sorted(events, key=lambda each: each["n"]) if event["kind"] == "doubt"]


# What the group makes of it


@pytest.mark.promise(3)
def test_what_was_recorded_and_lost_is_run_again() -> None:
    """Though its owner had nothing more to do: it looks, and believes the store."""
    group = Group()
    loop = group.member()
    cluster = submit(group)
    group.turn(loop)
    past = group.store.past()
    work_off(group, loop)
    assert recorded(cluster) == wanted()
    group.store.go_back(past)
    assert recorded(cluster) == []
    work_off(group, loop)
    assert recorded(cluster) == wanted()
    assert cluster.job("j").progress().finished
    assert "handover" not in group.kinds("m_0")
    assert {each.epoch for each in cluster.job("j").results()} == {2}, "what is begun again is under another epoch"


def test_it_is_told_what_is_in_doubt() -> None:
    """Of each shard, how many commits were acknowledged and how many are left; and which are whole."""
    group = Group(shards=2)
    loop = group.member()
    submit(group)
    group.turn(loop)
    past = group.store.past()
    work_off(group, loop)
    last = {n: read.record.seq for n, read in enumerate(group.view().shards) if read is not None}
    group.store.go_back(past)
    kept = {n: read.record.seq for n, read in enumerate(group.view().shards) if read is not None}
    assert last != kept
    work_off(group, loop, rounds=4)
    (doubt,) = doubts(group)
    assert doubt["shards"] == {str(n): {"kept": kept[n], "acknowledged": last[n]} for n in last if last[n] != kept[n]}
    assert doubt["whole"] == [n for n in last if last[n] == kept[n]]
    assert (doubt["store"], doubt["member"]) == ("history 1", "m_0")


def test_where_nothing_was_lost_nothing_is_run_again() -> None:
    """What runs meanwhile is recorded by the one that ran it, once."""
    group = Group()
    loop = group.member()
    cluster = submit(group)
    group.turn(loop)
    assert group.pool(loop).start()
    group.store.go_back(group.store.past())
    work_off(group, loop)
    assert recorded(cluster) == wanted()
    assert {(each.attempts, each.epoch) for each in cluster.job("j").results()} == {(1, 1)}
    assert [(doubt["shards"], doubt["whole"]) for doubt in doubts(group)] == [({}, [0, 1, 2, 3])]


def test_a_start_that_is_still_in_the_store_is_counted() -> None:
    """The marks are there, the outcomes are not: each of those tasks is started for the second time."""
    group = Group(shards=1)
    loop = group.member()
    cluster = submit(group, 2)
    group.turn(loop)
    past = group.store.past()
    group.pool(loop).finish()
    group.clock.advance(0.1)
    group.turn(loop)
    group.store.go_back(past)
    work_off(group, loop)
    assert {each.attempts for each in cluster.job("j").results()} == {2}


@pytest.mark.promise(3)
def test_a_commit_based_on_what_was_lost_is_refused() -> None:
    """It was built on the old history, of which the shard's own record is left as it was, and more is not."""
    group = Group(shards=1)
    flaky = Faulty(MemoryBackend(group.store))
    loop = group.member(backend=flaky)
    group.turn(loop)
    past = group.store.past()
    cluster = submit(group, 2)
    flaky.refuse()
    group.turn(loop)  # It has read the chunk and would admit it, and cannot send that.
    group.store.go_back(past)
    cluster.submit([Task(id="other")], "j")  # Under the chunk's very name, perhaps.
    work_off(group, loop)
    assert recorded(cluster) == ["other"]
    assert cluster.job("j").progress().finished
    assert "fenced" not in group.kinds("m_0")


def test_what_was_read_and_is_lost_is_not_admitted() -> None:
    """A shard that is whole goes on, with what others have for it now, not with what they had."""
    bench = Bench()
    work = bench.own()
    past = bench.store.past()
    bench.chunk("j-a", "lost")
    work.backlog.fill(1)
    assert work.backlog.promising()
    bench.store.go_back(past)
    bench.chunk("j-a", "new")
    assert work.carry_on(bench.read())
    assert [run.task.id for run in bench.start(work)] == ["new"]


def test_a_job_that_is_not_finished_any_more_is_not_forgotten() -> None:
    """That it was may be among what was lost."""
    bench = Bench()
    work = bench.own()
    work.forget("j", [])
    bench.store.go_back(bench.store.past())
    assert work.carry_on(bench.read())
    assert work.quiet()


def test_a_shard_with_an_unsettled_commit_is_left_to_that_commit() -> None:
    """Whether it was applied is for the store to say, once it is sent again."""
    bench = Bench()
    work = bench.own()
    bench.chunk("j-a", "t")
    work.backlog.fill(1)
    assert work.prepare(1, 0.0) is not None
    bench.store.go_back(bench.store.past())
    assert not work.carry_on(bench.read())


def test_a_link_that_was_sent_and_lost_is_sent_again() -> None:
    """The memory of what was sent ends with the history in which it was."""
    group = Group(shards=2)
    loop = group.member()
    cluster = submit(group, 1)
    group.turn(loop)
    past = group.store.past()

    work_off_with_link(group, loop)
    assert recorded(cluster) == ["link", "t0"]
    group.store.go_back(past)
    work_off_with_link(group, loop)
    assert recorded(cluster) == ["link", "t0"]
    assert cluster.job("j").progress().finished


def test_a_link_sent_under_a_claim_that_was_lost_is_sent_again() -> None:
    """The claim is made again, under the very epoch of the one that was lost, and the same task runs again."""
    group = Group(shards=2)
    loop = group.member()
    cluster = submit(group, 1)
    group.turn(loop)
    group.store.go_back(group.store.past())
    past = group.store.past()

    for number in range(2, 5):
        work_off_with_link(group, loop)
        assert recorded(cluster) == ["link", "t0"]
        group.store.go_back(past)
        epochs = [read.record.epoch for read in group.view().shards if read is not None]
        assert max(epochs) < number
    work_off_with_link(group, loop)
    assert recorded(cluster) == ["link", "t0"]
    assert cluster.job("j").progress().finished


def test_a_job_that_vanishes_while_its_books_are_read_is_not_finished() -> None:
    """It was listed, and then the store has lost it."""
    group = Group()
    past = group.store.past()
    submit(group)
    read = group.view().spec.record
    group.store.go_back(past)
    assert not mark_finished(store_of(group.backend), "j", read)


def test_a_commit_whose_answer_was_lost_with_a_part_of_the_past() -> None:
    """It was applied and is kept: the tasks it started are run, and what else was read is read again."""
    group = Group(shards=1)
    flaky = Faulty(MemoryBackend(group.store))
    loop = group.member(backend=flaky)
    group.turn(loop)
    cluster = submit(group, 2)
    flaky.drop_answer()
    loop.step()
    past = group.store.past()
    put(group.backend, KEYS.chunk(0, "j-lost"), b"[]")
    group.store.go_back(past)
    work_off(group, loop)
    assert recorded(cluster) == ["t0", "t1"]
    assert {each.attempts for each in cluster.job("j").results()} == {1}


def test_a_claim_that_was_lost_is_made_again() -> None:
    """Its shards are the dead one's again, who is known to be dead."""
    group = Group(runner=1, backup=1)
    first, second = group.member(), group.member()
    cluster = submit(group)
    group.turn(first, second)
    past = group.store.past()
    assert first.life is not None
    second.inbox.proved_gone(first.life.id)
    work_off(group, second)
    assert recorded(cluster) == wanted()
    group.store.go_back(past)
    work_off(group, second)
    assert recorded(cluster) == wanted()
    assert group.owners() == ["m_1"] * 4


def test_a_member_of_whom_the_store_knows_nothing_joins_anew() -> None:
    """Its joining was lost, and its lease with it."""
    group = Group(runner=2)
    first = group.member()
    group.turn(first)
    past = group.store.past()
    second = group.member()
    work_off(group, first, second, rounds=4)
    before = second.life
    group.store.go_back(past)
    cluster = submit(group)
    work_off(group, first, second)
    assert second.life is not before
    assert "lease_lost" in group.kinds("m_1")
    assert recorded(cluster) == wanted()
    assert sorted(map(str, group.owners())) == ["m_0", "m_0", "m_1", "m_1"]


def test_a_shard_that_moves_meanwhile_is_not_claimed_by_its_former_owner() -> None:
    """It was given away, and the last look is older than that: no reason to take it for lost."""
    group = Group(runner=2, backup=1)
    first, second, third = group.member(), group.member(), group.member()
    work_off(group, first, second, third, rounds=6)
    assert second.life is not None
    third.inbox.proved_gone(second.life.id)
    first.inbox.proved_gone(second.life.id)
    work_off(group, third, first, rounds=3)
    assert doubts(group) == []


# Those who hand in tasks


class Shaky(Iterator[Task]):
    """Tasks; the store goes back to where it was before the third is asked for."""

    def __init__(self, group: Group) -> None:
        self._group, self._past, self._count = group, group.store.past(), 0

    def __next__(self) -> Task:
        self._count += 1
        if self._count == 3:
            self._group.store.go_back(self._past)
        if self._count > 4:
            raise StopIteration
        return Task(id=f"t{self._count}")


def test_tasks_that_can_be_gone_through_once_are_not_taken_for_submitted() -> None:
    """The error says what to do; that completes the job."""
    group = Group()
    loop = group.member()
    cluster = Cluster(group.backend, "g", clock=group.clock)
    with pytest.raises(OutcomeUnknownError, match="Submit the same tasks to the same job again"):
        cluster.submit(Shaky(group), "j")
    cluster.submit([Task(id=f"t{number}") for number in range(1, 5)], "j")
    work_off(group, loop)
    assert recorded(cluster) == ["t1", "t2", "t3", "t4"]


def test_a_list_of_tasks_is_submitted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the library itself, as long as the job is not sealed."""
    group = Group()
    loop = group.member()
    cluster = Cluster(group.backend, "g", clock=group.clock)
    past, commit, seen = group.store.past(), MemoryStore.commit, list[object]()

    def forgetful(store: MemoryStore, *args: object) -> object:
        answer = commit(store, *args)  # type: ignore[arg-type]  # handed on as it came
        seen.append(answer)
        if len(seen) == 2:  # The job's record, and then its tasks.
            store.go_back(past)
        return answer

    monkeypatch.setattr(MemoryStore, "commit", forgetful)
    cluster.submit([Task(id=f"t{number}") for number in range(TASKS)], "j")
    monkeypatch.undo()
    work_off(group, loop)
    assert recorded(cluster) == wanted()


# The store in memory, as it loses commits


def test_no_version_of_before_holds_afterwards() -> None:
    """Not even of a key that nothing was lost of, nor of one that is made again."""
    backend = MemoryBackend()
    backend.commit([], [Create("a/kept", b"1"), Create("a/gone", b"1")])
    past = backend.store.past()
    answer = backend.commit([], [Delete("a/gone"), Create("a/new", b"1"), Update("a/kept", b"2")])
    assert isinstance(answer, Committed)
    before = backend.history()
    backend.store.go_back(past)
    assert backend.history() != before
    assert [(each.key, each.value) for each in backend.list("a")] == [("a/gone", b"1"), ("a/kept", b"1")]
    for version in ("0", answer.versions["a/kept"]):
        assert backend.commit([AtVersion("a/kept", version)], [Delete("a/gone")]) == Refused("a/kept")
    again = backend.commit([], [Create("a/new", b"1")])
    assert isinstance(again, Committed)
    assert again.versions["a/new"] != answer.versions["a/new"]


def test_leases_of_before_get_their_full_time_again() -> None:
    """One granted since is gone."""
    clock = HeldClock()
    backend = MemoryBackend(clock=clock)
    early = backend.lease(10.0)
    backend.commit([], [Create("a/b", b"", early)])
    past = backend.store.past()
    clock.advance(9.0)
    late = backend.lease(10.0)
    backend.store.go_back(past)
    clock.advance(9.0)
    assert (early.renew(), late.renew()) == (True, False)
    clock.advance(11.0)
    assert backend.get("a/b") is None


def test_everybody_who_watches_is_woken() -> None:
    """Nobody knows what has changed."""
    backend = MemoryBackend()
    woken = SYSTEM_CLOCK.signal()
    backend.watch("a", woken.set, values=False)
    backend.store.go_back(backend.store.past())
    assert woken.is_set()
    backend.close()
    with pytest.raises(UnavailableError):
        backend.history()
