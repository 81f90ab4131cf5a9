"""Joining: a name of one's own, a place in the order, and agreement on the numbers."""

from collections.abc import Callable
from dataclasses import replace
from typing import final

import pytest
from core_kit import KEYS, ids, member, put, store_of

from smoothcluster.backend import CoordinationBackend, Create, Entry, Lease, Refused
from smoothcluster.errors import LeaseLostError, NameInUseError, SpecMismatchError, UsageError
from smoothcluster.group.handover import removal
from smoothcluster.group.joining import free_name, try_join
from smoothcluster.group.spec import Wanted, new_spec
from smoothcluster.group.view import Versioned
from smoothcluster.memory import MemoryBackend, MemoryStore
from smoothcluster.records.group import Member, Spec
from smoothcluster.testing import Faulty
from smoothcluster.testing.lagging import Lagging


@final
class Gate:
    """A store, and those who join what lies in it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.backend = MemoryBackend(self.store)
        self.leases: dict[str, Lease] = {}
        self.new_id = ids()

    def attempt(
        self, incarnation: str, wanted: Wanted, backend: CoordinationBackend | None = None
    ) -> Versioned[Member] | None:
        """One try."""
        backend = backend or self.backend
        lease = self.leases.setdefault(incarnation, backend.lease(60))
        return try_join(store_of(backend, new_id=self.new_id), wanted, member(incarnation), lease)

    def join(
        self, incarnation: str, name: str = "crawler_<index>", runner: int = 2, backup: int | None = None
    ) -> Member:
        """One try that must succeed."""
        found = self.attempt(incarnation, Wanted(name, runner, backup))
        assert found is not None
        return found.record

    @property
    def members(self) -> list[Member]:
        """The members, in the order of joins."""
        return sorted((each.record for each in store_of(self.backend).read_members().values()), key=lambda m: m.place)

    @property
    def spec(self) -> Spec:
        """The group's numbers."""
        spec = store_of(self.backend).read_spec()
        assert spec is not None
        return spec.record


@pytest.fixture
def gate() -> Gate:
    """An empty store."""
    return Gate()


def test_the_smallest_free_index_is_filled_in(gate: Gate) -> None:
    """A name that has become free is used again."""
    names = [gate.join(incarnation).name for incarnation in "abc"]
    assert names == ["crawler_0", "crawler_1", "crawler_2"]
    gate.leases["b"].revoke()
    assert gate.join("d").name == "crawler_1"


def test_a_name_that_a_living_member_has_is_refused(gate: Gate) -> None:
    """The error says what to do."""
    gate.join("a", "x")
    with pytest.raises(NameInUseError, match=r"'x'.*<index>"):
        gate.join("b", "x")


def test_a_name_may_hold_the_index_more_than_once() -> None:
    """Each place gets the same number."""
    assert free_name("a<index>_<index>", {"a0_0"}) == "a1_1"


def test_joins_are_ordered(gate: Gate) -> None:
    """The order is that of the commits, and never goes back; a join that fits changes no record of the group."""
    places = [gate.join(incarnation).place for incarnation in "ab"]
    before = gate.backend.get(KEYS.spec)
    gate.leases["b"].revoke()
    places.append(gate.join("c").place)
    assert places == sorted(set(places))
    assert gate.backend.get(KEYS.spec) == before


def test_a_join_after_another_went_to_the_end_of_the_queue_is_behind_it(gate: Gate) -> None:
    """A change of the spec comes between them: all later joins have the new count."""
    first = gate.join("a")
    spec = replace(gate.spec, joins=gate.spec.joins + 1)
    put(gate.backend, KEYS.spec, spec.to_json())
    requeued = replace(first, join=spec.joins)
    assert first.place < requeued.place < gate.join("b").place


def test_a_member_lives_on_its_lease(gate: Gate) -> None:
    """When that goes, so does the record."""
    gate.join("a")
    gate.leases["a"].revoke()
    assert store_of(gate.backend).read_members() == {}


def test_a_member_joins_without_a_seat(gate: Gate) -> None:
    """Seats are claimed afterwards."""
    found = gate.attempt("a", Wanted("x", 2, None))
    assert found is not None
    assert found.record.seat is None
    assert found == store_of(gate.backend).read_members()["a"], "version and all"


def test_the_first_members_numbers_are_the_groups(gate: Gate) -> None:
    """By default 32 shards, and at least four for each Runner."""
    gate.join("a", runner=9, backup=1)
    assert (gate.spec.runner, gate.spec.backup, gate.spec.shards) == (9, 1, 36)
    assert new_spec(Wanted("x", 1, None), "").shards == 32
    assert new_spec(Wanted("x", 1, None, 5), "").shards == 5


@pytest.mark.parametrize(
    ("runner", "backup", "words"),
    [(3, 1, "runner=2, backup=1.*runner=3, backup=1"), (2, None, "runner=2, backup=1.*asks for runner=2;")],
)
def test_other_numbers_than_the_living_groups_are_an_error_naming_both(
    gate: Gate, runner: int, backup: int | None, words: str
) -> None:
    """Whichever of the two was meant, one sees where they differ."""
    gate.join("a", runner=2, backup=1)
    with pytest.raises(SpecMismatchError, match=words):
        gate.join("b", runner=runner, backup=backup)


def test_with_no_living_member_the_numbers_change(gate: Gate) -> None:
    """Nobody is there to disagree; the counter goes on, the shards stay."""
    gate.join("a", runner=2)
    gate.leases["a"].revoke()
    wanted = Wanted("x", 20, 3)
    assert gate.attempt("b", wanted) is None, "the change is announced first"
    assert (gate.spec.runner, gate.spec.changing is None) == (2, False)
    assert gate.attempt("b", wanted)
    assert gate.spec.changing is None
    assert (gate.spec.runner, gate.spec.backup, gate.spec.shards) == (20, 3, 32)


def test_the_number_of_shards_never_changes(gate: Gate) -> None:
    """Tasks were divided by it: even an empty group refuses another, and takes its own."""
    gate.join("a")
    gate.leases["a"].revoke()
    with pytest.raises(SpecMismatchError, match=r"shards=32.*64"):
        gate.attempt("b", Wanted("x", 2, None, 64))
    assert gate.attempt("b", Wanted("x", 2, None, 32))


def test_a_group_that_began_with_a_submit_takes_the_first_members_numbers(gate: Gate) -> None:
    """A client knows nothing of Runners."""
    put(gate.backend, KEYS.spec, new_spec(None, "c").to_json())
    gate.join("a", runner=3, backup=2)
    assert (gate.spec.runner, gate.spec.backup) == (3, 2)


def test_of_two_who_join_at_once_one_is_late_and_tries_again(gate: Gate) -> None:
    """Else both could have one name."""
    backend = Meddler(gate.backend, lambda: gate.join("b"))
    assert gate.attempt("a", Wanted("crawler_<index>", 2, None), backend.faulty) is None
    assert gate.join("a").name == "crawler_1"


@final
class Meddler:
    """A connection on which somebody else is faster, once."""

    def __init__(self, inner: MemoryBackend, meddle: Callable[[], object]) -> None:
        own = MemoryBackend(inner.store)
        commit = own.commit

        def late(*parts: object) -> object:
            own.commit = commit  # type: ignore[method-assign]
            meddle()
            return commit(*parts)  # type: ignore[arg-type]

        own.commit = late  # type: ignore[assignment,method-assign]  # pyright: ignore[reportAttributeAccessIssue]
        self.faulty = own


def test_a_join_whose_answer_was_lost_is_found_again(gate: Gate) -> None:
    """The next try finds the record under its own incarnation, and joins no second time."""
    backend = Faulty(MemoryBackend(gate.store))
    backend.drop_answer()
    assert gate.attempt("a", Wanted("x", 2, None), backend) is None
    found = gate.attempt("a", Wanted("x", 2, None), backend)
    assert found is not None
    assert (found.record.name, len(gate.members)) == ("x", 1)


def test_a_join_that_lands_after_the_next_try_does_no_harm(gate: Gate) -> None:
    """The counter has moved on: the late one is refused."""
    backend = Faulty(MemoryBackend(gate.store))
    backend.hold()
    assert gate.attempt("a", Wanted("x", 2, None), backend) is None
    assert gate.attempt("a", Wanted("x", 2, None), backend)
    backend.deliver()
    assert len(gate.members) == 1


def test_who_has_no_lease_does_not_join(gate: Gate) -> None:
    """It has to begin again with a new one."""
    gate.leases["a"] = gate.backend.lease(60)
    gate.leases["a"].revoke()
    with pytest.raises(LeaseLostError):
        gate.join("a")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted("x", 0, None), "runner .* at least 1, not 0"),
        (Wanted("x", 1, -1), "backup .* at least 0, not -1"),
        (Wanted("x", 1, 0, 0), "shards .* at least 1, not 0"),
        (Wanted("x", True, None), "runner .* not True"),
        (Wanted("x/y", 1, None), "name 'x/y'"),
        (Wanted("", 1, None), "name ''"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(wanted: Wanted, words: str) -> None:
    """The message says which number or name, and what it must be."""
    with pytest.raises(UsageError, match=words):
        wanted.check()


def test_what_makes_sense_is_returned() -> None:
    """The index is not part of the name yet."""
    wanted = Wanted("x_<index>", 1, 0)
    assert wanted.check() is wanted
    assert wanted.rejoining("x_3").name == "x_3"


def test_numbers_and_members_that_do_not_belong_together_are_read_again(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody begins the group anew between our reading of its old numbers and of its members: that is no mismatch."""
    gate.join("old", runner=3, backup=2)
    gate.leases["old"].revoke()
    listing = gate.store.list
    late = ["first"]

    def joined_meanwhile(directory: str) -> list[Entry]:
        while late:
            incarnation = late.pop()
            assert gate.attempt(incarnation, Wanted("crawler_<index>", 1, 1)) is None, "the change is announced first"
            gate.join(incarnation, runner=1, backup=1)
        return listing(directory)

    monkeypatch.setattr(gate.store, "list", joined_meanwhile)
    wanted = Wanted("crawler_<index>", 1, 1)
    assert gate.attempt("second", wanted) is None, "somebody was faster"
    found = gate.attempt("second", wanted)
    assert found is not None
    assert found.record.name == "crawler_1"
    with pytest.raises(SpecMismatchError):
        gate.attempt("third", Wanted("crawler_<index>", 5, 5))


def lockstep(gate: Gate, size: int, wanted: Wanted) -> int:
    """Let so many join at once: in each round, all read the store as of the beginning. Return the rounds it takes."""
    joining = {f"i{number}": BehindOthers(gate.store) for number in range(size)}
    for rounds in range(1, size + 2):
        for client in joining.values():
            client.lagging.catch_up()
        joining = {each: client for each, client in joining.items() if gate.attempt(each, wanted, client) is None}
        if not joining:
            return rounds
    raise AssertionError(f"{len(joining)} have not joined")


@final
class BehindOthers(MemoryBackend):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    """A client that reads the store as of the last `Lagging.catch_up`."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.lagging = Lagging(store)
        self.get_many, self.list = self.lagging.get_many, self.lagging.list  # type: ignore[method-assign]


@pytest.mark.parametrize("size", [2, 50])
def test_members_that_start_together_all_join_in_a_few_rounds(gate: Gate, size: int) -> None:
    """However many there are, no index is left free, and no two share a place."""
    assert lockstep(gate, size, Wanted("crawler_<index>", 2, None)) <= 4
    assert {member.name for member in gate.members} == {f"crawler_{index}" for index in range(size)}
    assert len({member.place for member in gate.members}) == size
    assert store_of(gate.backend).backend.keys(KEYS.joining) == []


def test_members_that_start_together_fill_the_free_indices(gate: Gate) -> None:
    """Those that became free first of all."""
    for incarnation in "abcdef":
        gate.join(incarnation)
    for incarnation in "bd":
        gate.leases[incarnation].revoke()
    assert lockstep(gate, 5, Wanted("crawler_<index>", 2, None)) <= 4
    assert {member.name for member in gate.members} == {f"crawler_{index}" for index in range(9)}


def test_members_of_other_names_never_refuse_each_other(gate: Gate) -> None:
    """Nothing that one sets is compared by another."""
    gate.join("first", "first")
    clients = {name: BehindOthers(gate.store) for name in ("x", "y", "z")}
    for name, client in clients.items():
        assert gate.attempt(name, Wanted(name, 2, None), client) is None, "its reads lag: it finds itself next time"
    assert [member.name for member in gate.members] == ["first", "x", "y", "z"]


def test_a_join_that_read_the_old_numbers_is_refused_after_they_changed(gate: Gate) -> None:
    """Its member would run under numbers that it did not ask for."""
    gate.join("old", "old", runner=2)
    late = BehindOthers(gate.store)
    gate.leases["old"].revoke()
    assert gate.attempt("b", Wanted("b", 3, 1)) is None
    assert gate.attempt("a", Wanted("a", 2, None), late) is None
    assert gate.attempt("b", Wanted("b", 3, 1))
    late.lagging.catch_up()
    with pytest.raises(SpecMismatchError, match=r"runner=3, backup=1.*runner=2"):
        gate.attempt("a", Wanted("a", 2, None), late)


def test_a_change_of_numbers_that_missed_a_join_is_refused(gate: Gate) -> None:
    """The join took the announcement back, and the group lives: the numbers stay."""
    gate.join("old", "old", runner=2)
    gate.leases["old"].revoke()
    assert gate.attempt("b", Wanted("b", 3, 1)) is None, "announced"
    changer = BehindOthers(gate.store)
    assert gate.attempt("a", Wanted("a", 2, None)), "it joins all the same"
    assert gate.spec.changing is None
    assert gate.attempt("b", Wanted("b", 3, 1), changer) is None
    assert (gate.spec.runner, gate.spec.backup) == (2, None)
    with pytest.raises(SpecMismatchError):
        gate.attempt("b", Wanted("b", 3, 1))


def test_a_queued_member_that_joined_before_its_place_landed_holds_up_nobody(gate: Gate) -> None:
    """The late key in the queue stays with the member's lease, and counts for nobody."""
    gate.join("a")
    backend = Faulty(MemoryBackend(gate.store))
    store_of(gate.backend).backend.commit([], [Create(KEYS.joiner("a"), b"", gate.leases["a"])])
    assert gate.attempt("b", Wanted("crawler_<index>", 2, None), backend)
    assert [member.name for member in gate.members] == ["crawler_0", "crawler_1"]


def test_the_name_goes_with_the_record_of_a_member_that_is_removed(gate: Gate) -> None:
    """So a restarted process has it at once; a removal that lands late leaves the new member alone."""
    record = gate.join("a", "x")
    changes = removal(KEYS, record)
    gate.backend.commit([], changes)
    gate.join("b", "x")
    assert isinstance(gate.backend.commit([], changes), Refused)
    assert gate.backend.get(KEYS.name("x")) is not None
