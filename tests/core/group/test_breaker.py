"""Whether members die in series: by one member's own clock, from what it has seen; and the settings of adoption."""

import pytest
from core_kit import all_run, member

from smoothcluster.errors import UsageError
from smoothcluster.group.breaker import DeathWindow, Pacing, exempt, unrecorded
from smoothcluster.group.view import View
from smoothcluster.model import Evidence
from smoothcluster.records.breaker import CLOSED_BREAKER, Breaker, Death

FIVE = [member(name, join) for join, name in enumerate("abcde")]
OWNERS = ["a", "b", "c", "d", "e"]


def after(*dead: str, breaker: Breaker = CLOSED_BREAKER) -> View:
    """The five without some, whose shards are still theirs."""
    return all_run([each for each in FIVE if each.name not in dead], list(OWNERS), breaker=breaker)


def died(*names: str, is_open: bool = False) -> Breaker:
    """A record that knows of these deaths."""
    return Breaker(open=is_open, dead={name: Death(name, Evidence.PROCESS_GONE) for name in names}, id="")


def seen(*views: View, step: float = 1.0) -> tuple[DeathWindow, float]:
    """What a member makes of looks a *step* apart, and when the last was."""
    toll, now = DeathWindow(Pacing()), 0.0
    for view in views:
        now += step
        toll.observe(view, now)
    return toll, now


@pytest.mark.promise(6)
def test_more_than_half_within_the_window_are_a_series() -> None:
    """Two of five are not, three are; and it is so with the first look at the third death."""
    toll, now = seen(after(), after("a"), after("a", "b"))
    assert not toll.series(now)
    toll.observe(after("a", "b", "c"), now)
    assert toll.series(now)
    assert not toll.series(now + 10.0), "by then it is a while ago"


def test_two_at_least_are_a_series() -> None:
    """One of one is none."""
    alone = [member("x", 9)]
    toll = DeathWindow(Pacing())
    toll.observe(all_run(alone, ["x"]), 0.0)
    toll.observe(all_run([], ["x"]), 1.0)
    assert not toll.series(1.0)


def test_slow_deaths_are_no_series() -> None:
    """Each has been survived for a while."""
    toll, now = seen(after(), after("a"), after("a", "b"), after("a", "b", "c"), step=6.0)
    assert not toll.series(now)


def test_what_was_there_at_the_first_look_is_old_news() -> None:
    """When it happened this member cannot know. It stays so, though nobody has told the breaker."""
    toll, now = seen(after("a", "b", "c"), after("a", "b", "c"))
    assert not toll.series(now)
    toll, now = seen(after(breaker=died("x", "y", "z")), after())
    assert not toll.series(now)


def test_a_member_that_dies_again_and_again_is_one() -> None:
    """Members are counted by name, and so are deaths: the others live."""
    lives = {f"i{n}": Death("a", Evidence.PROCESS_GONE) for n in range(9)}
    toll, now = seen(after(), after(breaker=Breaker(open=False, dead=lives, id="")))
    assert not toll.series(now)


def test_who_left_long_ago_does_not_count() -> None:
    """After the memory's sixty seconds the group is as large as it is."""
    six = [*FIVE, member("f", 9), member("g", 10)]
    toll = DeathWindow(Pacing())
    toll.observe(all_run(six, OWNERS), 0.0)
    toll.observe(after("a", "b", "c"), 5.0)
    assert not toll.series(5.0), "three of seven"
    toll = DeathWindow(Pacing())
    toll.observe(all_run(six, OWNERS), 0.0)
    toll.observe(after(), 61.0)
    toll.observe(after("a", "b", "c"), 62.0)
    assert toll.series(62.0), "three of five"


@pytest.mark.promise(6)
def test_it_tells_the_breaker_of_deaths_that_it_does_not_know_of() -> None:
    """With the first of a series it opens, in the very commit that would have adopted."""
    toll, now = seen(after(), after("a"))
    told = toll.breaker_after(after("a"), now, "c")
    assert told is not None
    assert (list(told.dead), told.open) == (["a"], False)
    assert toll.breaker_after(after("a", breaker=told), now, "c") is None
    toll.observe(after("a", "b", "c", breaker=told), now)
    told = toll.breaker_after(after("a", "b", "c", breaker=told), now, "d")
    assert told is not None
    assert (list(told.dead), told.open) == (["a", "b", "c"], True)


@pytest.mark.promise(6)
def test_a_series_that_others_have_told_of_opens_it_too() -> None:
    """They may have joined too late to know that it is one."""
    view = after("a", "b", "c", breaker=died("a", "b", "c"))
    toll, now = seen(after(), view)
    told = toll.breaker_after(view, now, "c")
    assert told is not None
    assert told.open
    assert toll.breaker_after(after("a", "b", "c", breaker=told), now, "c") is None


def test_it_may_be_closed_when_nobody_has_died_for_a_while() -> None:
    """Counted from the last death, or from when this member first saw it open."""
    toll, now = seen(after(), after("a", "b", "c"))
    assert toll.closes_at() is None
    opened = after("a", "b", "c", breaker=died("a", "b", "c", is_open=True))
    toll.observe(opened, now + 1.0)
    assert toll.closes_at() == now + 11.0
    toll.observe(after("a", "b", "c", "d", breaker=died("a", "b", "c", "d", is_open=True)), now + 5.0)
    assert toll.closes_at() == now + 15.0
    late, then = seen(opened)
    assert late.closes_at() == then + 10.0


def test_once_it_was_closed_the_series_is_over_for_all() -> None:
    """Who saw the deaths later than the one that closed it does not open it again."""
    dead = ("a", "b", "c")
    opened = after(*dead, breaker=died(*dead, is_open=True))
    toll, now = seen(after(), opened)
    assert toll.series(now)
    closed = after(*dead, breaker=died(*dead))
    toll.observe(closed, now)
    assert (toll.series(now), toll.breaker_after(closed, now, "c"), toll.closes_at()) == (False, None, None)


def test_who_has_nothing_and_who_is_alone_are_exempt() -> None:
    """The one is not hurt by what it is given; the other is all there is."""
    view = after("a", "b")
    assert not exempt(view, "c")
    assert exempt(all_run(FIVE, ["a", "b", "c", "d", None]), "e")
    assert exempt(after("a", "b", "c", "d"), "e")


def test_only_deaths_that_left_shards_are_counted() -> None:
    """Who had none was not killed by the load of any."""
    view = all_run(FIVE[1:], ["b", None], gone={"b": Evidence.PROCESS_GONE})
    assert unrecorded(view) == {"b": Death("b", Evidence.PROCESS_GONE)}


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"shards": 0}, "shards"),
        ({"least": 1.5}, "least"),
        ({"pause": -1.0}, "pause"),
        ({"window": float("nan")}, "window"),
        ({"quiet": 5.0}, "quiet"),
    ],
)
def test_pacing_that_makes_no_sense_is_a_usage_error(settings: dict[str, float], word: str) -> None:
    """It names what is wrong."""
    with pytest.raises(UsageError, match=word):
        Pacing(**settings).check()  # type: ignore[arg-type]  # on purpose


def test_pacing_as_it_comes_makes_sense() -> None:
    """And is returned."""
    assert Pacing().check() == Pacing()
