"""Who should own which shard: balanced, with few moves, and never two for one."""

from dataclasses import replace

import pytest
from core_kit import all_run, member, picture, runners, steps
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcluster.group.assignment import Plan, plan, shares, workers
from smoothcluster.group.view import View
from smoothcluster.model import Evidence
from smoothcluster.records.group import Member


def test_only_seated_and_running_members_may_own() -> None:
    """Who has no seat, does not run, or is dead, is no worker."""
    idle = member("idle", 1, running=False, seat=1)
    view = picture(
        [*runners("a"), idle, member("spare", 3), member("dead", 2, seat=2)],
        ["a", "idle", "dead"],
        gone={"dead": Evidence.PROCESS_GONE},
    )
    assert workers(view) == ["a"]


def test_workers_are_in_the_order_of_their_seats() -> None:
    """All who look at one picture see one order."""
    assert workers(picture([member("a", 0), member("b", 1)], ["b", "a"])) == ["b", "a"]


def test_who_may_not_own_plans_nothing() -> None:
    """A candidate leaves the shards alone."""
    view = picture([*runners("a"), member("b", 1)], ["a"], [None, None])
    assert plan(view, "b") == Plan()


def test_shares_differ_by_one_at_most() -> None:
    """What cannot be divided goes to whoever owns most, so that it need not move."""
    assert shares({"a": 1, "b": 3, "c": 2}, 8) == {"b": 3, "c": 3, "a": 2}


def test_nobody_has_no_share() -> None:
    """Without workers there is nothing to divide by."""
    assert shares({}, 8) == {}


def test_free_shards_are_dealt_to_those_below_their_share() -> None:
    """Two who look at one picture claim different shards, and all of them."""
    view = picture(runners("a", "b"), ["a", "b"], ["a", "a", None, None, None, None])
    first, second = plan(view, "a").claim, plan(view, "b").claim
    assert (len(first), len(second)) == (1, 3)
    assert sorted(first + second) == [2, 3, 4, 5]


def test_the_shards_of_the_dead_are_free() -> None:
    """What a member that is gone owned is claimed by the others."""
    view = picture(runners("a"), ["a"], ["a", "gone", "gone"])
    assert plan(view, "a").claim == (1, 2)


def test_the_shards_of_one_who_has_no_seat_and_does_not_run_are_free() -> None:
    """It was passed over for one that runs, and will not hand them over itself."""
    view = picture([*runners("a"), member("b", 1, running=False)], ["a"], ["a", "b"])
    assert plan(view, "a").claim == (1,)


def test_the_shards_of_a_seated_owner_that_does_not_run_are_not_free() -> None:
    """It may be about to begin."""
    view = picture([*runners("a"), member("b", 1, running=False, seat=1)], ["a", "b"], ["a", "b"])
    assert plan(view, "a").claim == ()


def test_an_owner_that_a_glance_did_not_find_is_not_taken_for_dead() -> None:
    """Members that were read before the rest say nothing of newcomers; they only hold no seat yet."""
    view = picture(runners("a"), ["a", "new"], ["a", "new"], complete=False)
    assert plan(view, "a").claim == ()


def test_a_balanced_group_does_not_move() -> None:
    """Whoever owns one more keeps it."""
    view = picture(runners("a", "b"), ["a", "b"], ["b", "b", "a"])
    assert plan(view, "a") == plan(view, "b") == Plan()


def test_a_newcomer_is_given_its_share_and_no_more() -> None:
    """Moving few shards: each giver parts with its surplus only."""
    view = picture(runners("a", "b", "c"), ["a", "b", "c"], ["a"] * 4 + ["b"] * 4)
    given = [*plan(view, "a").give, *plan(view, "b").give]
    assert [target for _, target in given] == ["c", "c"]
    assert plan(view, "c") == Plan()


def test_busy_shards_are_given_last() -> None:
    """A shard on which nothing runs can go at once."""
    view = picture(runners("a", "b"), ["a", "b"], ["a"] * 4)
    assert plan(view, "a", busy=[0, 2]).give == ((1, "b"), (3, "b"))
    assert [number for number, _ in plan(view, "a", busy=[0, 1, 2]).give] == [3, 0]


def test_two_givers_never_feed_the_same_mouth() -> None:
    """Every giver serves its own stretch of those who lack."""
    view = picture(runners("a", "b", "c", "d"), ["a", "b", "c", "d"], ["a"] * 4 + ["b"] * 4)
    given = [*plan(view, "a").give, *plan(view, "b").give]
    assert sorted(str(target) for _, target in given) == ["c", "c", "d", "d"]


def test_what_is_free_is_left_to_the_heir_while_a_seat_is_vacant() -> None:
    """A candidate that will take the dead one's seat takes its shards with it; till then one looks again soon."""
    view = picture([*runners("a"), member("heir", 5)], ["a", "gone"], ["a", "gone"])
    assert plan(view, "a", successor=True) == Plan(patient=False)


def test_without_an_heir_the_survivors_share_what_is_free() -> None:
    """Nobody waits for a candidate that is not there."""
    view = picture(runners("a"), ["a", "gone"], ["a", "gone"])
    assert plan(view, "a", successor=False).claim == (1,)


def test_an_heir_without_a_vacant_seat_is_not_waited_for() -> None:
    """If all seats are held, no candidate will come for the shards."""
    view = picture([*runners("a"), member("spare", 5)], ["a"], ["a", "gone"])
    assert plan(view, "a", successor=True).claim == (1,)


def test_garbage_is_nobodys() -> None:
    """A shard whose record cannot be read is neither claimed nor counted."""
    view = picture(runners("a"), ["a"], ["a", None])
    view = View(view.spec, view.seats, [None, view.shards[1]], view.members)
    assert plan(view, "a").claim == (1,)


NAMES = ["a", "b", "c", "d", "e"]


@st.composite
def groups(draw: st.DrawFn) -> tuple[list[Member], list[str | None], list[str | None]]:
    """Members, holders of seats, owners of shards: of all kinds, at least one of them able to work."""
    alive = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    seated = draw(st.lists(st.sampled_from(alive), min_size=1, unique=True))
    owners = draw(st.lists(st.sampled_from([*NAMES, "gone", None]), max_size=40))
    return [member(name, join) for join, name in enumerate(alive)], list(seated), owners


@pytest.mark.promise(7)
@given(groups())
@settings(max_examples=100, deadline=None)
def test_everybodys_plans_together_lead_to_balance(
    group: tuple[list[Member], list[str | None], list[str | None]],
) -> None:
    """However shards are spread, two rounds of all plans, made on one picture each, balance the group for good."""
    members, seats, owners = group
    for _ in range(2):
        view, touched = picture(members, seats, owners), set[int]()
        for each in members:
            todo = plan(view, each.incarnation)
            moves = [(number, each.incarnation) for number in todo.claim] + list(todo.give)
            for number, target in moves:
                assert number not in touched, "two members move one shard"
                assert todo.claim or owners[number] == each.incarnation, "only one's own is given"
                touched.add(number)
                owners = [*owners[:number], target, *owners[number + 1 :]]
    view = picture(members, seats, owners)
    held = [len(view.owned(name)) for name in workers(view)]
    assert sum(held) == len(owners)
    assert max(held) - min(held) <= 1
    assert all(plan(view, each.incarnation) == Plan() for each in members)


@given(groups())
@settings(max_examples=50, deadline=None)
def test_a_plan_depends_on_the_picture_alone(group: tuple[list[Member], list[str | None], list[str | None]]) -> None:
    """Members that read the records in another order decide the same."""
    members, seats, owners = group
    here, there = picture(members, seats, owners), picture(members[::-1], seats, owners)
    assert all(plan(here, each.incarnation) == plan(there, each.incarnation) for each in members)


def test_who_is_a_runner_without_seats_is_told_by_the_order_of_joining() -> None:
    """The first to have joined, of the living; those beyond stand by."""
    members = [member("c", 3), member("a", 1), member("b", 2), member("idle", 0, running=False)]
    assert all_run(members, [], runner=3).runners() == ["idle", "a", "b"]
    assert workers(all_run(members, [], runner=3)) == ["a", "b"]
    assert workers(all_run(members, [], runner=3, gone={"a": Evidence.PROCESS_GONE})) == ["b", "c"]


def test_without_seats_the_living_are_never_robbed() -> None:
    """Who is a Runner is told by who lives, and not all know that alike: it gives its shards back itself."""
    members = [member("a", 0), member("b", 1)]
    view = all_run(members, ["a", "b", "b"], runner=1)
    assert plan(view, "a") == Plan()
    assert plan(view, "b") == Plan(give=((1, "a"), (2, "a")), resign=True)
    assert plan(all_run([member("b", 1, running=False)], ["b"], runner=1), "b") == Plan()


@pytest.mark.promise(6)
def test_nobody_is_dealt_more_than_its_capacity() -> None:
    """What one may not have the others share; what nobody may have is unplaced."""
    assert shares({"a": 0, "b": 0, "c": 0}, 9, {"a": 1}) == {"a": 1, "b": 4, "c": 4}
    assert shares({"a": 0, "b": 0}, 9, {"a": 2, "b": 3}) == {"a": 2, "b": 3}
    assert shares({"a": 9, "b": 0}, 9, {"a": 9, "b": 3}) == {"a": 6, "b": 3}
    small = [replace(each, capacity=2) for each in runners("a", "b")]
    view = all_run(small, ["a", None, None, None, None])
    assert (plan(view, "a").claim, plan(view, "b").claim) == ((2,), (1, 3))
    full = all_run(small, ["a", "a", "b", "b", "gone"])
    assert plan(full, "a") == Plan(unplaced=(4,))


@pytest.mark.promise(6)
@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 9), min_size=1),
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 9)),
    st.integers(0, 40),
)
def test_shares_keep_to_capacity_and_leave_nothing_that_has_room(
    owned: dict[str, int], capacity: dict[str, int], total: int
) -> None:
    """All of it is dealt, or everybody is full; and nobody with room has two less than another."""
    target = shares(owned, total, capacity)
    assert set(target) == set(owned)
    assert all(target[name] <= capacity.get(name, total) for name in owned)
    free = [name for name in owned if target[name] < capacity.get(name, total + 1)]
    assert sum(target.values()) == (total if free else sum(capacity[name] for name in owned))
    assert all(target[name] + 1 >= max(target.values()) for name in free)


@pytest.mark.promise(6)
def test_the_shards_of_the_dead_are_adopted_a_few_at_a_time() -> None:
    """What nobody died of is not waited for."""
    view = all_run(runners("a"), ["a", "gone", "gone", "gone", None])
    assert plan(view, "a", adopt=2) == Plan(claim=(1, 2, 4), later=True)
    assert plan(view, "a", adopt=0) == Plan(claim=(4,), later=True)
    assert plan(view, "a", adopt=3) == Plan(claim=(1, 2, 3, 4))


def many(members: int, dead: int = 0) -> View:
    """So many Runners, four shards for each, and the shards of the first *dead* are free."""
    names = [f"m{number}" for number in range(members)]
    owners = [names[number % members] for number in range(4 * members)]
    living = [member(name, join) for join, name in enumerate(names)][dead:]
    return all_run(living, owners, runner=members)


@pytest.mark.parametrize("dead", [0, 1, 50])
def test_a_plan_costs_a_pass_over_members_and_shards(dead: int) -> None:
    """Counted in calls of functions: ten times as large a group costs ten times as much."""
    small, large = many(100, dead), many(1000, 10 * dead)
    costs = [steps(lambda view=view: plan(view, "m999" if view is large else "m99")) for view in (small, large)]  # type: ignore[misc]
    assert costs[1] <= 12 * costs[0]
    assert costs[1] <= 6 * 5000, "a few calls for each member and shard"


@given(st.data())
def test_shards_are_dealt_to_the_neediest_first(data: st.DataObject) -> None:
    """As one would deal by hand: each to the first of those who lack most."""
    names = [f"m{number}" for number in range(data.draw(st.integers(1, 6)))]
    shards = data.draw(st.lists(st.sampled_from([*names, None]), min_size=1, max_size=24))
    view = all_run([member(name, join) for join, name in enumerate(names)], shards, runner=len(names))
    counts = {name: shards.count(name) for name in names}
    target = shares(counts, len(shards))
    dealt: dict[str, list[int]] = {name: [] for name in names}
    for number in (n for n, owner in enumerate(shards) if owner is None):
        lack = {name: target[name] - counts[name] - len(dealt[name]) for name in names}
        neediest = max(names, key=lack.__getitem__)
        if lack[neediest] > 0:
            dealt[neediest].append(number)
    for name in names:
        assert plan(view, name).claim == tuple(dealt[name])
