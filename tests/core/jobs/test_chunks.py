"""Tasks in chunks: where each belongs, and how many become few."""

from typing import cast

import pytest
from core_kit import decode_chunk
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcluster.errors import UsageError
from smoothcluster.jobs.chunks import (
    CHUNK_BYTES,
    CHUNK_TASKS,
    Packer,
    digest,
    encode_task,
    job_of,
    pack,
    shard_of,
)
from smoothcluster.model import LARGEST_VALUE, Task
from smoothcluster.records.codec import GarbageError


def test_a_chunks_job_is_read_from_its_name() -> None:
    """Job ids may hold dashes; what is behind the last one is the chunk's own."""
    assert job_of("my-job-00000001") == "my-job"
    assert job_of("...-0") == "..."
    assert job_of("j-1f.0.2.3") == "j"


@pytest.mark.parametrize("name", ["", "x", "-x", "x-", "-", ".-x", "..-x", "a:b-x", "j" * 101 + "-x"])
def test_a_name_that_says_no_job_is_garbage(name: str) -> None:
    """Nobody can tell whose tasks these are, or keys could not be made of it."""
    with pytest.raises(GarbageError):
        job_of(name)


def test_a_task_is_read_back_from_its_chunk() -> None:
    """With all its fields."""
    tasks = [Task(id="a"), Task(url="http://x", body=b"\xff", meta={"depth": [1, None]}), Task(id="\udcff")]
    texts = ",".join(map(encode_task, tasks))
    assert decode_chunk(f"[{texts}]".encode()) == tasks


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"{}}",
        b"3",
        b"[]",
        b"[1]",
        b'[{"id":1}]',
        b'[{"colour":"x"}]',
        b"[{}]",
        b"[" * 100_000,
        b'[{"id":"a"},',
        b'[{"id":"a"}]x',
    ],
)
def test_what_holds_no_tasks_is_garbage(value: bytes) -> None:
    """And of which nobody knows how many tasks it had: no other error escapes."""
    with pytest.raises(GarbageError):
        decode_chunk(value)


@pytest.mark.parametrize("meta", [object(), float("nan"), {1, 2}], ids=repr)
def test_a_task_that_is_no_json_is_refused_by_its_id(meta: object) -> None:
    """Before anything is written, even if the value became so after the task was made."""
    task = Task(id="mine", meta=[])
    cast("list[object]", task.meta).append(meta)
    with pytest.raises(UsageError, match="'mine'"):
        encode_task(task)


def test_a_task_that_contains_itself_is_refused() -> None:
    """Its JSON would have no end."""
    meta: list[object] = []
    task = Task(id="mine", meta=meta)
    meta.append(meta)
    with pytest.raises(UsageError, match="'mine'"):
        encode_task(task)


def test_a_task_that_is_too_large_is_refused_with_the_limit() -> None:
    """One of the largest size fits into a chunk."""
    with pytest.raises(UsageError, match=str(LARGEST_VALUE)):
        encode_task(Task(id="a", meta="x" * LARGEST_VALUE))
    text = encode_task(Task(id="a", meta="x" * (LARGEST_VALUE - 50)))
    assert len(pack([(digest("a"), text)], 1)[0].value()) <= CHUNK_BYTES


def test_an_id_that_is_no_unicode_has_a_digest() -> None:
    """Links are found in pages that were decoded in spite of errors."""
    assert digest("\udcff") != digest("\udcfe")
    assert len(digest("\udcff")) == 16


def test_a_packet_holds_so_many_tasks_at_most() -> None:
    """The one that had to go is returned, whole."""
    packer = Packer(1)
    texts = [encode_task(Task(id=str(number))) for number in range(CHUNK_TASKS + 1)]
    gone = [packer.add(digest(str(number)), text) for number, text in enumerate(texts)]
    assert gone[:-1] == [None] * CHUNK_TASKS
    full = gone[-1]
    assert full is not None
    assert len(decode_chunk(full.value())) == CHUNK_TASKS
    assert [len(packet.texts) for packet in packer.remaining()] == [1]
    assert list(packer.remaining()) == []


sizes = st.lists(st.integers(0, LARGEST_VALUE - 100) | st.integers(0, 50), max_size=30)


@given(sizes, st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_packing_loses_nothing_and_keeps_to_the_limits(sizes: list[int], shards: int) -> None:
    """Every task is in one packet of its own shard."""
    ids = [str(number) for number in range(len(sizes))]
    packets = pack(
        [(digest(each), f'{{"id":"{each}","meta":"{"x" * size}"}}') for each, size in zip(ids, sizes, strict=True)],
        shards,
    )
    found = [(packet.shard, task.id) for packet in packets for task in decode_chunk(packet.value())]
    assert sorted(found) == sorted((shard_of(digest(each), shards), each) for each in ids)
    assert all(len(packet.value()) <= CHUNK_BYTES for packet in packets)


def test_tasks_spread_over_all_shards() -> None:
    """By hash of the id: no shard is left out or drowned."""
    counts = [0] * 8
    for number in range(800):
        counts[shard_of(digest(f"http://x/{number}"), 8)] += 1
    assert min(counts) > 60
