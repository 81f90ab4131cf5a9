"""Records: what was written is read back, and anything else is garbage, whatever it is."""

import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from core_kit import KEYS, decode_chunk, member
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smoothcluster.records.codec import LARGEST_RECORD_BYTES, GarbageError, Record, dump, load
from smoothcluster.records.group import Member, Seat, Spec
from smoothcluster.records.job import Job
from smoothcluster.records.keys import last_part
from smoothcluster.records.results import outcomes
from smoothcluster.records.shard import OpenChunk, Shard

RECORDS: list[Record] = [
    Spec(3, None, 32, 7, "id"),
    member("a", 3, seat=1),
    Seat(None, "id"),
    Job("sealed", 5, 2, "2026", "id", 1, 2, 3, 4, 5),
]

SHARD = Shard(
    owner="a",
    name="n",
    epoch=3,
    seq=9,
    id="x",
    open={"j-0": OpenChunk(300, closed=1 << 290, run=6, fails={1: 2}, blame={2: ["a@1:left"]})},
    counts={"j": {"done": 3}},
)


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_is_read_back(record: Record) -> None:
    """Field by field."""
    assert type(record).from_json(record.to_json()) == record


def test_a_shard_is_read_back() -> None:
    """Bitmaps of any size, and what is counted for each task."""
    assert Shard.from_json(SHARD.to_json()) == SHARD


def test_unknown_fields_are_left_out() -> None:
    """A later version may write more."""
    assert Seat.from_json(b'{"holder":null,"id":"x","colour":"red"}') == Seat(None, "x")


@pytest.mark.parametrize("value", [b"", b"\xff", b"[]", b"null", b'{"a":', b"[" * 100_000])
def test_what_is_not_a_json_object_is_garbage(value: bytes) -> None:
    """Whoever wrote it was not this version."""
    with pytest.raises(GarbageError):
        load(value)


@pytest.mark.parametrize(
    "data",
    [{}, {"holder": 1, "id": ""}, {"holder": None, "id": None}, {"holder": None}],
)
def test_a_wrong_field_is_garbage(data: object) -> None:
    """Named in the error."""
    with pytest.raises(GarbageError, match=r"Seat\.(holder|id)"):
        Seat.from_json(dump(data))


def test_true_is_not_a_number() -> None:
    """As it is to Python."""
    with pytest.raises(GarbageError, match=r"Spec\.shards"):
        Spec.from_json(dump({"runner": 1, "backup": None, "shards": True, "joins": 0, "id": ""}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shards", 30_000_000),
        ("shards", 0),
        ("runner", 0),
        ("runner", 4097),
        ("backup", -1),
        ("joins", -1),
        ("joins", 2**53 + 1),
    ],
)
def test_a_number_beyond_its_limits_is_garbage(field: str, value: int) -> None:
    """Whoever believes it reads as many keys, or waits for ever."""
    spec = {"runner": 1, "backup": 0, "shards": 32, "joins": 0, "id": ""} | {field: value}
    with pytest.raises(GarbageError, match=rf"Spec\.{field} cannot be {value}"):
        Spec.from_json(dump(spec))


@pytest.mark.parametrize("value", [-(2**63) - 1, 2**63])
def test_every_number_has_at_most_64_bits(value: int) -> None:
    """Arithmetic on longer ones takes ever longer."""
    with pytest.raises(GarbageError, match=r"Job\.tasks"):
        Job.from_json(dump({"state": "open", "tasks": value, "chunks": 0, "at": "", "id": ""}))


WRONG: list[tuple[str, object]] = [
    ("owner", 1),
    ("name", []),
    ("epoch", "1"),
    ("seq", None),
    ("id", 1),
    ("open", []),
    ("open", {"j-0": []}),
    ("open", {"j-0": 1}),
    ("open", {"j-0": [1, "z", "0", {}, {}]}),
    ("open", {"j-0": [1, "0", 0, {}, {}]}),
    ("open", {"j-0": ["1", "0", "0", {}, {}]}),
    ("open", {"j-0": [1, "0", "0", {"x": 1}, {}]}),
    ("open", {"j-0": [1, "0", "0", {"0": "1"}, {}]}),
    ("open", {"j-0": [1, "0", "0", {}, {"0": "a"}]}),
    ("open", {"j-0": [1, "0", "0", {}, {"0": [1]}]}),
    ("open", {"j-0": [0, "0", "0", {}, {}]}),
    ("open", {"j-0": [10**9, "0", "0", {}, {}]}),
    ("open", {"j-0": [2, "-1", "0", {}, {}]}),
    ("open", {"j-0": [2, "0", "-1", {}, {}]}),
    ("open", {"j-0": [2, "4", "0", {}, {}]}),
    ("open", {"j-0": [2, "0", "4", {}, {}]}),
    ("open", {"j-0": [2, "0", "0", {"2": 1}, {}]}),
    ("open", {"j-0": [2, "0", "0", {}, {"-1": []}]}),
    ("open", {"nodash": [2, "0", "0", {}, {}]}),
    ("open", {"a b-0": [2, "0", "0", {}, {}]}),
    ("open", {"a/b-0": [2, "0", "0", {}, {}]}),
    ("counts", {"j": 1}),
    ("counts", {"j": {"done": "1"}}),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_shard_with_a_wrong_field_is_garbage(field: str, value: object) -> None:
    """It is the fence: nothing in it is guessed."""
    data = load(SHARD.to_json())
    data[field] = value
    with pytest.raises(GarbageError, match="the record is not a shard"):
        Shard.from_json(dump(data))


def test_a_shard_without_a_field_is_garbage() -> None:
    """Nothing of it has a default in the store."""
    for name in load(SHARD.to_json()):
        data = load(SHARD.to_json())
        del data[name]
        with pytest.raises(GarbageError):
            Shard.from_json(dump(data))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["owner", "name", "epoch", "seq", "id", "open", "counts", "holder"]), JSON))
def test_whatever_json_says_it_is_a_record_or_garbage(data: dict[str, object]) -> None:
    """No other error escapes."""
    whole = load(SHARD.to_json()) | data
    for kind in (Shard, Seat, Spec, Member, Job):
        for each in (data, whole):
            with suppress(GarbageError):
                kind.from_json(dump(each))


def test_a_copy_of_a_shard_changes_alone() -> None:
    """Down to the lists of blame."""
    before = SHARD.to_json()
    copy = SHARD.copy()
    copy.count("j", "done")
    copy.count("new", "failed", 2)
    copy.open["j-0"].blame[2].append("b@2:left")
    copy.open["j-0"].fails[7] = 1
    del copy.open["j-0"]
    assert SHARD.to_json() == before
    assert copy.counts == {"j": {"done": 4}, "new": {"failed": 2}}


def test_attempts_are_failures_and_starts_that_nothing_came_of() -> None:
    """The mark that a task carries now is not counted."""
    assert [OpenChunk(4, run=15, fails={1: 2, 2: 1}, blame={2: ["a", "b"]}).attempts(n) for n in range(4)] == [
        0,
        2,
        3,
        0,
    ]


def test_every_key_lies_under_its_group() -> None:
    """Groups share a store and nothing else."""
    keys = [
        KEYS.spec, KEYS.member("m"), KEYS.seat(1), KEYS.shard(2), KEYS.job("j"), KEYS.tasks(3), KEYS.chunk(3, "j-0"),
        KEYS.seen("j", 3), KEYS.results("j", 3), KEYS.events("m"), KEYS.all_events,
    ]  # fmt: skip
    assert all(key.startswith("g/") for key in keys)
    assert last_part(KEYS.chunk(3, "j-0")) == "j-0"
    assert KEYS.chunk(3, "j-0").startswith(KEYS.tasks(3))


READERS: dict[str, Callable[[bytes], object]] = {
    "record": Job.from_json,
    "shard": Shard.from_json,
    "chunk": decode_chunk,
    "results": lambda value: list(outcomes(value)),
    "event": load,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_what_is_too_large_is_not_even_looked_at(read: Callable[[bytes], object]) -> None:
    """Whatever it holds: here what would be a record of any kind, but for its size."""
    with pytest.raises(GarbageError, match="more than any record of this version"):
        read(b"[" + b" " * LARGEST_RECORD_BYTES + b"]")


class Bomb:
    """A stranger's object: to unpickle it is to run what it says."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_what_is_read_is_never_executed(read: Callable[[bytes], object], tmp_path: Path) -> None:
    """Neither a pickle nor a program is anything but garbage."""
    mark = tmp_path / "mark"
    for value in (pickle.dumps(Bomb(mark)), f"__import__('pathlib').Path({str(mark)!r}).touch()".encode()):
        with pytest.raises(GarbageError):
            read(value)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists(), "it would have shown"
