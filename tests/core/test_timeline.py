"""What one client has seen of a store's history: when the store is older than that, and what counts no more."""

import pytest

from smoothcluster.backend import AtVersion, Change, Condition, Create, Delete, Exists, Update
from smoothcluster.timeline import Timeline, numbered


def seen(*positions: int) -> Timeline:
    """A timeline that has seen these positions."""
    timeline = Timeline()
    for position in positions:
        timeline.advance(position, timeline.mark(), "one")
    return timeline


def test_a_lower_position_is_a_rollback_and_told_once() -> None:
    """The next positions are compared with the lower one."""
    timeline, called = seen(5, 9), list[int]()
    timeline.on_rollback = lambda: called.append(timeline.position)
    before = timeline.history
    assert timeline.advance(3, timeline.mark(), "one")
    after = timeline.history
    assert (timeline.position, called, after != before) == (3, [3], True)
    assert not timeline.advance(4, timeline.mark(), "one")
    assert (timeline.position, called, timeline.history) == (4, [3], after)


def test_another_identity_is_a_rollback_wherever_it_stands() -> None:
    """Two clusters may stand at the same position."""
    timeline = seen(5)
    assert timeline.advance(70, timeline.mark(), "two")
    assert timeline.position == 70
    assert timeline.history.startswith("two, rollback 1 ")


def test_an_answer_is_compared_with_what_was_known_when_its_request_was_sent() -> None:
    """Another thread may be answered first, and see more."""
    timeline = seen(5)
    sent = timeline.mark()
    timeline.advance(9, timeline.mark(), "one")
    assert not timeline.advance(7, sent, "one")
    assert timeline.position == 9


def test_a_server_that_may_be_behind_proves_nothing() -> None:
    """What it says is neither a rollback nor the latest."""
    timeline = seen(5)
    assert not timeline.advance(3, timeline.mark(), "one", latest=False)
    assert timeline.position == 5


def test_an_answer_to_a_request_from_before_a_rollback_counts_for_nothing() -> None:
    """It may come from the store as it was: its position would make the next answer look like another rollback."""
    timeline = seen(5)
    late = timeline.mark()
    timeline.advance(2, timeline.mark(), "one")
    assert not timeline.advance(900, late, "one")
    assert timeline.position == 2
    assert timeline.outdated([AtVersion("a", late.version(2))]) == "a"


@pytest.mark.parametrize(
    "part", [AtVersion("a", "5"), Update("a", b"", "5"), Delete("a", "5")], ids=lambda part: type(part).__name__
)
def test_a_version_from_before_a_rollback_is_outdated(part: AtVersion | Update | Delete) -> None:
    """Whatever its number is; one from after is not, and goes to the store without the era."""
    timeline = seen(5)
    assert timeline.outdated([part]) is None
    assert numbered([part]) == [part]
    timeline.advance(1, timeline.mark())
    assert timeline.outdated([Exists("b"), part]) == "a"
    since = timeline.mark()
    current = AtVersion("a", since.version(5))
    assert timeline.outdated([current]) is None
    assert numbered([current]) == [AtVersion("a", "5")]
    timeline.advance(0, timeline.mark())
    assert timeline.outdated([current]) == "a"


def test_a_part_without_a_version_is_never_outdated() -> None:
    """It was not decided on what was read."""
    timeline = seen(5)
    timeline.advance(1, timeline.mark())
    parts: list[Condition | Change] = [Create("a", b""), Update("b", b""), Delete("c"), Exists("d")]
    assert timeline.outdated(parts) is None
    assert numbered(parts) == parts


def test_a_read_of_several_requests_is_of_one_era() -> None:
    """A listing asks after its last page."""
    timeline = seen(5)
    since = timeline.mark()
    timeline.advance(7, since)
    assert not timeline.rolled_back_since(since)
    timeline.advance(6, timeline.mark())
    assert timeline.rolled_back_since(since)
    assert not timeline.rolled_back_since(timeline.mark())
