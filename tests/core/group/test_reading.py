"""A picture of the group: read in an order that never makes a newcomer look dead, and free of garbage."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from core_kit import KEYS, Garbage, member, picture, put, runners, store_of

from smoothcluster.backend import CoordinationBackend, Delete, Entry
from smoothcluster.group.view import View
from smoothcluster.memory import MemoryBackend
from smoothcluster.model import Evidence
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.group import Member, Seat, Spec
from smoothcluster.records.shard import OpenChunk, Shard

SPEC = Spec(2, 0, 3, 0, "")


@pytest.fixture
def backend() -> MemoryBackend:
    """A group of one member, who holds a seat and a shard."""
    backend = MemoryBackend()
    put(backend, KEYS.spec, SPEC.to_json())
    put(backend, KEYS.seat(0), Seat("a", "").to_json())
    put(backend, KEYS.shard(1), Shard(owner="a").to_json())
    put(backend, KEYS.member("a"), member("a").to_json())
    return backend


def look(backend: CoordinationBackend, report: Garbage | None = None, last: View | None = None) -> View:
    """The whole group."""
    view = store_of(backend, report).read_view({}, last)
    assert view is not None
    return view


def test_a_group_that_does_not_exist_has_no_picture() -> None:
    """It begins with its numbers."""
    assert store_of(MemoryBackend()).read_view({}) is None


def test_what_is_not_written_yet_is_nobodys(backend: MemoryBackend) -> None:
    """A seat or shard without a record is free, and its first claim creates it."""
    view = look(backend)
    assert (view.spec.record.runner, len(view.seats), len(view.shards)) == (2, 2, 3)
    assert (view.seats[1].record.holder, view.seats[1].version) == (None, None)
    assert (view.owned("a"), view.owned(None)) == ([1], [0, 2])


def test_before_the_first_member_there_are_no_seats() -> None:
    """A submit may come first: it says nothing of Runners."""
    backend = MemoryBackend()
    put(backend, KEYS.spec, replace(SPEC, runner=None, backup=None).to_json())
    assert (look(backend).runners(), look(backend).seats) == ([], [])


def test_shards_are_read_before_seats_and_both_before_members(
    backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owned a shard held a seat before and had joined before that, so it is there when read later."""
    reads: list[str] = []
    get_many, listing = backend.store.get_many, backend.store.list

    def noted_get(keys: Sequence[str]) -> list[Entry | None]:
        reads.extend(keys)
        return get_many(keys)

    def noted_list(directory: str) -> list[Entry]:
        reads.append(directory)
        return listing(directory)

    monkeypatch.setattr(backend.store, "get_many", noted_get)
    monkeypatch.setattr(backend.store, "list", noted_list)
    look(backend)
    assert reads.index(KEYS.shard(2)) < reads.index(KEYS.seat(0)) < reads.index(KEYS.members)


def test_a_newcomer_that_joins_while_we_read_is_not_taken_for_dead(
    backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a seat between our reading of seats and of members: seen later, it is among the living."""
    before = backend.store.list

    def late(directory: str) -> list[Entry]:
        monkeypatch.undo()
        put(backend, KEYS.member("new"), member("new", 1).to_json())
        put(backend, KEYS.seat(1), Seat("new", "").to_json())
        return before(directory)

    monkeypatch.setattr(backend.store, "list", late)
    view = look(backend)
    assert view.verdict("new") is None
    assert view.seats[1].record.holder is None


def test_a_member_that_is_not_there_has_expired() -> None:
    """It was seen to own something, and is missing from what was read later."""
    assert picture([], ["a"]).verdict("a") is Evidence.LEASE_EXPIRED


def test_who_is_missing_from_a_glance_may_be_new() -> None:
    """Members that were read before the rest do not tell the dead from newcomers."""
    assert picture([], ["a"], complete=False).verdict("a") is None


def test_what_nobody_holds_was_left() -> None:
    """None is not a member that could live."""
    assert picture([], [None]).verdict(None) is Evidence.LEFT


def test_who_is_proved_dead_is_not_living_though_its_record_is_there() -> None:
    """The proof is faster than the lease."""
    view = picture(runners("a", "b"), ["a", "b"], gone={"a": Evidence.PROCESS_GONE})
    assert (set(view.living()), view.seated(), view.verdict("a")) == ({"b"}, {"b": 1}, Evidence.PROCESS_GONE)


def test_a_garbage_seat_is_free_and_reported(backend: MemoryBackend) -> None:
    """It holds nothing but its holder; whoever takes it writes over what lies there."""
    put(backend, KEYS.seat(0), b"\xff")
    report = Garbage()
    seat = look(backend, report).seats[0]
    assert (seat.record.holder, list(report.found)) == (None, [KEYS.seat(0)])
    assert seat.version is not None


def test_a_garbage_shard_is_nobodys_and_reported(backend: MemoryBackend) -> None:
    """Its epoch and books are lost: nobody may touch it."""
    put(backend, KEYS.shard(1), b"[]")
    report = Garbage()
    view = look(backend, report)
    assert (view.shards[1], view.owned("a"), list(report.found)) == (None, [], [KEYS.shard(1)])


@pytest.mark.parametrize("value", [b"no", member("another").to_json()], ids=["not JSON", "of another name"])
def test_a_garbage_member_is_left_out_and_reported(backend: MemoryBackend, value: bytes) -> None:
    """Its key and what it says must agree, or it could pass for somebody else."""
    put(backend, KEYS.member("b"), value)
    report = Garbage()
    assert (list(store_of(backend, report).read_members()), list(report.found)) == (["a"], [KEYS.member("b")])


def test_garbage_in_place_of_the_spec_is_fatal(backend: MemoryBackend) -> None:
    """Without its numbers there is no group; the error names the key."""
    put(backend, KEYS.spec, b"{}")
    with pytest.raises(GarbageError, match=KEYS.spec):
        store_of(backend).read_spec()


def test_the_last_look_saves_a_step_but_is_not_believed(backend: MemoryBackend) -> None:
    """If the numbers have changed since, everything is read again by the new ones."""
    last = look(backend)
    put(backend, KEYS.spec, replace(SPEC, runner=4).to_json())
    assert len(look(backend, last=last).seats) == 4


def test_a_group_that_has_gone_since_the_last_look_has_no_picture(backend: MemoryBackend) -> None:
    """Numbers remembered do not make a group."""
    empty = MemoryBackend()
    assert store_of(empty).read_ownership(SPEC) is None


def test_a_glance_reads_a_seat_and_its_holders_shards(backend: MemoryBackend) -> None:
    """One short step; all else is as it was at the last look."""
    last = look(backend)
    put(backend, KEYS.member("b"), member("b").to_json())
    put(backend, KEYS.seat(0), Seat("b", "").to_json())
    put(backend, KEYS.seat(1), Seat("a", "").to_json())
    for number in (0, 1):
        put(backend, KEYS.shard(number), Shard(owner="b").to_json())
    view, ahead = store_of(backend).refresh(replace(last, gone={"a": Evidence.PROCESS_GONE}), last.owned("a"), 0)
    assert (set(view.members), view.complete, view.verdict("b"), view.seated()) == ({"a"}, False, None, {"b": 0})
    assert (view.owned("b"), view.seats[1], ahead) == ([1], last.seats[1], {})


def test_a_glance_brings_the_chunks_that_are_to_be_resumed(backend: MemoryBackend) -> None:
    """Those of the first shard with any, two at most; one that has gone since is left out."""
    names = {1: ["j-a", "j-b", "j-c"], 2: ["j-d"]}
    for number, chunks in names.items():
        put(backend, KEYS.shard(number), Shard(owner="a", open={name: OpenChunk(1) for name in chunks}).to_json())
        for name in set(chunks) - {"j-b"}:
            put(backend, KEYS.chunk(number, name), name.encode())
    _, ahead = store_of(backend).refresh(look(backend), [0, 1, 2])
    assert {key: entry.value for key, entry in ahead.items()} == {KEYS.chunk(1, "j-a"): b"j-a"}


def test_a_glance_at_what_has_gone_shows_nothing_there(backend: MemoryBackend) -> None:
    """A whole look follows and tells."""
    last = look(backend)
    view, _ = store_of(MemoryBackend()).refresh(replace(last, gone={"a": Evidence.PROCESS_GONE}), last.owned("a"), 0)
    assert (view.owned("a"), view.seated(), view.living()) == ([], {}, {})


def test_only_changed_records_are_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a look costs depends on what has changed, not on how large the group is."""
    backend = MemoryBackend()
    put(backend, KEYS.spec, Spec(1, None, 3, 0, "").to_json())
    for name in "ab":
        put(backend, KEYS.member(name), member(name).to_json())
    for number in range(3):
        put(backend, KEYS.shard(number), Shard(owner="a").to_json())
    store = store_of(backend)
    assert store.read_view({}) is not None
    parsed: list[str] = []
    for kind in (Member, Shard):
        monkeypatch.setattr(kind, "from_json", noting(kind.from_json, parsed))  # pyright: ignore[reportUnknownArgumentType]
    put(backend, KEYS.shard(1), Shard(owner="b").to_json())
    view = store.read_view({})
    assert view is not None
    assert (view.owned("a"), view.owned("b"), sorted(view.members)) == ([0, 2], [1], ["a", "b"])
    assert len(parsed) == 1


def noting(parse: Callable[[bytes], object], parsed: list[str]) -> Callable[[bytes], object]:
    """*parse*, with a note of each call."""

    def noted(value: bytes) -> object:
        parsed.append(value.decode())
        return parse(value)

    return noted


def test_a_key_that_comes_again_with_an_old_version_is_parsed_again() -> None:
    """Stores may begin to count again where a key is created again."""
    backend = MemoryBackend()
    put(backend, KEYS.spec, Spec(1, None, 1, 0, "").to_json())
    records = [member("a", 1), member("a", 2)]
    versions: set[str] = set()
    store = store_of(backend)
    for record in records:
        put(backend, KEYS.member("a"), record.to_json())
        found = store.read_members()["a"]
        versions.add(str(found.version))
        assert found.record == record
        backend.commit([], [Delete(KEYS.member("a"))])
    assert len(versions) == 1, "this store repeats versions"


def test_garbage_is_reported_at_each_look() -> None:
    """It is not kept as if it were a record."""
    backend = MemoryBackend()
    put(backend, KEYS.spec, Spec(1, None, 1, 0, "").to_json())
    put(backend, KEYS.member("a"), b"nonsense")
    put(backend, KEYS.shard(0), b"nonsense")
    report = Garbage()
    store = store_of(backend, report)
    for _ in range(2):
        view = store.read_view({})
        assert view is not None
        assert (view.shards, dict(view.members)) == ([None], {})
        assert sorted(report.found) == [KEYS.member("a"), KEYS.shard(0)]
        report.found.clear()
