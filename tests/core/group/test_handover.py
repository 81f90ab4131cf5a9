"""The moves by which ownership changes: each one commit, refused if anything it was decided on has changed."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from core_kit import KEYS, ids, limits, member, put, store_of

from smoothcluster.backend import Committed, Guarantees, Refused
from smoothcluster.group.election import SeatClaim
from smoothcluster.group.handover import ClaimRequest, Move, claim, leave, succeed, transfer
from smoothcluster.group.store import Stamp
from smoothcluster.group.view import Versioned, View
from smoothcluster.memory import WEAKEST, MemoryBackend
from smoothcluster.model import Evidence
from smoothcluster.records.breaker import CLOSED_BREAKER, Death
from smoothcluster.records.group import Member, Seat, Spec
from smoothcluster.records.shard import OpenChunk, Shard, bits

SHARDS = 6


@pytest.fixture
def backend() -> MemoryBackend:
    """A group of a, who holds seat 0 and the shards 0 to 2, and b, who waits."""
    backend = MemoryBackend()
    put(backend, KEYS.spec, Spec(1, 1, SHARDS, 2, "").to_json())
    put(backend, KEYS.seat(0), Seat("a", "").to_json())
    put(backend, KEYS.member("a"), member("a", 1, seat=0).to_json())
    put(backend, KEYS.member("b"), member("b", 2).to_json())
    for number in range(3):
        put(backend, KEYS.shard(number), Shard(owner="a", name="a", epoch=4).to_json())
    return backend


def look(backend: MemoryBackend, **gone: Evidence) -> View:
    """The group as it is, with the dead that we know of."""
    view = store_of(backend).read_view(gone)
    assert view is not None
    return view


def seat_of_a(evidence: Evidence = Evidence.PROCESS_GONE) -> SeatClaim:
    """Taking a's seat."""
    return SeatClaim(0, "a", evidence)


def take_over(backend: MemoryBackend, commit_id: str = "c", guarantees: Guarantees = WEAKEST) -> tuple[View, Move]:
    """The move by which b takes over from a, whose process is dead."""
    view = look(backend, a=Evidence.PROCESS_GONE)
    return view, claim(
        KEYS, view, view.members["b"], ClaimRequest(seat_of_a(), view.owned("a")), guarantees, Stamp(commit_id)
    )


def test_a_claim_takes_member_seat_and_shards_in_one_commit(backend: MemoryBackend) -> None:
    """All of it bears the claim's id; the epoch rises."""
    _, move = take_over(backend)
    assert isinstance(backend.commit([], move.changes), Committed)
    view = look(backend)
    assert view.seats[0].record == Seat("b", "c")
    assert view.members["b"].record == replace(member("b", 2), seat=0, id="c") == move.me
    shards = [view.shards[number] for number in range(3)]
    assert all(
        read is not None and (read.record.owner, read.record.epoch, read.record.id) == ("b", 5, "c") for read in shards
    )
    assert (view.owned("b"), sorted(move.shards), move.rest) == ([0, 1, 2], [0, 1, 2], ())


MEDDLING: Mapping[str, Callable[[MemoryBackend], None]] = {
    "the seat": lambda backend: put(backend, KEYS.seat(0), Seat("c", "").to_json()),
    "a shard": lambda backend: put(backend, KEYS.shard(1), Shard(owner="a", epoch=4, seq=1).to_json()),
    "its own record": lambda backend: put(backend, KEYS.member("b"), member("b", 2).to_json()),
}


@pytest.mark.promise(1, 2)
@pytest.mark.parametrize("what", MEDDLING)
def test_a_claim_is_refused_if_anything_it_takes_has_changed(backend: MemoryBackend, what: str) -> None:
    """One claimant wins; who has been ended, or whose earlier claim landed late, claims nothing."""
    _, move = take_over(backend)
    MEDDLING[what](backend)
    assert isinstance(backend.commit([], move.changes), Refused)
    assert look(backend).owned("b") == []


@pytest.mark.promise(1, 2)
def test_of_two_claims_on_one_picture_one_wins(backend: MemoryBackend) -> None:
    """The seat and the shards are compared, too."""
    put(backend, KEYS.member("c"), member("c", 3).to_json())
    view = look(backend, a=Evidence.PROCESS_GONE)
    moves = [
        claim(KEYS, view, view.members[name], ClaimRequest(seat_of_a(), [0]), WEAKEST, Stamp(name)) for name in "bc"
    ]
    results = [backend.commit([], move.changes) for move in moves]
    assert [type(result) for result in results] == [Committed, Refused]


def test_a_claim_buries_the_dead(backend: MemoryBackend) -> None:
    """It ends the incarnation whose process is gone, so that this one claims nothing any more."""
    view, move = take_over(backend)
    backend.commit([], move.changes)
    assert set(look(backend).members) == {"b"}
    assert (move.holder, set(move.former.values())) == ("a", {"a"})
    late = claim(KEYS, view, view.members["a"], ClaimRequest(None, [3]), WEAKEST, Stamp("late"))
    assert isinstance(backend.commit([], late.changes), Refused)


def test_a_dead_owner_without_a_seat_is_buried_with_its_shards(backend: MemoryBackend) -> None:
    """Whoever claims a dead member's shards knows it to be dead."""
    view = look(backend, a=Evidence.PROCESS_GONE)
    move = claim(KEYS, view, view.members["b"], ClaimRequest(None, [0]), WEAKEST, Stamp("c"))
    backend.commit([], move.changes)
    assert (set(look(backend).members), set(move.former.values())) == ({"b"}, {"a"})


def test_a_claim_on_what_was_never_there_creates_it(backend: MemoryBackend) -> None:
    """Of two who take it first, one is refused."""
    view = look(backend)
    moves = [claim(KEYS, view, view.members[name], ClaimRequest(None, [5]), WEAKEST, Stamp(name)) for name in "ab"]
    assert [type(backend.commit([], move.changes)) for move in moves] == [Committed, Refused]
    shard = look(backend).shards[5]
    assert shard is not None
    assert (shard.record.owner, shard.record.epoch) == ("a", 1)
    assert (moves[0].holder, set(moves[0].former.values())) == (None, {None})


@pytest.mark.promise(1)
def test_deposing_takes_the_seat_out_of_the_holders_record(backend: MemoryBackend) -> None:
    """It lives on as a candidate; the claim is refused if its record has changed since."""
    view = look(backend)
    seat = SeatClaim(0, "a", Evidence.LEFT, inactive=True)
    move = claim(KEYS, view, view.members["b"], ClaimRequest(seat, []), WEAKEST, Stamp("c"))
    late = claim(KEYS, view, view.members["b"], ClaimRequest(seat, []), WEAKEST, Stamp("late"))
    assert isinstance(backend.commit([], move.changes), Committed)
    after = look(backend)
    assert (after.members["a"].record.seat, after.seats[0].record.holder) == (None, "b")
    assert isinstance(backend.commit([], late.changes), Refused)


@pytest.mark.promise(1)
def test_a_deposed_holder_that_has_begun_to_run_keeps_its_seat(backend: MemoryBackend) -> None:
    """Its record is part of the commit."""
    view = look(backend)
    move = claim(
        KEYS,
        view,
        view.members["b"],
        ClaimRequest(SeatClaim(0, "a", Evidence.LEFT, inactive=True), []),
        WEAKEST,
        Stamp("c"),
    )
    put(backend, KEYS.member("a"), member("a", 1, seat=0).to_json())
    assert isinstance(backend.commit([], move.changes), Refused)


def test_what_does_not_fit_in_one_commit_is_left_for_the_next(backend: MemoryBackend) -> None:
    """The seat and as many shards as fit at once; the rest follow."""
    _, move = take_over(backend, guarantees=limits(most_operations=4))
    assert (sorted(move.shards), move.rest) == ([0], (1, 2))
    assert len(move.changes) == 4, "with b's record, the seat, and the removal of a"
    _, move = take_over(backend, guarantees=limits(largest_commit=800))
    assert move.rest
    assert sorted([*move.shards, *move.rest]) == [0, 1, 2]


@pytest.mark.promise(5)
def test_what_ran_is_blamed_on_the_former_owner() -> None:
    """Each start that no outcome came of is counted, and says who had it and how that ended."""
    shard = Shard(
        owner="a", name="a", epoch=4, open={"j-0": OpenChunk(4, closed=0b0001, run=0b0111, blame={1: ["x@1:left"]})}
    )
    after = succeed(shard, member("b"), Evidence.PROCESS_GONE, "c")
    chunk = after.open["j-0"]
    assert chunk.run == 0
    assert chunk.blame == {1: ["x@1:left", "a@4:process_gone"], 2: ["a@4:process_gone"]}
    assert (after.owner, after.name, after.epoch, after.id) == ("b", "b", 5, "c")


def test_taking_over_leaves_the_record_it_was_read_from_alone() -> None:
    """A claim that is refused has changed nothing."""
    shard = Shard(owner="a", epoch=4, open={"j-0": OpenChunk(1, run=1)}, counts={"j": {"done": 1}})
    before = shard.copy()
    succeed(shard, member("b"), Evidence.LEFT, "c")
    assert shard == before


def shards_of(view: View, *numbers: int) -> dict[int, Versioned[Shard]]:
    """Some shards as they were read."""
    return {number: read for number in numbers if (read := view.shards[number]) is not None}


def test_a_gift_wakes_its_receiver_by_its_own_record(backend: MemoryBackend) -> None:
    """The shard, and the receiver's record, which it watches, change in one commit."""
    view = look(backend)
    move = transfer(KEYS, view.members["a"].record, view.members["b"], shards_of(view, 2), "c", WEAKEST)
    assert isinstance(backend.commit([], move.changes), Committed)
    after = look(backend)
    assert (after.owned("a"), after.owned("b"), after.members["b"].record.id) == ([0, 1], [2], "c")


def test_a_gift_to_one_who_has_gone_is_refused(backend: MemoryBackend) -> None:
    """The shard stays with its owner."""
    view = look(backend)
    move = transfer(KEYS, view.members["a"].record, view.members["b"], shards_of(view, 2), "c", WEAKEST)
    remaining = [change for change in claim_of_death(view, "b").changes if change.key == KEYS.member("b")]
    backend.commit([], remaining)
    assert isinstance(backend.commit([], move.changes), Refused)


def claim_of_death(view: View, name: str) -> Move:
    """What deletes a member's record: its own leaving."""
    return leave(KEYS, view, view.members[name], {}, "gone", WEAKEST)


def release_shards(
    backend: MemoryBackend, me: str, guarantees: Guarantees = WEAKEST, new_id: Callable[[], str] | None = None
) -> Move:
    """One commit of a member's leaving."""
    view = look(backend)
    move = leave(KEYS, view, view.members[me], shards_of(view, *view.owned(me)), (new_id or ids())(), guarantees)
    assert isinstance(backend.commit([], move.changes), Committed)
    return move


def test_who_leaves_lets_go_of_shards_seat_and_membership(backend: MemoryBackend) -> None:
    """In one commit where it fits; the records of ownership stay."""
    release_shards(backend, "a")
    view = look(backend)
    assert (set(view.members), view.seats[0].record.holder, view.owned(None)) == ({"b"}, None, [0, 1, 2, 3, 4, 5])
    assert [entry.key for entry in backend.list(KEYS.shards)] == [KEYS.shard(n) for n in range(3)]
    shard = view.shards[0]
    assert shard is not None
    assert (shard.record.name, shard.record.epoch) == ("a", 4), "for people: whose it was"


def test_leaving_in_several_commits_keeps_the_seat_until_the_last(backend: MemoryBackend) -> None:
    """Whoever took the seat sooner would take shards whose owner still works."""
    guarantees, new_id = limits(most_operations=3), ids()
    steps: list[tuple[list[int], str | None, bool]] = []
    while not steps or steps[-1][2]:
        move = release_shards(backend, "a", guarantees, new_id)
        view = look(backend)
        steps.append((view.owned("a"), view.seats[0].record.holder, "a" in view.members))
        assert bool(move.rest) == bool(view.owned("a"))
    assert steps == [([1, 2], "a", True), ([2], "a", True), ([], None, False)]


def test_leaving_blames_what_still_runs_on_who_leaves(backend: MemoryBackend) -> None:
    """The start counts, though nobody has crashed."""
    shard = Shard(
        owner="a", name="a", epoch=4, open={"j-0": OpenChunk(3, closed=1, run=0b011, blame={1: ["x@1:left"]})}
    )
    put(backend, KEYS.shard(0), shard.to_json())
    release_shards(backend, "a")
    after = look(backend).shards[0]
    assert after is not None
    assert (after.record.open["j-0"].run, after.record.open["j-0"].blame) == (0, {1: ["x@1:left", "a@4:left"]})


def test_a_shard_taken_meanwhile_refuses_the_leave(backend: MemoryBackend) -> None:
    """Nothing is half left."""
    view = look(backend)
    me: Versioned[Member] = view.members["a"]
    move = leave(KEYS, view, me, shards_of(view, 0, 1), "c", WEAKEST)
    put(backend, KEYS.shard(1), Shard(owner="b", epoch=5).to_json())
    assert isinstance(backend.commit([], move.changes), Refused)
    assert "a" in look(backend).members


def test_bits_are_the_places_of_the_ones() -> None:
    """Lowest first, however large the number."""
    assert list(bits(0b1011 | 1 << 200)) == [0, 1, 3, 200]


@pytest.mark.promise(6)
def test_a_claim_is_refused_if_the_breaker_has_changed_since() -> None:
    """It may have opened; and where it is told of a death, nobody else has told it something meanwhile."""
    backend = MemoryBackend()
    put(backend, KEYS.spec, Spec(2, None, 2, 0, "").to_json())
    put(backend, KEYS.member("b"), member("b").to_json())
    put(backend, KEYS.shard(0), Shard(owner="gone").to_json())
    put(backend, KEYS.breaker, CLOSED_BREAKER.to_json())
    view = store_of(backend).read_view({})
    assert view is not None
    told = CLOSED_BREAKER.after({"gone": Death("gone", Evidence.LEASE_EXPIRED)}, (), "c", opens=False)
    moves = [
        claim(KEYS, view, view.members["b"], ClaimRequest(None, [0], breaker=each), WEAKEST, Stamp("c"))
        for each in (None, told)
    ]
    put(backend, KEYS.breaker, CLOSED_BREAKER.after({}, (), "x", opens=True).to_json())
    for move in moves:
        assert backend.commit(move.conditions, move.changes) == Refused(KEYS.breaker)


def test_a_record_too_large_for_any_commit_holds_up_no_other_shard(backend: MemoryBackend) -> None:
    """Nothing can move it; it is named, and the others move."""
    huge = Shard(owner="a", name="a", counts={f"job-{number}": {"done": 1} for number in range(300)})
    put(backend, KEYS.shard(1), huge.to_json())
    small = limits(largest_commit=6000, largest_value=6000)
    view, claimed = take_over(backend, guarantees=small)
    a, b = view.members["a"], view.members["b"]
    own = shards_of(view, 0, 1, 2)
    moves = [claimed, transfer(KEYS, a.record, b, own, "c", small), leave(KEYS, view, a, own, "c", small)]
    assert [(sorted(move.shards), move.rest, move.unfit) for move in moves] == [([0, 2], (), (1,))] * 3
    assert isinstance(backend.commit([], moves[-1].changes), Committed)
