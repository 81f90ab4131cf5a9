"""Who should hold a seat, and who must notice whose death."""

from itertools import pairwise

import pytest
from core_kit import member, picture, runners

from smoothcluster.group.election import Observation, SeatClaim, candidates, free_seats, role_of, seat_to_claim
from smoothcluster.group.monitors import watched_by
from smoothcluster.group.view import View
from smoothcluster.model import Evidence, Role
from smoothcluster.records.group import Member

TTL = 10.0


def claim(view: View, me: str, idle: dict[str, float] | None = None, now: float = 0.0) -> SeatClaim | None:
    """The seat that *me* should try to take."""
    return seat_to_claim(view, me, Observation(now, TTL, idle or {}))


def number(view: View, me: str) -> int | None:
    """Its number."""
    found = claim(view, me)
    return found.number if found is not None else None


def test_the_nth_candidate_takes_the_nth_free_seat() -> None:
    """Two who look at one picture never want the same seat."""
    view = picture([member("a", 0), member("b", 1), member("c", 2)], ["gone", None])
    assert [number(view, name) for name in "abc"] == [0, 1, None]


def test_a_seat_says_what_is_known_of_its_holder() -> None:
    """A claim carries its evidence, for events."""
    view = picture([member("a", 0)], ["gone", "dead", None], gone={"dead": Evidence.PROCESS_GONE})
    evidence = [claim.evidence for claim in free_seats(view, Observation(0, TTL, {}))]
    assert evidence == [Evidence.LEASE_EXPIRED, Evidence.PROCESS_GONE, Evidence.LEFT]


@pytest.mark.promise(1)
def test_a_seated_member_never_claims_another_seat() -> None:
    """A member holds one seat at most."""
    assert claim(picture(runners("a"), ["a", None]), "a") is None


@pytest.mark.promise(1)
def test_nobody_claims_a_living_members_seat() -> None:
    """A returning member pushes nobody out."""
    assert claim(picture([*runners("a"), member("b", 1)], ["a"]), "b") is None


def test_one_who_is_not_among_the_living_claims_nothing() -> None:
    """A process taken for dead has no business with seats."""
    assert claim(picture(runners("a"), [None]), "stranger") is None


def test_candidates_come_in_the_order_in_which_they_joined() -> None:
    """First come, first served."""
    view = picture([member("late", 9), member("early", 3)], [None])
    assert [each.name for each in candidates(view, "late")] == ["early", "late"]


def test_the_order_of_candidates_can_be_the_users() -> None:
    """Whoever joined first among equals comes first."""
    view = picture([member("a", 0), member("b", 1), member("aa", 2)], [None])
    assert [each.name for each in candidates(view, "a", lambda member: -len(member.name))] == ["aa", "a", "b"]


def test_a_candidate_that_has_not_run_for_one_ttl_is_passed_by_by_one_that_does() -> None:
    """It could not take over; before that it may be a newcomer, which takes its seat and then runs."""
    view = picture([member("idle", 0, running=False), member("b", 1)], [None])
    taken = [claim(view, "b", idle, now=TTL) for idle in ({}, {"idle": 0.1}, {"idle": 0.0})]
    assert [found and found.number for found in taken] == [None, None, 0]


def test_before_anybody_runs_candidates_settle_in_order() -> None:
    """Roles are settled at construction: one that does not run itself passes nobody by."""
    view = picture([member("a", 0, running=False), member("b", 1, running=False)], [None])
    assert (number(view, "a"), number(view, "b")) == (0, None)


@pytest.mark.promise(1)
def test_who_says_it_has_a_seat_is_no_candidate_for_another() -> None:
    """Its claim landed after the seats were read, so it takes none of those that look free."""
    view = picture([member("a", 0, seat=1), member("b", 1)], [None, None])
    assert [each.name for each in candidates(view, "b")] == ["b"]
    assert number(view, "b") == 0, "the other one is a's"


def test_a_seat_that_somebody_overwrote_is_taken_back_by_who_says_it_has_it() -> None:
    """The member's own record is the second witness."""
    assert number(picture([member("a", 0, seat=1)], [None, None]), "a") == 1


def test_who_says_it_has_a_seat_that_another_holds_claims_nothing() -> None:
    """It waits for what the store says next."""
    assert number(picture([member("a", 0, seat=1), *runners("b")], [None, "b"]), "a") is None


def idle_holder() -> list[Member]:
    """One who has a seat and does not run, and a candidate who does."""
    return [member("idle", 0, running=False, seat=0), member("b", 1)]


@pytest.mark.promise(8)
def test_an_idle_holder_is_deposed_after_one_ttl_on_our_own_clock() -> None:
    """It was constructed but does not run, and has stood unchanged for so long."""
    view = picture(idle_holder(), ["idle"])
    assert claim(view, "b", {"idle": 5.0}, 5.0 + TTL) == SeatClaim(0, "idle", Evidence.LEFT, inactive=True)


def test_an_idle_holder_is_left_alone_before_that() -> None:
    """It may be about to begin."""
    assert claim(picture(idle_holder(), ["idle"]), "b", {"idle": 5.0}, 4.9 + TTL) is None


@pytest.mark.promise(8)
def test_a_holder_not_seen_idle_is_left_alone() -> None:
    """Time counts from when its unchanged record was first seen."""
    assert claim(picture(idle_holder(), ["idle"]), "b", {}, 1e9) is None


def test_who_does_not_run_deposes_nobody() -> None:
    """It would be no better."""
    view = picture([idle_holder()[0], member("b", 1, running=False)], ["idle"])
    assert claim(view, "b", {"idle": 0.0}, TTL) is None


def test_a_role_is_what_the_seats_say() -> None:
    """Only the store decides who is a Runner."""
    view = picture([*runners("a"), member("b", 1, seat=0)], ["a"])
    assert (role_of(view, "a"), role_of(view, "b")) == (Role.RUNNER, Role.BACKUP_RUNNER)


def watchers_of(view: View, dead: str) -> set[str]:
    """Who watches *dead*."""
    return {name for name in view.living() if dead in watched_by(view, name)}


def test_every_runner_is_watched_by_the_first_two_candidates() -> None:
    """Each Runner's death is noticed by two who can take over."""
    view = picture([*runners("a", "b", "c"), *(member(f"x{n}", 10 + n) for n in range(4))], ["a", "b", "c"])
    assert all({"x0", "x1"} <= watchers_of(view, name) for name in "abc")


def test_every_runner_is_watched_by_two_others_where_there_are_two() -> None:
    """Whatever the numbers of Runners and candidates."""
    for seated in range(1, 6):
        for waiting in range(4):
            names = [f"r{n}" for n in range(seated)]
            spare = [member(f"x{n}", 10 + n) for n in range(waiting)]
            view = picture([*runners(*names), *spare], names)
            others = seated + waiting - 1
            assert all(len(watchers_of(view, name) - {name}) >= min(2, others) for name in names), (seated, waiting)


def test_every_candidate_is_watched_by_somebody() -> None:
    """Nobody dies unseen: each by the one behind it, the last one by Runners."""
    for waiting in range(1, 6):
        spare = [f"x{n}" for n in range(waiting)]
        view = picture([*runners("a", "b"), *(member(name, 10 + n) for n, name in enumerate(spare))], ["a", "b"])
        assert all(watchers_of(view, name) for name in spare)
        assert all(watchers_of(view, ahead) >= {behind} for ahead, behind in pairwise(spare))


def test_nobody_watches_itself() -> None:
    """It would never be told."""
    view = picture([*runners("a", "b"), member("x", 5)], ["a", "b"])
    assert not any(name in watched_by(view, name) for name in "abx")
    assert watched_by(picture(runners("a"), ["a"]), "a") == set()


def test_nobody_watches_what_grows_with_the_group() -> None:
    """A candidate far back watches the one ahead of it and nobody else."""
    view = picture([*runners("a", "b", "c"), *(member(f"x{n}", 10 + n) for n in range(9))], ["a", "b", "c"])
    assert watched_by(view, "x7") == {"x6"}
    assert watched_by(view, "c") <= {"a", "b", "x8"}


def test_a_candidate_that_does_not_run_is_not_relied_on_to_watch() -> None:
    """One that runs takes its place: it could not take over."""
    view = picture([*runners("a"), member("idle", 1, running=False), member("x", 2)], ["a"])
    assert watched_by(view, "x") == {"a"}


def test_a_stranger_watches_nobody() -> None:
    """Who is not in the picture is not in its queue."""
    assert watched_by(picture(runners("a"), ["a"]), "stranger") == set()
