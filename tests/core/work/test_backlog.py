"""What waits on a shard: listed, read, admitted once each, and lost in no error."""

from collections.abc import Callable

import pytest
from core_kit import KEYS, Bench, Garbage, put, store_of

from smoothcluster.backend import Change, CoordinationBackend, Create, Delete, Entry
from smoothcluster.errors import UnavailableError
from smoothcluster.jobs.chunk_reading import read_chunk
from smoothcluster.jobs.chunks import digest, encode_task
from smoothcluster.memory import WEAKEST, MemoryBackend
from smoothcluster.model import Task
from smoothcluster.records.keys import queued_name
from smoothcluster.records.shard import JobQueue, OpenChunk, Shard
from smoothcluster.testing import Faulty, HeldClock
from smoothcluster.work.admission import Admission
from smoothcluster.work.backlog import Backlog
from smoothcluster.work.frontier import LISTING_SHARE, MOST_LISTED_CHUNKS
from smoothcluster.work.room import Room


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


def admission(backlog: Backlog, changes: list[Change] | None = None, closed: frozenset[str] = frozenset()) -> Admission:
    """The admission of a commit with all the room there is, while the jobs *closed* are being cancelled."""
    record, context = backlog.frontier._record, Bench().context  # pyright: ignore[reportPrivateUsage]
    context.closed.jobs = closed
    return Admission(0, record, backlog, context, Room(record, WEAKEST, 1), [] if changes is None else changes)


def admitted(backlog: Backlog) -> list[str]:
    """Admit all that was read; the names of the chunks that are open now, and were not."""
    before = set(backlog.tasks)
    while admission(backlog).admit():
        pass
    return [name for name in backlog.tasks if name not in before]


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
    for name, mark, closed in (("a-0", "new", 0b01), ("a-1", "newer", 0b101)):
        commit = admission(backlog)
        assert commit.admit()
        assert (commit.marks, record.open[name].closed) == ({"a": [digest(mark)]}, closed)
    assert queued(backlog) == ["new", "newer"]
    assert record.counts == {"a": {"skipped": 3}}


def test_small_chunks_are_opened_as_one_without_repeats(backend: MemoryBackend) -> None:
    """The chunks are deleted in the commit that creates the merged chunk."""
    put(backend, f"{KEYS.seen('a', 0)}/0", digest("known"))
    write(backend, "a-0+2", "known", "new")
    write(backend, "a-1+3", "new", "newer", "newest")
    record, changes = Shard(), list[Change]()
    backlog = waiting(backend, record)
    backlog.fill(10)
    commit = admission(backlog, changes)
    assert commit.admit()
    texts = [encode_task(Task(id=each)) for each in ("new", "newer", "newest")]
    assert changes == [
        Delete(KEYS.chunk(0, "a-0+2")),
        Delete(KEYS.chunk(0, "a-1+3")),
        Create(KEYS.chunk(0, "a-q0"), f"[{','.join(texts)}]".encode()),
    ]
    assert KEYS.chunk(0, "a-q0") == f"{KEYS.queue(0)}/a-q0"
    assert commit.marks == {"a": [digest("new"), digest("newer"), digest("newest")]}
    assert (record.counts, record.queues) == ({"a": {"skipped": 2}}, {"a": JobQueue(1, 1)})
    assert list(record.open) == ["a-q0"]
    assert queued(backlog) == ["new", "newer", "newest"]


def test_chunks_with_repeats_only_are_deleted(backend: MemoryBackend) -> None:
    """Whether there is one, or there are several."""
    put(backend, f"{KEYS.seen('a', 0)}/0", digest("known"))
    put(backend, f"{KEYS.seen('b', 0)}/0", digest("known"))
    for name in ("a-0+1", "a-1+1", "b-0+1"):
        write(backend, name, "known")
    record, changes = Shard(), list[Change]()
    backlog = waiting(backend, record)
    backlog.fill(10)
    while admission(backlog, changes).admit():
        pass
    assert changes == [Delete(KEYS.chunk(0, name)) for name in ("a-0+1", "a-1+1", "b-0+1")]
    assert (record.open, record.queues, record.counts) == ({}, {}, {"a": {"skipped": 2}, "b": {"skipped": 1}})


class Owner:
    """An owner whose commits all reach the store."""

    def __init__(self, backend: MemoryBackend) -> None:
        self.backend, self.record, self.report = backend, Shard(), Garbage()
        self.succeed()

    def succeed(self) -> None:
        """Another owner reads the record and takes over; what was open is done."""
        self.record = Shard.from_json(self.record.to_json())
        self.record.open.clear()
        # Time stands still, so a listing takes none.
        self.backlog = Backlog(0, self.record, store_of(self.backend, self.report, clock=HeldClock()), lambda: None)

    def commit(self, want: int, *, free: bool = True) -> list[str]:
        """If workers are free, admit tasks until *want* could be started; merge. The ids of the opened tasks."""
        self.backlog.stale = True
        self.backlog.fill(want)
        changes = list[Change]()
        commit = admission(self.backlog, changes)
        while free and len(self.backlog.queue) < want and commit.admit():
            pass
        commit.merge()
        if changes:
            self.backend.commit([], changes)
        for job, marks in commit.marks.items():
            put(self.backend, f"{KEYS.seen(job, 0)}/{len(self.backend.keys(KEYS.seen(job, 0)))}", b"".join(marks))
        opened = queued(self.backlog)
        self.backlog.queue.clear()
        return opened

    def run_all(self) -> tuple[list[str], int]:
        """Run all that waits, under ever new owners; the ids of the tasks, and the number of those to fail."""
        opened, lost = list[str](), 0
        while self.record.has_tasks() or self.backend.keys(KEYS.tasks(0)):
            opened += self.commit(256)
            lost += len(self.backlog.unreadable)
            self.succeed()
        return opened, lost

    def waiting_names(self) -> tuple[list[str], list[str]]:
        """The chunks in the listed directory, and those in the queue."""
        return self.backend.keys(KEYS.tasks(0)), self.backend.keys(KEYS.queue(0))


def test_what_waits_is_merged_so_the_listing_stays_short(backend: MemoryBackend) -> None:
    """Each task is opened once, however often the owner changes; repeats are gone with the merge."""
    for number in range(3 * MOST_LISTED_CHUNKS):
        write(backend, f"a-{number:04d}+2", f"t{number}", f"t{number // 2}")
    owner = Owner(backend)
    opened = owner.commit(1)
    while owner.backlog.frontier.crowded:
        opened += owner.commit(1)
    assert len(owner.waiting_names()[0]) <= MOST_LISTED_CHUNKS
    assert len(opened) + owner.record.queues["a"].tasks > 2 * MOST_LISTED_CHUNKS
    write(backend, "a-9999+1", "late")
    owner.succeed()
    opened += owner.run_all()[0]
    assert sorted(opened) == sorted(["late", *(f"t{number}" for number in range(3 * MOST_LISTED_CHUNKS))])
    queue = owner.record.queues["a"]
    assert (queue.head, queue.tasks, owner.waiting_names()[0]) == (queue.tail, 0, [])


def test_a_job_with_a_long_queue_keeps_no_other_waiting(backend: MemoryBackend) -> None:
    """Jobs take turns, a chunk each, whether their chunks are queued or listed."""
    for number in range(8 * MOST_LISTED_CHUNKS):
        write(backend, f"a-{number:04d}+4", *(f"t{number}.{each}" for each in range(4)))
    owner = Owner(backend)
    owner.commit(1, free=False)
    while owner.backlog.frontier.crowded:
        owner.commit(1, free=False)
    assert owner.record.queues["a"].tail > 8
    write(backend, "b-0", "short")
    assert "short" in [*owner.commit(512), *owner.commit(512)]
    assert owner.record.queues["a"].tasks > 512


def test_a_cancelled_job_leaves_neither_listed_nor_queued_chunks(backend: MemoryBackend) -> None:
    """Each task counts once, under the next owner as well; another job stays as it is."""
    for number in range(8 * MOST_LISTED_CHUNKS):
        write(backend, f"a-{number:04d}+2", f"t{number}", "repeat")
    write(backend, "b-0+1", "other")
    owner = Owner(backend)
    opened = len(owner.commit(1))
    owner.commit(1, free=False)
    assert owner.record.queues["a"].tasks
    owner.succeed()
    while owner.backlog.fill_of({"a"}):
        changes = list[Change]()
        assert admission(owner.backlog, changes, frozenset({"a"})).close()
        backend.commit([], changes)
        assert Shard.from_json(owner.record.to_json()) == owner.record
    counts = owner.record.counts["a"]
    assert opened + sum(counts[what] for what in ("skipped", "cancelled")) == 16 * MOST_LISTED_CHUNKS
    assert opened + counts["cancelled"] >= 8 * MOST_LISTED_CHUNKS + 1
    open_chunks = {KEYS.chunk(0, queued_name("a", number)) for number in range(owner.record.queues["a"].tail)}
    assert (backend.keys(KEYS.tasks(0)), set(backend.keys(KEYS.queue(0))) - open_chunks) == (
        [KEYS.chunk(0, "b-0+1")],
        set(),
    )


@pytest.mark.parametrize("damage", [None, b"garbage", b'[{"id":"good"},{"id":', b"[]"])
def test_the_tasks_of_a_damaged_chunk_in_a_queue_are_to_fail(backend: MemoryBackend, damage: bytes | None) -> None:
    """The number of its tasks is known from the sum, so the counts of the job add up; its readable tasks run."""
    for number in range(8 * MOST_LISTED_CHUNKS):
        write(backend, f"a-{number:04d}+4", *(f"t{number}.{each}" for each in range(4)))
    owner = Owner(backend)
    opened, lost = owner.commit(1), 0
    while owner.backlog.frontier.crowded:
        opened += owner.commit(1)
    head = owner.record.queues["a"].head
    for name in (queued_name("a", head), queued_name("a", head + 1)):
        chunk = backend.get(KEYS.chunk(0, name))
        assert chunk is not None
        lost += len(read_chunk(name, chunk.value))
        backend.commit([], [Delete(chunk.key)])
        if damage is not None:
            put(backend, chunk.key, damage)
    owner.succeed()
    found, failed = owner.run_all()
    good = found.count("good")
    assert (len(opened + found), failed) == (32 * MOST_LISTED_CHUNKS - lost + good, lost - good)
    assert good == (2 if damage is not None and b"good" in damage else 0)
    assert owner.record.queues["a"].damaged == []


def test_jobs_know_nothing_of_each_others_ids(backend: MemoryBackend) -> None:
    """A task's identity is its job and its id."""
    write(backend, "a-0", "t")
    write(backend, "b-0", "t")
    backlog = waiting(backend)
    backlog.fill(10_000)
    admitted(backlog)
    assert queued(backlog) == ["t", "t"]


def test_small_chunks_are_read_at_once_up_to_a_full_chunk(backend: MemoryBackend) -> None:
    """Their names tell how many tasks they have; a turn takes as many as a full chunk has."""
    for number in range(4):
        write(backend, f"a-{number}+40", *(f"t{number}.{each}" for each in range(64)))
    write(backend, "a-4+1", "more")
    backlog = waiting(backend)
    backlog.fill(1)
    assert (admitted(backlog), len(backlog.queue)) == (["a-q0"], 256)
    backlog.fill(257)
    assert admitted(backlog) == ["a-4+1"]


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
        write(backend, f"a-{number:02d}", f"t{number}")
    backlog = Backlog(0, Shard(), store, lambda: None)
    for want in range(1, 31):
        backlog.stale = True
        backlog.fill(want)
        admitted(backlog)
    assert len(listings) == 1
    clock.advance(1.0 / LISTING_SHARE)
    backlog.fill(31)
    assert len(listings) == 2
    for want in range(32, 41):
        backlog.fill(want)
        admitted(backlog)
    backlog.stale = True
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
