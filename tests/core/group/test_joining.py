"""Joining: a name of one's own, a place in the order, and agreement on the numbers."""

from collections.abc import Callable
from typing import final

import pytest
from core_kit import KEYS, ids, member, put, store_of

from smoothcluster.backend import CoordinationBackend, Entry, Lease
from smoothcluster.errors import LeaseLostError, NameInUseError, SpecMismatchError, UsageError
from smoothcluster.group.joining import free_name, try_join
from smoothcluster.group.spec import Wanted, new_spec
from smoothcluster.group.view import Versioned
from smoothcluster.memory import MemoryBackend, MemoryStore
from smoothcluster.records.group import Member, Spec
from smoothcluster.testing import Faulty


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


def test_joins_are_counted(gate: Gate) -> None:
    """The counter orders members and never goes back."""
    joins = [gate.join(incarnation).join for incarnation in "ab"]
    gate.leases["b"].revoke()
    assert [*joins, gate.join("c").join] == [1, 2, 3]
    assert gate.spec.joins == 3


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
    assert gate.join("b", runner=20, backup=3).join == 2
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
    assert (found.record.name, gate.spec.joins) == ("x", 1)


def test_a_join_that_lands_after_the_next_try_does_no_harm(gate: Gate) -> None:
    """The counter has moved on: the late one is refused."""
    backend = Faulty(MemoryBackend(gate.store))
    backend.hold()
    assert gate.attempt("a", Wanted("x", 2, None), backend) is None
    assert gate.attempt("a", Wanted("x", 2, None), backend)
    backend.deliver()
    assert (gate.spec.joins, len(store_of(gate.backend).read_members())) == (1, 1)


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
            gate.join(late.pop(), runner=1, backup=1)
        return listing(directory)

    monkeypatch.setattr(gate.store, "list", joined_meanwhile)
    wanted = Wanted("crawler_<index>", 1, 1)
    assert gate.attempt("second", wanted) is None, "somebody was faster"
    found = gate.attempt("second", wanted)
    assert found is not None
    assert found.record.name == "crawler_1"
    with pytest.raises(SpecMismatchError):
        gate.attempt("third", Wanted("crawler_<index>", 5, 5))
