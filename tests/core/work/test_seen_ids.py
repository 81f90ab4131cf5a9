"""The ids of a job are loaded in slices, each of them bounded, and no chunk is admitted before the last."""

from collections.abc import Sequence

import pytest
from core_kit import KEYS, Garbage, put, store_of

from smoothcluster.backend import Create, Delete, Entry
from smoothcluster.errors import UnavailableError
from smoothcluster.jobs.chunks import digest
from smoothcluster.memory import MemoryBackend
from smoothcluster.testing import Faulty
from smoothcluster.work import seen_ids
from smoothcluster.work.seen_ids import FIRST_SLICE_KEYS, MOST_SLICE_KEYS, SLICE_BYTES, SeenIds


@pytest.fixture
def backend() -> MemoryBackend:
    """An empty store."""
    return MemoryBackend()


@pytest.fixture
def answers(backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch) -> list[list[Entry | None]]:
    """The answers to all reads of values so far."""
    found: list[list[Entry | None]] = []
    get_many = backend.store.get_many

    def keep(keys: Sequence[str]) -> list[Entry | None]:
        found.append(get_many(keys))
        return found[-1]

    monkeypatch.setattr(backend.store, "get_many", keep)
    return found


def write(backend: MemoryBackend, job: str, keys: int, ids: int = 1) -> None:
    """Write so many keys with so many ids each."""
    for key in range(keys):
        value = b"".join(digest(f"{job}-{key}-{number}") for number in range(ids))
        backend.commit([], [Create(f"{KEYS.seen(job, 0)}/{key:010d}.0", value)])


def loaded(seen: SeenIds, job: str) -> int:
    """Load the ids of *job*; the number of slices, the first included."""
    slices = 1
    while not seen.load(job):
        assert seen.loading
        seen.load_slice()
        slices += 1
    return slices


def test_a_job_with_few_ids_is_loaded_at_once(backend: MemoryBackend) -> None:
    """That is most jobs. A job without ids costs the listing alone, and once."""
    write(backend, "few", FIRST_SLICE_KEYS)
    seen = SeenIds(0, store_of(backend))
    assert (seen.load("few"), seen.load("none"), seen.loading) == (True, True, False)
    assert (len(seen.of("few")), len(seen.of("none"))) == (FIRST_SLICE_KEYS, 0)
    write(backend, "none", 1)
    assert seen.load("none")
    assert len(seen.of("none")) == 0, "this owner alone adds ids"


@pytest.mark.parametrize(("keys", "ids"), [(60, 256), (600, 1), (9, 4096)])
def test_a_slice_is_bounded(backend: MemoryBackend, answers: list[list[Entry | None]], keys: int, ids: int) -> None:
    """In keys and in bytes, whatever the sizes of the values are; and all ids are loaded in the end."""
    write(backend, "j", keys, ids)
    seen = SeenIds(0, store_of(backend))
    slices = loaded(seen, "j")
    assert len(answers) == slices > 1
    assert len(seen.of("j")) == keys * ids
    assert all(len(answer) <= MOST_SLICE_KEYS for answer in answers)
    sizes = [sum(len(entry.value) for entry in answer if entry is not None) for answer in answers[1:]]
    assert max(sizes) <= max(SLICE_BYTES, 16 * ids)
    assert slices <= 3 + keys * ids * 16 // SLICE_BYTES + keys // MOST_SLICE_KEYS


def test_a_slice_that_fails_is_read_again(backend: MemoryBackend) -> None:
    """Whether the listing failed, or the first slice, or a later slice."""
    write(backend, "j", 40, 256)
    faulty = Faulty(backend)
    seen = SeenIds(0, store_of(faulty))
    faulty.refuse("read")
    with pytest.raises(UnavailableError):
        seen.load("j")
    assert not seen.loading
    slices = 0
    while not seen.load("j"):
        faulty.refuse("read")
        with pytest.raises(UnavailableError):
            seen.load_slice()
        seen.load_slice()
        slices += 1
    assert (slices > 1, len(seen.of("j"))) == (True, 40 * 256)


def test_one_long_load_begins_in_a_turn(backend: MemoryBackend, answers: list[list[Entry | None]]) -> None:
    """However many jobs have many ids: else the first turn would read a slice of each."""
    for job in "abc":
        write(backend, job, 40)
    seen = SeenIds(0, store_of(backend))
    assert [seen.load(job) for job in "abc"] == [False] * 3
    assert len(answers) == 1
    seen.load_slice()
    assert [seen.load(job) for job in "bc"] == [False] * 2
    for job in "abc":
        loaded(seen, job)
    assert [len(seen.of(job)) for job in "abc"] == [40] * 3


def test_the_loads_take_turns(
    backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch, answers: list[list[Entry | None]]
) -> None:
    """A slice each: a job with many ids does not keep a job with some waiting."""
    monkeypatch.setattr(seen_ids, "MOST_SLICE_KEYS", 10)
    for job in "ab":
        write(backend, job, 48)
    seen = SeenIds(0, store_of(backend))
    assert not seen.load("a")
    seen.load_slice()
    assert not seen.load("b")
    while seen.loading:
        seen.load_slice()
    read = [answer[0].key.split("/")[2] for answer in answers if answer[0] is not None]
    assert "".join(read) == "aab" + "ab" * 3 + "b"
    assert seen.load("a")
    assert seen.load("b")


def test_a_job_may_be_forgotten_while_its_ids_are_loaded(backend: MemoryBackend) -> None:
    """It has finished: the keys are being deleted, and what is still read of it harms nobody."""
    write(backend, "j", 40)
    seen = SeenIds(0, store_of(backend))
    assert not seen.load("j")
    assert seen.of("j").add(digest("stray"))
    seen.forget("j")
    seen.forget("j")
    assert not seen.loading
    seen.load_slice()
    for key in backend.keys(KEYS.seen("j", 0)):
        backend.commit([], [Delete(key)])
    assert seen.load("j")
    assert len(seen.of("j")) == 0


def test_keys_that_go_meanwhile_are_passed_over(backend: MemoryBackend) -> None:
    """A stranger deleted them."""
    write(backend, "j", 40)
    seen = SeenIds(0, store_of(backend))
    assert not seen.load("j")
    for key in backend.keys(KEYS.seen("j", 0))[20:]:
        backend.commit([], [Delete(key)])
    loaded(seen, "j")
    assert len(seen.of("j")) == 20


def test_a_value_that_is_no_list_of_digests_is_reported(backend: MemoryBackend) -> None:
    """The whole digests in it count; the rest would shift all others."""
    key = f"{KEYS.seen('j', 0)}/0"
    put(backend, key, digest("a") + digest("b") + b"rest")
    report = Garbage()
    seen = SeenIds(0, store_of(backend, report))
    assert seen.load("j")
    assert [each in seen.of("j") for each in map(digest, "abc")] == [True, True, False]
    assert "36 bytes" in report.found[key]
