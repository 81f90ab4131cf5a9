"""Changing a living group's numbers: never a seat too many, nothing lost, nothing started twice."""

import logging
from dataclasses import replace

import pytest
from core_kit import KEYS, Group, ids, limits, member, picture, put, runners, store_of

from smoothcluster.backend import Refused
from smoothcluster.cluster import Cluster
from smoothcluster.errors import OutcomeUnknownError, SpecMismatchError, UsageError
from smoothcluster.group.assignment import Plan, plan
from smoothcluster.group.election import Observation, SeatClaim, seat_to_claim
from smoothcluster.group.handover import ClaimRequest, claim
from smoothcluster.group.resizing import Resize, try_change
from smoothcluster.group.spec import Wanted
from smoothcluster.group.store import Stamp
from smoothcluster.group.view import Versioned
from smoothcluster.member.loop import MemberLoop
from smoothcluster.memory import MemoryBackend, MemoryStore
from smoothcluster.model import Evidence, Role, Task
from smoothcluster.records.group import Seat
from smoothcluster.testing import Faulty


def formed(runner: int, backup: int, shards: int = 8) -> tuple[Group, list[MemberLoop], Cluster]:
    """A group in which every seat is filled and every shard owned."""
    group = Group(runner=runner, backup=backup, shards=shards)
    loops = [group.member(grace=5.0) for _ in range(runner + backup)]
    group.turn(*loops, times=20)
    return group, loops, Cluster(group.backend, "g", clock=group.clock)


def owners(group: Group) -> list[int]:
    """How many shards each owner has, fewest first."""
    found = group.owners()
    assert None not in found
    return sorted(found.count(owner) for owner in set(found))


def roles(loops: list[MemberLoop]) -> list[str]:
    """Theirs, by their last look."""
    return [str(loop.role) for loop in loops]


def test_with_more_runners_backups_take_the_new_seats_at_once() -> None:
    """They are woken by the commit: nobody waits for the next regular look."""
    group, loops, cluster = formed(1, 2)
    assert cluster.change_spec(runner=3, backup=0) == {"runner": 3, "backup": 0, "shards": 8}
    group.turn(*loops)
    assert roles(loops) == ["runner"] * 3
    group.clock.advance(0.1)  # A Runner that has shards to give leaves the claimants a moment.
    group.turn(*loops, times=20)
    assert owners(group) == [2, 3, 3]


@pytest.mark.promise(1)
def test_with_fewer_the_highest_seats_are_closed_in_the_same_commit() -> None:
    """At no moment are there more seated members than the spec allows, and who was seated knows at once."""
    group, loops, cluster = formed(3, 0)
    commits: list[set[str]] = []
    group.store.observers.append(lambda step: commits.append(set(step.after)))
    cluster.change_spec(runner=1)
    assert {"g/spec", "g/seats/1", "g/seats/2"} < commits[0]
    assert [read.record.seat for read in group.view().members.values()].count(None) == 2
    group.turn(*loops, times=20)
    assert roles(loops) == ["runner", "backup-runner", "backup-runner"]
    assert owners(group) == [8]


def test_what_runs_finishes_before_its_shard_is_handed_over() -> None:
    """Nothing new starts where the seat was lost, handlers are told, and no task is started twice."""
    group, loops, cluster = formed(2, 0)
    job = cluster.submit([Task(id=str(number)) for number in range(100)], "j")
    group.turn(*loops, times=4)
    running = [list(group.pool(loop).start()) for loop in loops]
    cluster.change_spec(runner=1)
    group.turn(*loops)
    loser = loops[1]
    assert running[1]
    assert all(run.context.stopping.is_set() for run in running[1])
    assert len(group.pool(loser).start()) == len(running[1]), "nothing new"
    assert set(group.owners()) == {"m_0", "m_1"}, "busy shards stay until they are quiet"
    for _ in range(80):
        for loop in loops:
            group.pool(loop).finish()
        group.clock.advance(0.06)
        group.renew(*loops)
        group.turn(*loops, times=2)
    assert owners(group) == [8]
    assert job.progress().finished
    assert {outcome.attempts for outcome in job.results()} == {1}


def test_what_does_not_finish_is_handed_over_after_the_grace_period() -> None:
    """Its start is counted, its late outcome refused."""
    group, loops, cluster = formed(2, 0)
    job = cluster.submit([Task(id=str(number)) for number in range(100)], "j")
    group.turn(*loops, times=4)
    stuck = list(group.pool(loops[1]).start())
    cluster.change_spec(runner=1)
    group.turn(*loops)
    assert set(group.owners()) == {"m_0", "m_1"}
    group.clock.advance(5.1)
    group.renew(*loops)
    group.turn(*loops)
    assert owners(group) == [8]
    for _ in range(80):
        group.pool(loops[0]).finish()
        group.clock.advance(0.06)
        group.renew(*loops)
        group.turn(*loops, times=2)
    group.pool(loops[1]).finish()
    group.turn(*loops)
    outcomes = {outcome.task_id: outcome for outcome in job.results()}
    assert len(outcomes) == 100
    assert {outcomes[run.task.id].attempts for run in stuck} == {2}
    assert {outcome.runner for outcome in outcomes.values()} == {"m_0"}


def test_whoever_gets_a_seat_again_works_on() -> None:
    """Its handlers are told that they may."""
    group, loops, cluster = formed(2, 0)
    cluster.submit([Task(id=str(number)) for number in range(100)], "j")
    group.turn(*loops, times=4)
    (run, *_) = group.pool(loops[1]).start()
    cluster.change_spec(runner=1)
    group.turn(*loops)
    assert run.context.stopping.is_set()
    cluster.change_spec(runner=2)
    group.turn(*loops)
    assert not run.context.stopping.is_set()
    assert roles(loops) == ["runner", "runner"]


def stale(seat: Seat, joins: int) -> SeatClaim | None:
    """What a candidate claims that saw the second seat so, and the spec when it counted so many *joins*."""
    view = picture([*runners("a"), member("b", 1)], ["a", None])
    spec = Versioned(replace(view.spec.record, joins=joins), "0")
    view = replace(view, spec=spec, seats=[view.seats[0], Versioned(seat, "1")])
    return seat_to_claim(view, "b", Observation(0.0, 10.0, {}))


@pytest.mark.promise(1)
def test_a_seat_that_was_closed_after_the_spec_was_read_is_not_claimed() -> None:
    """A look is several reads: the seat may be younger than the spec. Once the spec is, too, it counts."""
    assert stale(Seat(None, "", closed=7), joins=6) is None
    assert stale(Seat(None, "", closed=7), joins=8) == SeatClaim(1, None, Evidence.LEFT)


@pytest.mark.promise(1)
@pytest.mark.parametrize("used", [False, True], ids=["never used", "vacated"])
def test_a_claim_decided_before_the_change_is_refused_after_it(*, used: bool) -> None:
    """Even of a seat that nobody held, even if its key was not there yet."""
    group = Group(runner=2, backup=0)
    holder, candidate = group.member(), group.member(join=False)
    group.turn(holder)
    if used:
        put(group.backend, KEYS.seat(1), Seat(None, "").to_json())
    while not candidate.try_join():
        pass
    assert candidate.life is not None
    view = group.view()
    Cluster(group.backend, "g", clock=group.clock).change_spec(runner=1)
    # Its own record may be as it was: what has changed is the seat.
    me = group.view().members[candidate.life.id]
    move = claim(
        KEYS, view, me, ClaimRequest(SeatClaim(1, None, Evidence.LEFT), []), group.backend.guarantees, Stamp("c")
    )
    assert isinstance(group.backend.commit([], move.changes), Refused)


@pytest.mark.promise(2)
def test_the_shards_of_one_that_runs_and_lost_its_seat_are_left_to_it() -> None:
    """Whoever took them would start their tasks a second time. If it does not run, or dies, they are free."""
    owner = member("b", 1)
    view = picture([*runners("a"), owner], ["a"], ["a", "b", "b"])
    assert plan(view, "a").claim == ()
    assert plan(view, "b") == Plan(give=((1, "a"), (2, "a")), resign=True)
    gone = picture([*runners("a"), owner], ["a"], ["a", "b", "b"], gone={"b": Evidence.PROCESS_GONE})
    assert plan(gone, "a").claim == (1, 2)


def test_two_who_resign_do_not_overload_one() -> None:
    """They deal out the same shards in the same order."""
    members = [*runners("a", "b"), member("c", 2), member("d", 3)]
    view = picture(members, ["a", "b"], ["a", "b", "c", "c", "d", "d"])
    given = [str(name) for me in "cd" for _, name in plan(view, me).give]
    assert sorted(given) == ["a", "a", "b", "b"]


def test_what_nobody_has_room_for_is_let_go() -> None:
    """It is unassigned then, as it was before somebody took it."""
    full = replace(member("a", 0, seat=0), capacity=2)
    view = picture([full, member("b", 1)], ["a"], ["a", "b", "b"])
    assert plan(view, "b").give == ((1, "a"), (2, None))


def test_where_all_are_runners_the_latest_stand_by_when_there_are_fewer() -> None:
    """And are Runners again when there are more; those whose role changes are woken."""
    group = Group(runner=3, backup=None, shards=6)
    loops = [group.member(grace=5.0) for _ in range(3)]
    cluster = Cluster(group.backend, "g", clock=group.clock)

    def settled(*expected: str) -> None:
        for _ in range(6):
            group.turn(*loops)
            group.clock.advance(0.1)
        assert roles(loops) == list(expected)
        assert owners(group) == [6 // expected.count("runner")] * expected.count("runner")

    settled("runner", "runner", "runner")
    cluster.change_spec(runner=2)
    settled("runner", "runner", "backup-runner")
    cluster.change_spec(runner=3)
    settled("runner", "runner", "runner")
    assert not [key for key in group.store.tree.entries if "/seats/" in key]


@pytest.mark.promise(6)
def test_shards_that_nobody_has_room_for_are_unassigned_until_somebody_has() -> None:
    """Nothing is lost with the Runner that was one too many."""
    group = Group(runner=2, backup=0, shards=4)
    loops = [group.member(capacity=2) for _ in range(2)]
    group.turn(*loops, times=20)
    cluster = Cluster(group.backend, "g", clock=group.clock)
    cluster.change_spec(runner=1)
    group.turn(*loops, times=20)
    assert group.owners().count(None) == 2
    cluster.change_spec(runner=2)
    for _ in range(6):
        group.turn(*loops)
        group.clock.advance(0.1)
    assert owners(group) == [2, 2]


def test_with_nobody_to_take_them_shards_are_kept() -> None:
    """The seats that are left may be vacant just then."""
    assert plan(picture([member("b", 1)], [None], ["b"]), "b") == Plan()


@pytest.mark.promise(1)
def test_what_a_store_takes_in_one_commit_bounds_a_step() -> None:
    """From many Runners to few it goes in steps, each of which keeps the promise."""
    store = MemoryStore(guarantees=limits(most_operations=8))
    group = Group(runner=9, backup=0, shards=9)
    group.store = store
    group.backend = MemoryBackend(store)
    loops = [group.member() for _ in range(9)]
    steps: list[int] = []
    store.observers.append(lambda step: steps.append(len(step.after)) if "g/spec" in step.after else None)
    cluster = Cluster(group.backend, "g", clock=group.clock)
    cluster.change_spec(runner=2)
    assert steps == [7, 7, 3]
    group.turn(*loops, times=30)
    assert roles(loops).count("runner") == 2


def test_an_answer_that_was_lost_is_read_and_a_late_commit_changes_nothing() -> None:
    """A change is done when the spec says so."""
    group, _, cluster = formed(3, 0)
    faulty = Faulty(MemoryBackend(group.store))
    faulty.drop_answer()
    wanted = Resize(2, None)
    assert try_change(store_of(faulty, new_id=ids("a")), wanted) is None
    assert try_change(store_of(faulty, new_id=ids("b")), wanted) is not None
    faulty.hold()
    assert try_change(store_of(faulty, new_id=ids("c")), Resize(3, None)) is None
    cluster.change_spec(runner=1)
    faulty.deliver()
    assert cluster.spec()["runner"] == 1


def test_a_store_that_answers_and_takes_nothing_is_not_asked_for_ever() -> None:
    """Whoever changes the numbers is told when the patience is over."""
    group, _, _ = formed(1, 0)
    faulty = Faulty(MemoryBackend(group.store))
    for _ in range(2000):
        faulty.hold()
    with pytest.raises(OutcomeUnknownError, match="the store did not accept the change"):
        Cluster(faulty, "g", patience=0.1).change_spec(runner=2)


def test_a_seat_is_taken_from_its_holder_even_if_its_record_was_spoilt() -> None:
    """The holder's own record names it."""
    group, loops, cluster = formed(2, 0)
    put(group.backend, KEYS.seat(1), b"garbage")
    cluster.change_spec(runner=1)
    group.turn(*loops, times=20)
    assert roles(loops) == ["runner", "backup-runner"]


@pytest.mark.parametrize(
    ("runner", "backup", "says"),
    [
        (0, None, "runner must be a whole number of at least 1, not 0"),
        (None, -1, "backup must be a whole number of at least 0, not -1"),
        (True, None, "runner .* not True"),
        (4097, None, "runner must be at most 4096"),
        (None, None, "a change needs a new number"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(runner: int | None, backup: int | None, says: str) -> None:
    """Before anything is read."""
    with pytest.raises(UsageError, match=says):
        Resize(runner, backup).check()


def test_the_shape_does_not_change_while_members_live() -> None:
    """Where all are Runners there is nobody to stand by; their number may change."""
    group = Group(runner=2, backup=None)
    group.member()
    cluster = Cluster(group.backend, "g", clock=group.clock)
    with pytest.raises(UsageError, match="stop all members and start the members with runner and backup"):
        cluster.change_spec(runner=2, backup=1)
    assert cluster.change_spec(runner=3)["runner"] == 3


def test_a_group_without_numbers_has_none_to_change() -> None:
    """Its first member says them; one that does not exist has none either."""
    group = Group()
    cluster = Cluster(group.backend, "g", clock=group.clock)
    with pytest.raises(UsageError, match="there is no group 'g'"):
        cluster.change_spec(runner=2)
    with pytest.raises(UsageError, match="the group does not exist"):
        try_change(store_of(group.backend), Resize(1, None))
    cluster.submit([Task(id="1")], "j")
    assert cluster.spec() == {"runner": None, "backup": None, "shards": 32}
    with pytest.raises(UsageError, match="no numbers yet"):
        cluster.change_spec(runner=2)


def test_few_shards_for_many_runners_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """The number of shards is for good."""
    _, _, cluster = formed(1, 1)
    with caplog.at_level(logging.WARNING):
        cluster.change_spec(runner=2)
        assert caplog.text == ""
        assert cluster.change_spec(runner=3)["shards"] == 8
    assert "the group has 8 shards for 3 Runners" in caplog.text


def test_a_member_started_with_the_old_numbers_is_told_both_and_what_to_do() -> None:
    """Whether the change or the start is the mistake, only people know."""
    group, _, cluster = formed(1, 1)
    cluster.change_spec(runner=2, backup=3)
    with pytest.raises(
        SpecMismatchError, match=r"runner=2, backup=3.*runner=1, backup=1.*with none.*smoothcluster spec"
    ):
        group.member()


def test_a_member_that_says_no_numbers_takes_the_groups() -> None:
    """If there are any."""
    group, _, cluster = formed(1, 1)
    cluster.change_spec(runner=3)
    group.runner, group.backup = None, None
    late = group.member()
    group.turn(late)
    assert late.role is Role.RUNNER
    with pytest.raises(SpecMismatchError, match="the first member must give runner"):
        Group(runner=None, backup=None).member()
    with pytest.raises(UsageError, match="backup=1 needs runner, too"):
        Wanted("x", None, 1).check()


@pytest.mark.parametrize("alone", [False, True])
def test_a_member_that_joins_anew_takes_the_groups_numbers(*, alone: bool) -> None:
    """It was there before they changed. Nobody else need be: the numbers of its own constructor are old."""
    group, loops, cluster = formed(1, 1)
    cluster.change_spec(runner=2)
    group.turn(*loops, times=20)
    group.clock.advance(group.ttl / 2)
    if not alone:
        group.renew(loops[0])
    group.clock.advance(group.ttl / 2)
    for loop in loops:
        loop.step()
    group.turn(*loops, times=20)
    assert roles(loops) == ["runner", "runner"]
    assert cluster.spec()["runner"] == 2


def test_a_member_that_joins_anew_does_not_join_a_group_of_the_other_shape() -> None:
    """That is no change of its group: its group has gone."""
    group, loops, _ = formed(1, 0)
    group.clock.advance(group.ttl)
    group.backup = None
    group.member("other")
    with pytest.raises(SpecMismatchError, match="stop all members first"):
        group.turn(*loops)
