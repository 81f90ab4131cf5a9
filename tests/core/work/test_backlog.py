"""What waits on a shard: listed, read, admitted once each, and lost in no error."""

from collections.abc import Callable

import pytest
from core_kit import KEYS, Garbage, put, store_of

from smoothcluster.backend import CoordinationBackend, Delete, Entry
from smoothcluster.errors import UnavailableError
from smoothcluster.jobs.chunks import digest
from smoothcluster.memory import MemoryBackend
from smoothcluster.records.shard import OpenChunk, Shard
from smoothcluster.testing import Faulty, HeldClock
from smoothcluster.work.backlog import LISTING_SHARE, Backlog


@pytest.fixture
def backend() -> MemoryBackend:
    """An empty store."""
    return MemoryBackend()


def write(backend: CoordinationBackend, name: str, *tasks: str) -> None:
    """A chunk with tasks of these ids."""
    text = ",".join(f'{{"id":"{task}"}}' for task in tasks)
    put(backend, KEYS.chunk(0, name), f"[{text}]".encode())


def waiting(
    backend: CoordinationBackend,
    record: Shard | None = None,
    report: Callable[[str, str], None] | None = None,
    arm: Callable[[], None] = lambda: None,
) -> Backlog:
    """The backlog of shard 0, as its owner finds it."""
    return Backlog(0, record or Shard(), store_of(backend, report), arm)


def admitted(backlog: Backlog) -> list[str]:
    """Admit all that was read; the chunks' names."""
    names: list[str] = []
    while (found := backlog.admit(lambda job, tasks: True)) is not None:
        names.append(found[0])
    return names


def queued(backlog: Backlog) -> list[str]:
    """Ids of the tasks that may be started, in order."""
    return [backlog.tasks[name][index].id for name, index in backlog.queue]


def test_jobs_take_turns_a_chunk_each(backend: MemoryBackend) -> None:
    """A long job does not keep a short one waiting."""
    for name in ("a-0", "a-1", "a-2", "b-0", "c-0", "c-1"):
        write(backend, name, name)
    backlog = waiting(backend)
    backlog.fill(10_000)
    assert admitted(backlog) == ["a-0", "b-0", "c-0", "a-1", "c-1", "a-2"]


def test_no_more_is_read_than_is_wanted(backend: MemoryBackend) -> None:
    """A long queue costs little memory: of what is only listed, the name alone is kept."""
    for number in range(9):
        write(backend, f"a-{number}", f"t{number}")
    backlog = waiting(backend)
    backlog.fill(1)
    assert backlog.admit(lambda job, tasks: tasks != 1) is None, "it has one task"
    assert admitted(backlog) == ["a-0"]
    assert backlog.promising()


def test_it_is_armed_before_the_first_listing_and_once(backend: MemoryBackend) -> None:
    """What is written between listing and arming would else be noticed by nobody."""
    armed: list[int] = []

    def arm() -> None:
        armed.append(1)
        write(backend, "a-0", "t")

    backlog = waiting(backend, arm=arm)
    backlog.fill(1)
    assert admitted(backlog) == ["a-0"]
    backlog.stale = True
    backlog.fill(1)
    assert armed == [1]


def test_what_comes_while_we_list_is_not_forgotten(backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag is taken down before reading."""
    backlog = waiting(backend)
    keys = backend.store.keys

    def late(directory: str) -> list[str]:
        names = keys(directory)
        backlog.stale = True  # as the watch does
        return names

    monkeypatch.setattr(backend.store, "keys", late)
    backlog.fill(1)
    assert backlog.stale


def test_a_listing_that_fails_is_made_again(backend: MemoryBackend) -> None:
    """The error escapes, and nothing is taken for listed."""
    write(backend, "a-0", "t")
    faulty = Faulty(backend)
    backlog = waiting(faulty)
    faulty.refuse("read")
    with pytest.raises(UnavailableError):
        backlog.fill(1)
    assert backlog.promising()
    backlog.fill(1)
    assert admitted(backlog) == ["a-0"]


@pytest.mark.parametrize("asked", [KEYS.seen("a", 0), KEYS.seen("b", 0), KEYS.chunk(0, "a-0"), KEYS.chunk(0, "b-0")])
def test_a_chunk_that_could_not_be_read_is_read_later(
    backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """Whether the ids of its job, or its tasks, could not be asked for."""
    write(backend, "a-0", "t")
    write(backend, "b-0", "u")
    backlog = waiting(backend)

    def away(names: str | list[str]) -> object:
        if asked in ([names] if isinstance(names, str) else names):
            raise UnavailableError
        return keys(names) if isinstance(names, str) else get_many(names)

    keys, get_many = backend.store.keys, backend.store.get_many
    monkeypatch.setattr(backend.store, "keys", away)
    monkeypatch.setattr(backend.store, "get_many", away)
    with pytest.raises(UnavailableError):
        backlog.fill(512)
    assert backlog.promising()
    monkeypatch.undo()
    backlog.fill(512)
    assert sorted(admitted(backlog)) == ["a-0", "b-0"]


def test_reopened_chunks_that_could_not_be_read_are_read_later(backend: MemoryBackend) -> None:
    """A successor whose first read fails abandons nothing."""
    write(backend, "a-0", "t")
    faulty = Faulty(backend)
    backlog = waiting(faulty, Shard(open={"a-0": OpenChunk(1)}))
    faulty.refuse("read")
    with pytest.raises(UnavailableError):
        backlog.fill(1)
    backlog.fill(1)
    assert queued(backlog) == ["t"]


def test_what_was_read_ahead_is_not_read_again(backend: MemoryBackend) -> None:
    """A chunk never changes, so one that came with the look that led to the claim will do; the others are read."""
    write(backend, "a-0", "t")
    write(backend, "a-1", "u")
    ahead = {KEYS.chunk(0, "a-0"): Entry(KEYS.chunk(0, "a-0"), b'[{"id":"ahead"}]', "1", 1, None)}
    backlog = waiting(backend, Shard(open={"a-0": OpenChunk(1), "a-1": OpenChunk(1)}))
    backlog.reopen(ahead)
    assert queued(backlog) == ["ahead", "u"]


def test_a_chunk_is_listed_once_while_it_is_there(backend: MemoryBackend) -> None:
    """However often its directory is read."""
    write(backend, "a-0", "t")
    backlog = waiting(backend)
    for _ in range(3):
        backlog.stale = True
        backlog.fill(512)
    assert admitted(backlog) == ["a-0"]


def test_a_chunk_that_has_gone_meanwhile_is_passed_over(backend: MemoryBackend) -> None:
    """It was finished and deleted after a slower read had listed it."""
    write(backend, "a-0", "t")
    backlog = waiting(backend)
    backlog.fill(0)
    backend.commit([], [Delete(KEYS.chunk(0, "a-0"))])
    backlog.fill(512)
    assert (admitted(backlog), backlog.promising()) == ([], False)


def test_admitting_tells_the_new_ids_and_skips_repeats(backend: MemoryBackend) -> None:
    """A repeat is closed and counted; the others are queued."""
    put(backend, f"{KEYS.seen('a', 0)}/0", digest("known") + digest("other"))
    write(backend, "a-0", "known", "new")
    write(backend, "a-1", "new", "newer", "newer")
    record = Shard()
    backlog = waiting(backend, record)
    backlog.fill(10_000)
    assert backlog.admit(lambda job, tasks: True) == ("a-0", [digest("new")])
    assert backlog.admit(lambda job, tasks: True) == ("a-1", [digest("newer")])
    assert queued(backlog) == ["new", "newer"]
    assert (record.counts, record.open["a-0"].closed, record.open["a-1"].closed) == ({"a": {"skipped": 3}}, 0b01, 0b101)


def test_jobs_know_nothing_of_each_others_ids(backend: MemoryBackend) -> None:
    """A task's identity is its job and its id."""
    write(backend, "a-0", "t")
    write(backend, "b-0", "t")
    backlog = waiting(backend)
    backlog.fill(10_000)
    admitted(backlog)
    assert queued(backlog) == ["t", "t"]


def test_as_many_small_chunks_are_read_at_once_as_have_the_tasks(backend: MemoryBackend) -> None:
    """Their names tell how many tasks they have."""
    for number in range(20):
        write(backend, f"a-{number}+1", f"t{number}")
    backlog = waiting(backend)
    backlog.fill(12)
    assert len(admitted(backlog)) == 12


def test_waiting_chunks_are_listed_the_more_seldom_the_longer_that_takes(backend: MemoryBackend) -> None:
    """While listed ones wait; without any, at once."""
    clock = HeldClock()
    store = store_of(backend, clock=clock)
    listings: list[str] = []

    def slow(directory: str) -> list[str]:
        if "/tasks/" in directory:
            listings.append(directory)
            clock.advance(1.0)
        return MemoryBackend.keys(backend, directory)

    backend.keys = slow  # type: ignore[method-assign]
    for number in range(40):
        write(backend, f"a-{number}+1", f"t{number}")
    backlog = Backlog(0, Shard(), store, lambda: None)
    for want in range(1, 31):
        backlog.stale = True
        backlog.fill(want)
        admitted(backlog)
    assert len(listings) == 1
    clock.advance(1.0 / LISTING_SHARE)
    backlog.fill(31)
    assert len(listings) == 2
    backlog.fill(60)
    backlog.stale = True
    admitted(backlog)
    backlog.fill(61)
    assert len(listings) == 3, "none was left"


def test_a_successor_goes_on_with_what_was_open(backend: MemoryBackend) -> None:
    """What was admitted needs no second look at ids; what was blamed has waited longest."""
    write(backend, "a-0", "t0", "t1", "t2", "t3")
    chunk = OpenChunk(4, closed=0b0010, blame={2: ["x@1:left"]})
    backlog = waiting(backend, Shard(open={"a-0": chunk}))
    backlog.fill(1)
    assert [backlog.tasks[name][index].id for name, index in backlog.restarts] == ["t2"]
    assert queued(backlog) == ["t0", "t3"]
    backlog.fill(512)
    assert admitted(backlog) == []


@pytest.mark.parametrize("value", [None, b"garbage", b'[{"id":"only one"}]'])
def test_the_tasks_of_an_open_chunk_that_is_not_readable_any_more_are_to_fail(
    backend: MemoryBackend, value: bytes | None
) -> None:
    """A stranger took it away, or wrote over it: the job's books must balance none the less."""
    if value is not None:
        put(backend, KEYS.chunk(0, "a-0"), value)
    record, report = Shard(open={"a-0": OpenChunk(3, closed=0b001, blame={2: ["x@1:left"]})}), Garbage()
    backlog = waiting(backend, record, report)
    backlog.fill(512)
    assert sorted(backlog.unreadable) == [("a-0", 1), ("a-0", 2)]
    assert [task.id for task in backlog.tasks["a-0"]] == ["a-0#0", "a-0#1", "a-0#2"]
    assert list(report.found) == [KEYS.chunk(0, "a-0")]
    assert (queued(backlog), list(backlog.restarts)) == ([], [])


def test_the_good_tasks_of_a_damaged_chunk_wait_to_be_started(backend: MemoryBackend) -> None:
    """The bad one waits to fail; a repeat is one, whether it can be read or not."""
    put(backend, KEYS.chunk(0, "a-0"), b'[{"id":"a"},{"id":"b","params":{"page":1}},{"id":"c"},{"id":"c","colour":1}]')
    report = Garbage()
    backlog = waiting(backend, report=report)
    backlog.fill(512)
    assert admitted(backlog) == ["a-0"]
    assert (queued(backlog), list(backlog.unreadable)) == (["a", "c"], [("a-0", 1)])
    assert "2 of 4 tasks" in report.found[KEYS.chunk(0, "a-0")]


def test_garbage_among_the_chunks_is_reported_and_left(backend: MemoryBackend) -> None:
    """A name without a job, a chunk without tasks: the others go on."""
    put(backend, KEYS.chunk(0, "nonsense"), b"[]")
    put(backend, KEYS.chunk(0, "a-0"), b"nonsense")
    write(backend, "a-1", "t")
    report = Garbage()
    backlog = waiting(backend, report=report)
    backlog.fill(10_000)
    assert (admitted(backlog), sorted(report.found)) == (["a-1"], [KEYS.chunk(0, "a-0"), KEYS.chunk(0, "nonsense")])


def test_a_finished_job_is_forgotten(backend: MemoryBackend) -> None:
    """Its ids take no memory any longer; forgetting it twice is harmless."""
    write(backend, "a-0", "t")
    backlog = waiting(backend)
    backlog.fill(1)
    admitted(backlog)
    backlog.queue.clear()
    backlog.drop_chunk("a-0")
    backlog.forget_job("a")
    backlog.forget_job("a")
    assert (backlog.tasks, len(backlog.seen.of("a"))) == ({}, 0)


def test_the_ids_of_open_chunks_jobs_are_loaded_ahead(backend: MemoryBackend) -> None:
    """While the tasks that a former owner admitted run; unless the job has finished meanwhile."""
    record = Shard(open={"a-0": OpenChunk(1), "a-1": OpenChunk(1), "b-0": OpenChunk(1)})
    faulty = Faulty(backend)
    backlog = waiting(faulty, record)
    faulty.refuse("read")
    with pytest.raises(UnavailableError):
        backlog.seen.load_slice()
    put(backend, f"{KEYS.seen('a', 0)}/0", digest("known"))
    backlog.seen.load_slice()
    assert digest("known") in backlog.seen.of("a")
    assert backlog.seen.loading
    backlog.forget_job("b")
    assert not backlog.seen.loading


def test_a_chunk_is_read_once_the_ids_of_its_job_are_loaded(backend: MemoryBackend) -> None:
    """Chunks of other jobs, and tasks that were admitted before, do not wait for that."""
    for number in range(400):
        put(backend, f"{KEYS.seen('many', 0)}/{number}", digest(f"known-{number}"))
    write(backend, "many-0", "known-399", "new")
    write(backend, "other-0", "t")
    write(backend, "many-1", "open")
    backlog = waiting(backend, Shard(open={"many-1": OpenChunk(1)}))
    backlog.fill(512)
    assert queued(backlog) == ["open"]
    names: list[str] = []
    while backlog.seen.loading:
        assert backlog.promising()
        names += admitted(backlog)
        backlog.seen.load_slice()
        backlog.fill(512)
    assert names == ["other-0"]
    assert admitted(backlog) == ["many-0"]
    assert queued(backlog) == ["open", "t", "new"]
