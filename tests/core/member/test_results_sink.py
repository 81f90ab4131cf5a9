"""Results leave the store: outcomes move to the sink, and each is found once, wherever a member dies."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from random import Random

import pytest
from core.by_hand import submit
from core_kit import KEYS, Group, limits, put
from dict_sink import MARKS, PLACE, DictSink, register

from smoothcluster.cluster import Cluster
from smoothcluster.errors import BackendError, SinkUnavailableError, SpecMismatchError
from smoothcluster.member.loop import MemberLoop
from smoothcluster.member.outboxes import LONGEST_SINK_PAUSE_SECONDS
from smoothcluster.memory import MemoryBackend
from smoothcluster.records.keys import last_part
from smoothcluster.records.tail import TailRecord
from smoothcluster.testing import Faulty
from smoothcluster.work import outbox
from smoothcluster.work.news import News
from smoothcluster.work.outbox import Moved

URL = "dict://place"
TASKS = 40


@pytest.fixture(autouse=True)
def _sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    register(monkeypatch, DictSink)
    yield
    PLACE.clear()
    MARKS.clear()
    DictSink.away = False


@pytest.fixture
def group() -> Group:
    """A group for one Runner."""
    return Group()


def work(group: Group, *loops: MemberLoop, rounds: int = 30, moving: bool = True) -> None:
    """Turn the members; their background threads work, too, if *moving*."""
    for _ in range(rounds):
        group.turn(*loops, times=1)
        for loop in loops:
            Group.pool(loop).finish()
        if moving:
            group.move()
        group.clock.advance(0.2)
        group.renew(*loops)
    group.turn(*loops)


def staged(group: Group, job: str = "j") -> list[str]:
    """Where outcomes lie in the store."""
    return [key for shard in range(group.shards) for key in group.backend.keys(KEYS.results(job, shard))]


def tails(group: Group, job: str = "j") -> list[TailRecord]:
    """The records of tails."""
    entries = [group.backend.get(KEYS.tail(job, shard)) for shard in range(group.shards)]
    return [TailRecord.from_json(entry.value) for entry in entries if entry is not None]


def found(group: Group, job: str = "j") -> Counter[str]:
    """How often each task has an outcome, for a new client."""
    cluster = Cluster(group.backend, "g", clock=group.clock)
    counts = Counter(outcome.task_id for outcome in cluster.job(job).results())
    assert cluster.garbage == {}
    return counts


def once(count: int = TASKS, job: str = "j") -> Counter[str]:
    """Every task has one."""
    return Counter(f"{job}.{number}" for number in range(count))


def test_outcomes_move_and_are_found_once(group: Group) -> None:
    """The store keeps none of them, and drops the job's counts afterwards."""
    loop = group.member(results=URL)
    cluster = submit(group, TASKS)
    work(group, loop)
    assert found(group) == once()
    assert staged(group) == []
    assert sum(each.tail.outcomes for each in tails(group)) == TASKS
    assert {each.sink for each in tails(group)} == {URL}
    work(group, loop, rounds=40)
    assert all(not read.record.counts for read in group.view().shards if read is not None)
    assert cluster.job("j").progress().finished
    assert cluster.status()["members"][0]["results_wait"] is None
    assert not group.moves, "nothing is left to do"


def test_a_group_without_a_sink_moves_nothing(group: Group) -> None:
    """As before."""
    loop = group.member()
    submit(group, TASKS)
    work(group, loop)
    assert (found(group), tails(group), PLACE) == (once(), [], {})
    assert len(staged(group)) > 0


def test_outcomes_move_in_several_commits_and_moves(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that takes few operations, and moves of few bytes: a tail is set while records remain to be deleted."""
    monkeypatch.setattr("smoothcluster.member.moving.LARGEST_WAIT_BYTES", 2000)
    monkeypatch.setattr("smoothcluster.member.moving.READ_RECORDS", 2)
    group = Group(shards=1, guarantees=limits(most_operations=6))
    loop = group.member(results=URL)
    submit(group, 200)
    for _ in range(150):
        work(group, loop, rounds=1)
        assert found(group).keys() <= once(200).keys()
        assert max(found(group).values(), default=1) == 1, "never twice, whenever somebody looks"
    assert found(group) == once(200)
    assert staged(group) == []


def test_the_next_owner_moves_what_the_last_has_left(group: Group) -> None:
    """It died before its first move, so nothing but the counts tells of it."""
    loop = group.member(results=URL)
    submit(group, TASKS)
    work(group, loop, moving=False)
    assert len(staged(group)) > 0
    assert PLACE == {}
    group.moves.clear()
    group.clock.advance(30)  # The lease runs out.
    heir = group.member()
    work(group, heir, rounds=60)
    assert (found(group), staged(group)) == (once(), [])


def test_an_owner_that_dies_between_write_and_commit(group: Group) -> None:
    """The sink has blocks that no tail names; the heir moves the same outcomes, and each is found once."""
    loop = group.member(results=URL)
    submit(group, TASKS)
    work(group, loop, moving=False)
    group.move()
    assert len(PLACE) > 0
    assert tails(group) == []
    assert found(group) == once()
    group.clock.advance(30)
    work(group, group.member(), rounds=60)
    assert (found(group), staged(group)) == (once(), [])
    assert sum(each.tail.outcomes for each in tails(group)) == TASKS


def test_a_move_of_a_replaced_owner_is_late(group: Group) -> None:
    """Its thread was paused: it reads and writes when the heir has moved all, and its loop commits nothing."""
    loop = group.member(results=URL)
    submit(group, TASKS)
    work(group, loop, moving=False)
    late = [*group.moves]
    group.moves.clear()
    assert late != []
    group.clock.advance(30)
    heir = group.member()
    work(group, heir, rounds=60)
    before = tails(group)
    for call in late:
        call()
    for _ in range(3):
        loop.step()
    assert tails(group) == before
    assert found(group) == once()


def test_while_the_sink_is_away_outcomes_wait_and_status_says_why(group: Group) -> None:
    """The job ends all the same; when the sink is back, they move."""
    loop = group.member(results=URL)
    cluster = submit(group, TASKS)
    work(group, loop, rounds=5)
    DictSink.away = True
    submit(group, TASKS, "k")
    work(group, loop, rounds=40)
    assert cluster.job("k").progress().finished
    assert found(group, "k") == once(job="k")
    assert cluster.status()["members"][0]["results_wait"] == "cannot write to dict://place: it is away"
    DictSink.away = False
    group.clock.advance(LONGEST_SINK_PAUSE_SECONDS)
    group.renew(loop)
    work(group, loop, rounds=60)
    assert staged(group, "k") == []
    assert found(group, "k") == once(job="k")
    assert cluster.status()["members"][0]["results_wait"] is None


def test_a_full_outbox_starts_no_more_tasks(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory and store stay bounded however long the sink is away; nothing is lost, and then all goes on."""
    monkeypatch.setattr(outbox, "FULL_OUTBOX_BYTES", 500)
    DictSink.away = True
    loop = group.member(results=URL)
    cluster = submit(group, 400)
    work(group, loop, rounds=100)
    done = cluster.job("j").progress().done
    assert 0 < done < 100, "without a bound, it would be twice as many"
    work(group, loop, rounds=20)
    assert cluster.job("j").progress().done == done, "it waits"
    assert "full shards start no more tasks" in cluster.status()["members"][0]["results_wait"]
    DictSink.away = False
    group.clock.advance(LONGEST_SINK_PAUSE_SECONDS)
    group.renew(loop)
    work(group, loop, rounds=300)
    assert found(group) == once(400)


def test_all_members_mean_one_sink(group: Group) -> None:
    """A member without one takes the group's; a resting group may be given another."""
    first = group.member(results=URL)
    with pytest.raises(SpecMismatchError, match=r"keeps results at dict://place, but .* results=dict://other"):
        group.member(results="dict://other")
    second = group.member()
    submit(group, TASKS)
    work(group, first, second)
    assert {each.sink for each in tails(group)} == {URL}
    group.clock.advance(60)
    third = group.member(results="dict://other")
    submit(group, TASKS, "k")
    work(group, third, rounds=60)
    assert {each.sink for each in tails(group, "k")} == {"dict://other"}
    assert (found(group), found(group, "k")) == (once(), once(job="k"))


def test_a_living_group_that_keeps_results_in_the_store_takes_no_sink(group: Group) -> None:
    """Its members have no access to it, perhaps."""
    group.member()
    with pytest.raises(SpecMismatchError, match="keeps results in the store"):
        group.member(results=URL)


def test_a_part_stays_in_the_sink_in_which_it_began(group: Group) -> None:
    """A group that is given another sink in the middle of a job."""
    loop = group.member(results=URL)
    submit(group, 2 * TASKS)
    work(group, loop, rounds=25)
    began = {each.part for each in tails(group)}
    assert len(began) > 0
    assert found(group) != once(2 * TASKS)
    group.clock.advance(60)
    work(group, group.member(results="dict://other"), rounds=80)
    assert found(group) == once(2 * TASKS)
    assert {each.part for each in tails(group) if each.sink == URL} == began


def test_a_reader_sees_each_outcome_once_whenever_it_looks(group: Group) -> None:
    """Also when the tail is set and records that it covers remain, because a commit takes few operations."""
    group = Group(shards=1, guarantees=limits(most_operations=4))
    loop = group.member(results=URL)
    submit(group, 60)
    both = 0
    for _ in range(400):
        group.turn(loop, times=1)
        Group.pool(loop).finish()
        group.move()
        group.clock.advance(0.1)
        group.renew(loop)
        assert max(found(group).values(), default=1) == 1
        last = max((each.tail.last for each in tails(group)), default=-1)
        both += any(int(last_part(key)) <= last for key in staged(group))
    assert both > 0, "there was such a moment"
    assert (found(group), staged(group)) == (once(60), [])


def test_an_owner_that_dies_between_tail_and_deletes(group: Group) -> None:
    """The heir deletes the records, and moves none of them again."""
    group = Group(shards=1, guarantees=limits(most_operations=4))
    loop = group.member(results=URL)
    submit(group, 60)
    work(group, loop, rounds=40, moving=False)
    group.move()
    while not tails(group):
        group.turn(loop, times=1)
    assert any(int(last_part(key)) <= tails(group)[0].tail.last for key in staged(group))
    group.clock.advance(30)
    work(group, group.member(), rounds=60)
    assert (found(group), staged(group)) == (once(60), [])
    assert tails(group)[0].tail.outcomes == 60


def test_many_waiting_outcomes_move_one_portion_after_another(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if nothing new is recorded meanwhile."""
    work_of, moves = group.member(results=URL), group.moves
    submit(group, 200)
    work(group, work_of, rounds=120, moving=False)
    assert (found(group), len(moves)) == (once(200), group.shards)
    monkeypatch.setattr("smoothcluster.member.moving.LARGEST_WAIT_BYTES", 300)
    monkeypatch.setattr("smoothcluster.member.moving.READ_RECORDS", 2)
    work(group, work_of, rounds=60)
    assert (found(group), staged(group)) == (once(200), [])


def test_a_finished_job_is_not_forgotten_while_outcomes_wait(group: Group) -> None:
    """The counts in the shards tell the heir of them, however long the sink is away."""
    loop = group.member(results=URL)
    submit(group, TASKS)
    DictSink.away = True
    work(group, loop, rounds=100)
    assert any(read.record.counts for read in group.view().shards if read is not None)
    group.clock.advance(30)
    DictSink.away = False
    work(group, group.member(), rounds=60)
    assert (found(group), staged(group)) == (once(), [])


def test_a_sink_that_is_away_is_asked_seldom(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """With growing pauses."""
    asked: list[float] = []

    def write(sink: DictSink, *_: object) -> None:
        asked.append(group.clock.monotonic())
        raise SinkUnavailableError("away")

    monkeypatch.setattr(DictSink, "write", write)
    loop = group.member(results=URL)
    submit(group, TASKS)
    work(group, loop, rounds=300)
    assert 2 * group.shards < len(asked) < 8 * group.shards


def test_a_move_from_before_a_rollback_is_not_committed(group: Group) -> None:
    """The store was set back while the thread read and wrote: what it read may never have been."""
    loop = group.member(results=URL)
    submit(group, TASKS)
    work(group, loop, moving=False)
    assert loop.life is not None
    for each in loop.life.workload.works.values():
        each.outbox = None  # As `ShardWork.carry_on` does.
    assert group.move() == group.shards
    group.turn(loop, times=1)
    assert tails(group) == []
    work(group, loop)
    assert (found(group), staged(group)) == (once(), [])


@pytest.mark.parametrize("seed", range(3))
def test_lost_answers(group: Group, seed: int) -> None:
    """The store applies commits without an answer, or refuses calls, at any moment."""
    backend, chance = Faulty(MemoryBackend(group.store)), Random(seed)
    loop = group.member(backend=backend, results=URL)
    submit(group, 100)
    for _ in range(200):
        if chance.random() < 0.2:
            chance.choice([backend.drop_answer, backend.refuse])()
        group.turn(loop, times=1)
        Group.pool(loop).finish()
        if chance.random() < 0.5:
            group.move()
        group.clock.advance(0.1)
        if loop.session is not None and not loop.session.lost.is_set():
            with suppress(BackendError):
                loop.session.renew_once()
        assert max(found(group).values(), default=1) == 1
    work(group, loop, rounds=100)
    assert (found(group), staged(group)) == (once(100), [])
    assert sum(each.tail.outcomes for each in tails(group)) == 100


def test_a_member_that_sees_another_place_writes_nothing(group: Group) -> None:
    """The mark of the group is not there: on this machine, the URL leads elsewhere."""
    group.member(results=URL)
    group.clock.advance(60)
    MARKS.clear()
    loop = group.member()
    cluster = submit(group, TASKS)
    work(group, loop)
    assert PLACE == {}
    assert "is not the place where the group keeps its results" in cluster.status()["members"][0]["results_wait"]
    assert found(group) == once()


def test_the_first_member_needs_the_sink(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """To leave the mark; those that come later start without it."""

    def away(sink: DictSink, name: str) -> None:
        raise SinkUnavailableError("away")

    with monkeypatch.context() as patched:
        patched.setattr(DictSink, "mark", away)
        with pytest.raises(SinkUnavailableError):
            group.member(results=URL)
    group.member(results=URL)
    monkeypatch.setattr(DictSink, "mark", away)
    group.member(results=URL)


@pytest.mark.parametrize("garbage", [b"nonsense", b"{}"])
def test_an_unreadable_tail_is_never_replaced(group: Group, garbage: bytes) -> None:
    """A new one would lose what the sink has: outcomes wait, and status says why."""
    loop = group.member(results=URL)
    cluster = submit(group, TASKS)
    for shard in range(group.shards):
        put(group.backend, KEYS.tail("j", shard), garbage)
    work(group, loop)
    entries = [group.backend.get(KEYS.tail("j", shard)) for shard in range(group.shards)]
    assert {entry.value for entry in entries if entry is not None} == {garbage}
    assert len(staged(group)) > 0
    assert cluster.status()["members"][0]["results_wait"] is not None


def test_an_unreadable_record_of_outcomes_stays(group: Group) -> None:
    """The others move."""
    loop = group.member(results=URL)
    cluster = submit(group, TASKS)
    key = f"{KEYS.results('j', 0)}/0000000000x"
    other = f"{KEYS.results('j', 1)}/9999999999"
    for each in (key, other):
        put(group.backend, each, b"nonsense")
    work(group, loop)
    assert staged(group) == [key, other]
    assert Counter(outcome.task_id for outcome in cluster.job("j").results()) == once()
    assert last_part(key) != last_part(other)


def test_a_leaving_member_leaves_the_rest_to_others(group: Group) -> None:
    """Its sink may be away: it does not wait."""
    DictSink.away = True
    loop = group.member(results=URL)
    submit(group, TASKS)
    work(group, loop)
    loop.inbox.ask_to_leave()
    loop.run()
    assert loop.life is None
    DictSink.away = False
    work(group, group.member(), rounds=60)
    assert (found(group), staged(group)) == (once(), [])


def test_news_can_be_taken_back() -> None:
    """A commit that was too large is built anew, with all tails and deletes."""
    news = News()
    news.moved["j"] = Moved(b"tail", fresh=True, keys=["a", "b"])
    restore = news.save()
    news.moved["j"].keys.pop()
    news.moved["j"].tail = None
    news.moved["k"] = Moved(None, fresh=False, keys=["c"])
    restore()
    assert news.moved == {"j": Moved(b"tail", fresh=True, keys=["a", "b"])}


def test_a_deleted_job_leaves_nothing_in_the_sink(group: Group) -> None:
    """Another job stays; a sink that is away fails the call, and a later call goes on."""
    loop = group.member(results=URL)
    cluster = submit(group, TASKS)
    submit(group, TASKS, job="k")
    work(group, loop, rounds=70)
    assert {part.job.partition(".")[0] for part, *_ in PLACE} == {"j", "k"}
    DictSink.away = True
    with pytest.raises(SinkUnavailableError):
        cluster.job("j").delete()
    DictSink.away = False
    assert tails(group) != []
    cluster.job("j").delete()
    assert (staged(group), tails(group)) == ([], [])
    assert {part.job.partition(".")[0] for part, *_ in PLACE} == {"k"}
    assert found(group, "k") == once(job="k")
    assert [key for key in group.store.tree.entries if "/j/" in key] == []
