"""Results leave the store: outcomes move to the sink, and each is found once, wherever a member dies."""

from collections import Counter
from collections.abc import Iterator

import pytest
from core.by_hand import submit
from core_kit import KEYS, Group, limits, put
from dict_sink import MARKS, PLACE, DictSink, register

from smoothcluster.cluster import Cluster
from smoothcluster.errors import SinkUnavailableError, SpecMismatchError
from smoothcluster.member.loop import MemberLoop
from smoothcluster.member.outboxes import LONGEST_SINK_PAUSE_SECONDS
from smoothcluster.records.keys import last_part
from smoothcluster.records.tail import TailRecord
from smoothcluster.work import outbox

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
    cluster = submit(group, TASKS)
    cluster.submit([], "open")
    work(group, loop, rounds=30)
    began = tails(group)
    group.clock.advance(60)
    other = group.member(results="dict://other")
    work(group, other, rounds=30)
    assert tails(group) == began
    assert found(group) == once()


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
