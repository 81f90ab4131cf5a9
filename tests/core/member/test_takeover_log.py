"""Who is known to be dead, and what is told of the handovers that follow."""

import pytest
from core_kit import member, picture, runners, store_of

from smoothcluster.group.events import EventLog, read_events
from smoothcluster.group.handover import Move
from smoothcluster.member.takeover_log import LONGEST_HOLD_SECONDS, TakeoverLog
from smoothcluster.memory import MemoryBackend
from smoothcluster.model import Evidence
from smoothcluster.records.shard import OpenChunk, Shard
from smoothcluster.testing import HeldClock


class Desk:
    """One member's notes."""

    def __init__(self) -> None:
        self.clock, self.backend = HeldClock(), MemoryBackend()
        self.log = EventLog(store_of(self.backend, clock=self.clock), "b")
        self.deaths = TakeoverLog(self.clock, self.log, "b")

    def told(self) -> dict[str, object]:
        """The only event."""
        self.deaths.release(leaving=True)
        self.log.flush()
        (event,) = read_events(store_of(self.backend))
        return dict(event)


@pytest.fixture
def desk() -> Desk:
    """Nobody is dead."""
    return Desk()


def takeover(former: str | None = "a") -> Move:
    """Taking two shards, one of which has three tasks left."""
    shards = {1: Shard(owner="b", epoch=3, open={"j-0": OpenChunk(4, closed=1)}), 0: Shard(owner="b", epoch=2)}
    return Move([], "c", member("b"), shards, (), {1: former, 0: former}, former)


def test_a_takeover_is_told_with_its_times(desk: Desk) -> None:
    """How long each step took: noticing, claiming, starting again."""
    desk.deaths.proved("a", 0.002)
    desk.clock.advance(0.005)
    gone = {"a": Evidence.PROCESS_GONE}
    desk.deaths.add_claim(takeover(), picture(runners("a", "b"), ["a"], ["a", "a"], gone=gone))
    desk.clock.advance(0.001)
    desk.deaths.resumed(1)
    desk.clock.advance(5)
    desk.deaths.resumed(0)
    event = desk.told()
    assert (event["kind"], event["from"], event["to"], event["evidence"]) == ("handover", "a", "b", "process_gone")
    assert (event["shards"], event["epochs"], event["tasks_resumed"]) == ([0, 1], {"0": 2, "1": 3}, 3)
    assert (event["detected_ms"], event["claimed_ms"], event["resumed_ms"]) == (2.0, 5.0, 6.0)


def test_the_event_waits_a_little_for_the_first_start(desk: Desk) -> None:
    """Tasks may have to wait for a child process or a worker; the wait is bounded, and ends when the member leaves."""
    desk.deaths.proved("a", 0.002)
    desk.deaths.add_claim(takeover(), picture(runners("a", "b"), ["a"], ["a", "a"]))
    desk.deaths.release()
    desk.log.flush()
    assert read_events(store_of(desk.backend)) == []
    assert desk.deaths.next_time() == desk.clock.monotonic() + LONGEST_HOLD_SECONDS
    desk.clock.advance(LONGEST_HOLD_SECONDS)
    desk.deaths.release()
    desk.log.flush()
    (event,) = read_events(store_of(desk.backend))
    assert (event["resumed_ms"], desk.deaths.next_time()) == (None, None)


def test_the_first_proof_counts(desk: Desk) -> None:
    """Two watchers may tell."""
    desk.deaths.proved("a", 0.002)
    since = desk.deaths.since("a")
    desk.clock.advance(1)
    desk.deaths.proved("a", 0.5)
    assert (desk.deaths.since("a"), desk.deaths.known) == (since, {"a": Evidence.PROCESS_GONE})


def test_taking_what_was_nobodys_is_a_claim(desk: Desk) -> None:
    """There is nobody it came from."""
    desk.deaths.add_claim(takeover(None), picture(runners("b"), ["b"], [None, None]))
    event = desk.told()
    assert (event["kind"], event["from"], event["detected_ms"]) == ("claim", None, None)


def test_one_whose_record_has_gone_is_named_by_its_shards(desk: Desk) -> None:
    """The name stands there for people."""
    desk.deaths.add_claim(takeover("a"), picture(runners("b"), ["a"], ["a", "a"]))
    assert desk.told()["from"] == "a"


def test_each_former_owner_has_an_event_of_its_own(desk: Desk) -> None:
    """Who takes from two tells whose each shard was, and how that is known."""
    shards = {n: Shard(owner="b", epoch=2) for n in range(3)}
    former: dict[int, str | None] = {0: "a", 1: "c", 2: "a"}
    view = picture(runners("b"), ["b"], ["a", "c", "a"], gone={"a": Evidence.PROCESS_GONE})
    desk.deaths.add_claim(Move([], "c", member("b"), shards, (), former), view)
    desk.log.flush()
    told = [(event["from"], event["shards"], event["evidence"]) for event in read_events(store_of(desk.backend))]
    assert told == [("a", [0, 2], "process_gone"), ("c", [1], "lease_expired")]


def test_a_seat_without_shards_is_nobodys_to_name(desk: Desk) -> None:
    """If its holder's record has gone, nobody knows who that was."""
    move = Move([], "c", member("b"), {}, holder="a")
    desk.deaths.add_claim(move, picture(runners("b"), ["a"]))
    assert desk.told()["kind"] == "claim"


def test_a_gift_is_told_as_a_handover(desk: Desk) -> None:
    """From the giver to whoever gets it."""
    desk.deaths.add_transfer(Move([], "c", member("b"), {0: Shard(owner="x", name="x", epoch=1)}))
    event = desk.told()
    assert (event["kind"], event["from"], event["to"], event["evidence"]) == ("handover", "b", "x", "left")


def test_starting_on_a_shard_that_was_not_taken_over_tells_nothing(desk: Desk) -> None:
    """It was ours all along."""
    desk.deaths.resumed(7)
    desk.log.flush()
    assert read_events(store_of(desk.backend)) == []
