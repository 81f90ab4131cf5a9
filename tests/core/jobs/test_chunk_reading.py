"""A chunk that cannot be read as a whole: its good tasks are saved, and each other one keeps its place."""

import json

import pytest

from smoothcluster.jobs.chunk_reading import UnreadableTask, lost_chunk, read_chunk
from smoothcluster.jobs.chunks import pack, size_of
from smoothcluster.records.codec import GarbageError

GOOD = [{"id": str(number)} for number in range(4)]


def shape(name: str, value: object, open_size: int | None = None) -> list[str]:
    """The ids read from a chunk; those of place holders in brackets."""
    text = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    found = read_chunk(name, text, open_size)
    return [f"[{task.id}]" if isinstance(task, UnreadableTask) else task.id for task in found]


def test_a_chunks_name_tells_how_many_tasks_it_has() -> None:
    """Names of earlier versions do not, and nobody believes a number out of bounds."""
    (packet,) = pack([(b"x" * 16, "{}")] * 26, 1)
    assert packet.name("j-x", "00000001") == "j-x-00000001+1a"
    assert size_of("j-x-00000001+1a") == 26
    assert [size_of(name) for name in ("j-00000001", "j-1+0", "j-1+10001", "j-1+x", "j-1+1.2")] == [None] * 5


@pytest.mark.parametrize(
    "bad",
    [
        {"id": "x", "params": {"page": 1}},
        {"id": "x", "colour": 1},
        {"id": "x", "url": None},
        {"id": "x", "body64": "?"},
    ],
)
def test_a_task_that_no_constructor_takes_keeps_its_id(bad: object) -> None:
    """Its neighbours are read, whatever the name says."""
    for name, size in (("j-0", None), ("j-0+5", None), ("j-0", 5)):
        assert shape(name, [*GOOD[:2], bad, *GOOD[2:]], size) == ["0", "1", "[x]", "2", "3"]


@pytest.mark.parametrize("bad", [{"id": 7}, {"id": "x" * 513}, {"url": 5}, 7, None, [], {}])
def test_a_task_without_an_id_is_named_by_its_place(bad: object) -> None:
    """So that its outcome can be found."""
    assert shape("j-0", [*GOOD[:2], bad, *GOOD[2:]]) == ["0", "1", "[j-0#2]", "2", "3"]


def test_a_task_of_which_no_json_is_left_is_named_by_its_place() -> None:
    """The tasks before it and after it are read."""
    text = json.dumps(GOOD, separators=(",", ":")).encode()
    broken = text.replace(b'"1"}', b'"1\xff"')
    assert shape("j-0+4", broken) == ["0", "[j-0+4#1]", "2", "3"]
    assert shape("j-0", broken, 4) == ["0", "[j-0#1]", "2", "3"]
    with pytest.raises(GarbageError):
        read_chunk("j-0", broken)


@pytest.mark.parametrize("value", [b"", b"garbage", b"{}", b"[" * 100_000, b"5", b'"a"'])
def test_of_a_chunk_that_is_none_every_task_has_a_place(value: bytes) -> None:
    """As many as the name says, or the record of the shard."""
    assert shape("j-0+2", value) == ["[j-0+2#0]", "[j-0+2#1]"]
    assert shape("j-0", value, 2) == ["[j-0#0]", "[j-0#1]"]


def test_an_open_chunk_of_another_length_is_not_trusted() -> None:
    """Which of its tasks have outcomes is told by their places: one of them could be recorded twice."""
    assert shape("j-0+4", GOOD[:3], 4) == [f"[j-0+4#{index}]" for index in range(4)]
    assert shape("j-0+4", [*GOOD, *GOOD], 4) == [f"[j-0+4#{index}]" for index in range(4)]


def test_a_waiting_chunk_of_another_length_gives_what_it_has() -> None:
    """Nothing of it has run yet; the count is the name's."""
    assert shape("j-0+4", GOOD[:3]) == ["0", "1", "2", "[j-0+4#3]"]
    assert shape("j-0+2", GOOD) == ["0", "1"]


def test_a_lost_chunk_has_a_place_for_each_task() -> None:
    """Each says that the store has lost it."""
    assert [(task.id, "lost" in getattr(task, "error", "")) for task in lost_chunk("j-0", 2)] == [
        ("j-0#0", True),
        ("j-0#1", True),
    ]
