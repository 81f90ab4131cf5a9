"""Jobs: written exactly, read exactly, whatever the store answers."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice

import pytest
from core_kit import KEYS, Garbage, decode_chunk, ids, kept_memory, limits, put, store_of
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcluster.backend import Change, Committed, Condition, CoordinationBackend, Entry, Guarantees, Refused
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import (
    CommitTooLargeError,
    DuplicateTaskError,
    JobClosedError,
    OutcomeUnknownError,
    UnavailableError,
    UsageError,
)
from smoothcluster.jobs.access import ensure_spec, read_job
from smoothcluster.jobs.chunks import encode_task
from smoothcluster.jobs.progress import Progress, find_loss, mark_finished, read_counts, read_progress
from smoothcluster.jobs.submission import Submission
from smoothcluster.memory import WEAKEST, MemoryBackend, MemoryStore
from smoothcluster.model import Task
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.group import Spec
from smoothcluster.records.job import JOB_FINISHED, JOB_OPEN, JOB_SEALED, Job
from smoothcluster.records.shard import OpenChunk, Shard
from smoothcluster.testing import Faulty, HeldClock

SHARDS = 3


def store(guarantees: Guarantees = WEAKEST) -> MemoryBackend:
    """A store with a group."""
    backend = MemoryBackend(MemoryStore(guarantees=guarantees))
    put(backend, KEYS.spec, Spec(1, None, SHARDS, 0, "").to_json())
    return backend


def submit(backend: CoordinationBackend, tasks: Iterable[Task], job: str = "j", prefix: str = "s") -> Submission:
    """One call to submit, by a client that does not wait for a store that is away."""
    submission = Submission(store_of(backend, new_id=ids(prefix)), job, 0.0)
    submission.run(tasks)
    return submission


def tasks(count: int, prefix: str = "t") -> list[Task]:
    """So many tasks."""
    return [Task(id=f"{prefix}{number}") for number in range(count)]


def written(backend: CoordinationBackend) -> list[str]:
    """Ids of the tasks in the store's chunks."""
    chunks = (decode_chunk(entry.value) for shard in range(SHARDS) for entry in backend.list(KEYS.tasks(shard)))
    return sorted(task.id for chunk in chunks for task in chunk)


def job_of(backend: CoordinationBackend, job: str = "j") -> Job:
    """The job's record."""
    read = read_job(store_of(backend), job)
    assert read is not None
    return read.record


def test_a_submit_writes_every_task_once_and_seals() -> None:
    """The record counts tasks and chunks."""
    backend = store()
    assert submit(backend, tasks(1000)).written == 1000
    assert written(backend) == sorted(task.id for task in tasks(1000))
    chunks = sum(len(backend.keys(KEYS.tasks(shard))) for shard in range(SHARDS))
    job = job_of(backend)
    assert (job.state, job.tasks, job.chunks) == (JOB_SEALED, 1000, chunks)
    assert job.at.startswith("2020-09-13T")


@pytest.mark.parametrize(("count", "commits"), [(1, 1), (1000, 1), (2000, 4)])
def test_few_tasks_are_one_commit(count: int, commits: int) -> None:
    """What fits is complete after one commit; a larger job is opened, written in two commits, and sealed."""
    backend = store(limits(largest_commit=25_000))
    submit(backend, [], "other")  # The group is there.
    faulty = Faulty(backend)
    through, acts = faulty.through, Counter[str]()

    def counted(act: str, call: Callable[[], object]) -> object:
        acts[act] += 1
        return through(act, call)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    faulty.through = counted  # type: ignore[assignment,method-assign]  # pyright: ignore[reportAttributeAccessIssue]
    submit(faulty, tasks(count))
    assert acts["commit"] == commits
    assert (job_of(backend).tasks, job_of(backend).state) == (count, JOB_SEALED)


def test_the_chunks_of_a_single_commit_keep_to_the_largest_value() -> None:
    """All tasks together may fit into a commit, and those of a shard not into a value."""
    backend = store(limits(largest_value=8_000, largest_commit=40_000))
    large = [Task(id=f"t{number}", meta="x" * 1_000) for number in range(30)]
    submit(backend, large)
    assert written(backend) == sorted(task.id for task in large)


def test_tasks_of_more_shards_than_a_commit_has_operations_need_several() -> None:
    """However small they are: each shard needs a chunk, and the job's record is an operation, too."""
    backend = store(limits(most_operations=SHARDS))
    submit(backend, tasks(30))
    assert (job_of(backend).tasks, len(written(backend))) == (30, 30)


def test_a_job_may_finish_before_its_submitter_knows_that_it_is_written() -> None:
    """The answer is lost, and all tasks have their outcomes before the submitter looks."""
    backend = store()
    faulty = Faulty(backend)
    submit(backend, [], "other")  # The group is there.
    faulty.drop_answer()
    sync = backend.sync

    def finish() -> None:
        sync()
        job = replace(job_of(backend), state=JOB_FINISHED, id="end", done=3)
        put(backend, KEYS.job("j"), job.to_json())

    backend.sync = finish  # type: ignore[method-assign]
    assert submit(faulty, tasks(3)).written == 3
    assert (job_of(backend).state, len(written(backend))) == (JOB_FINISHED, 3)


def test_a_commit_that_the_store_may_have_lost_is_told() -> None:
    """It cannot be repeated: the job is sealed, and may have finished since."""
    backend = store()
    histories = iter(["old", "new"])
    access = store_of(backend)
    access.history = lambda: next(histories)  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknownError, match="Submit the same tasks to the same job again"):
        Submission(access, "j", 0.0).run(tasks(3))
    assert (job_of(backend).tasks, job_of(backend).state) == (3, JOB_SEALED)


def test_a_submit_of_nothing_makes_a_sealed_job() -> None:
    """It is finished at once."""
    backend = store()
    submit(backend, [])
    assert read_progress(store_of(backend), "j", Spec(1, None, SHARDS, 0, "")) == Progress(0, 0, 0, 0, True)


def test_submitting_again_adds_to_the_job() -> None:
    """Names of chunks are never used twice."""
    backend = store()
    submit(backend, tasks(10))
    submit(backend, tasks(10, "u"), prefix="r")
    assert (job_of(backend).tasks, len(written(backend))) == (20, 20)


def test_a_first_submit_may_come_before_the_first_member() -> None:
    """It makes the group, without saying how many Runners there are."""
    backend = MemoryBackend()
    submit(backend, tasks(1))
    assert ensure_spec(store_of(backend)).runner is None


def test_of_two_who_make_a_group_one_does() -> None:
    """The other one reads what is there; an answer that was lost is looked up."""
    faulty = Faulty(MemoryBackend())
    faulty.drop_answer()
    first = ensure_spec(store_of(faulty, new_id=ids("a")))
    assert ensure_spec(store_of(faulty, new_id=ids("b"))) == first


def test_one_id_twice_in_a_list_is_an_error() -> None:
    """Nothing is written."""
    backend = store()
    with pytest.raises(DuplicateTaskError, match="'t1' appears twice"):
        submit(backend, [*tasks(2), Task(id="t1")])
    assert read_job(store_of(backend), "j") is None


def test_an_id_twice_in_an_iterator_is_written_twice() -> None:
    """The shard's owner skips the second: a submit of any length needs no memory of its ids."""
    backend = store()
    submit(backend, iter([*tasks(2), Task(id="t1")]))
    assert (job_of(backend).state, job_of(backend).tasks) == (JOB_SEALED, 3)


def test_a_submit_of_an_iterator_remembers_no_task() -> None:
    """Its memory is the same after many tasks as after few; 16 bytes for each would show."""
    submission = Submission(store_of(store()), "j", 0.0)
    encode = submission._encoded  # pyright: ignore[reportPrivateUsage]
    encoded = encode(Task(id=f"http://localhost/{number}") for number in range(7000))
    deque(islice(encoded, 1000), 0)
    assert kept_memory(lambda: deque(islice(encoded, 5000), 0), "*/smoothcluster/jobs/*") < 5000 * 16 / 2


def test_what_is_no_task_is_an_error_that_names_it() -> None:
    """Users may not check types."""
    with pytest.raises(UsageError, match="submit takes Tasks, not str: 'http://x'"):
        submit(store(), ["http://x"])  # type: ignore[list-item]


@pytest.mark.parametrize("state", ["finished", "deleted"])
def test_a_closed_job_takes_no_more_tasks(state: str) -> None:
    """The error says what it is and what to do."""
    backend = store()
    put(backend, KEYS.job("j"), Job(state, 0, 0, "", "").to_json())
    with pytest.raises(JobClosedError, match=f"{state}.*submit to a new job"):
        submit(backend, tasks(1))
    assert written(backend) == []


def test_a_garbage_job_is_an_error() -> None:
    """Its count cannot be guessed."""
    backend = store()
    put(backend, KEYS.job("j"), b"[]")
    with pytest.raises(GarbageError):
        submit(backend, tasks(1))


@pytest.mark.promise(3)
@given(st.lists(st.sampled_from(["drop", "hold", "fine"]), max_size=12), st.sampled_from([20, 600]))
@settings(max_examples=60, deadline=None)
def test_a_commit_of_unknown_outcome_is_applied_once(fates: list[str], count: int) -> None:
    """It is sent again unchanged until its fate is known; what arrives late is refused."""
    backend = store(limits(largest_commit=30_000))
    faulty = Faulty(backend)
    clock = HeldClock()
    submission = Submission(store_of(faulty, clock=clock), "j", 10.0)
    clock.signal = lambda: _Never(clock)  # type: ignore[method-assign]
    calls = iter(fates)
    through = faulty.through

    def fate(act: str, call: Callable[[], object]) -> object:
        kind = next(calls, "fine") if act == "commit" else "fine"
        if kind == "drop":
            faulty.drop_answer()
        elif kind == "hold":
            faulty.hold()
        return through(act, call)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    faulty.through = fate  # type: ignore[assignment,method-assign]  # pyright: ignore[reportAttributeAccessIssue]
    submission.run(tasks(count))
    faulty.deliver()
    assert written(backend) == sorted(task.id for task in tasks(count))
    assert (job_of(backend).tasks, job_of(backend).state) == (count, JOB_SEALED)


class _Never:
    """A signal whose waits cost no time but the clock's."""

    def __init__(self, clock: HeldClock) -> None:
        self._clock = clock

    def set(self) -> None:
        """Never."""

    def clear(self) -> None:
        """Never."""

    def is_set(self) -> bool:
        """Never."""
        return False

    def wait(self, timeout: float | None = None) -> bool:
        """Let the time pass."""
        self._clock.advance(timeout or 0.0)
        return False


@pytest.mark.promise(3)
def test_two_who_submit_to_one_job_at_once_lose_nothing() -> None:
    """Each commit compares the job's record; who was slower counts anew."""
    backend = store()
    other = MemoryBackend(backend.store)
    commit = backend.store.commit
    meddled: list[int] = []

    def late(*parts: object) -> object:
        if not meddled:
            meddled.append(1)
            submit(other, tasks(5, "u"), prefix="o")
        return commit(*parts)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    backend.store.commit = late  # type: ignore[assignment,method-assign]  # pyright: ignore[reportAttributeAccessIssue]
    submit(backend, tasks(5))
    assert (job_of(backend).tasks, len(written(backend))) == (10, 10)


def test_a_store_that_stays_away_is_an_error_in_the_end() -> None:
    """The job stays open, for another try."""
    backend = store()
    faulty = Faulty(backend)
    faulty.cut()
    with pytest.raises(UnavailableError):
        submit(faulty, tasks(1))
    assert read_job(store_of(backend), "j") is None


def test_commits_keep_to_the_stores_limits() -> None:
    """Many packets make several commits."""
    backend = store(limits(most_operations=4, largest_commit=12_000))
    assert submit(backend, tasks(2000)).written == 2000
    assert len(written(backend)) == 2000


@pytest.mark.promise(3)
def test_a_commit_that_the_server_refuses_for_its_size_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guarantees may promise more than the server takes; a single chunk that is too large is an error."""
    backend = store()
    commit, most = backend.commit, 4

    def refuse(conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        if len(changes) > most:
            raise CommitTooLargeError("the server says so")
        return commit(conditions, changes)

    monkeypatch.setattr(backend, "commit", refuse)
    assert submit(backend, tasks(2000)).written == 2000
    assert len(written(backend)) == len(set(written(backend))) == 2000
    most = 1
    with pytest.raises(CommitTooLargeError, match="the server says so"):
        submit(backend, tasks(2000), "k")


def test_a_task_larger_than_the_store_takes_is_refused_at_once() -> None:
    """Nothing is written."""
    backend = store(limits(largest_commit=64 * 1024))
    with pytest.raises(UsageError, match="'large' takes 30024 bytes as JSON; this store takes tasks of 21842"):
        submit(backend, [Task(id="small"), Task(id="large", meta="x" * 30_000)])
    assert read_job(store_of(backend), "j") is None


SPEC = Spec(1, None, 2, 0, "")


def books(backend: CoordinationBackend, tasks: int, *counts: dict[str, int], state: str = JOB_SEALED) -> None:
    """A job of so many tasks, and what each shard counts of it."""
    put(backend, KEYS.job("j"), Job(state, tasks, 1, "", "").to_json())
    for number, tally in enumerate(counts):
        put(backend, KEYS.shard(number), Shard(counts={"j": tally}).to_json())


def test_progress_is_the_sum_of_what_shards_count() -> None:
    """Repeats are left out of the total."""
    backend = store()
    books(backend, 10, {"done": 3, "added": 2}, {"failed": 1, "skipped": 1, "quarantined": 1})
    progress = read_progress(store_of(backend), "j", SPEC)
    assert progress == Progress(11, 3, 1, 1, finished=False, skipped=1)
    assert progress.pending == 6


def test_a_job_that_balances_twice_is_finished() -> None:
    """Every task has its outcome."""
    backend = store()
    books(backend, 4, {"done": 3, "added": 1}, {"failed": 1, "skipped": 1})
    assert read_progress(store_of(backend), "j", SPEC).finished


def test_a_job_that_is_still_written_is_not_finished() -> None:
    """Somebody may be about to add to it."""
    backend = store()
    books(backend, 3, {"done": 3}, state=JOB_OPEN)
    assert not read_progress(store_of(backend), "j", SPEC).finished


def told_finished(backend: CoordinationBackend) -> bool:
    """What a client is told."""
    return read_progress(store_of(backend), "j", SPEC).finished


def found_finished(backend: CoordinationBackend) -> bool:
    """What a member that keeps house finds, and writes down."""
    return mark_finished(store_of(backend, new_id=ids("m")), "j", SPEC)


@pytest.mark.promise(3)
@pytest.mark.parametrize("finished", [told_finished, found_finished])
def test_a_reading_that_a_task_slipped_through_does_not_finish_a_job(
    finished: Callable[[CoordinationBackend], bool],
) -> None:
    """Books that balance by accident differ at the second reading."""
    backend = store()
    books(backend, 2, {"done": 2})
    get_many, reads = backend.store.get_many, list[int]()

    def moving(keys: list[str]) -> list[Entry | None]:
        if KEYS.shard(0) in keys:
            reads.append(1)
            if len(reads) == 2:
                put(MemoryBackend(backend.store), KEYS.shard(1), Shard(counts={"j": {"added": 1}}).to_json())
        return get_many(keys)

    backend.store.get_many = moving  # type: ignore[method-assign,assignment]  # pyright: ignore[reportAttributeAccessIssue]
    assert not finished(backend)
    assert len(reads) == 2
    assert job_of(backend).state == JOB_SEALED


def test_a_job_is_marked_finished_once_with_its_sums() -> None:
    """From then on the record alone tells."""
    backend = store()
    books(backend, 3, {"done": 2, "added": 1}, {"failed": 1, "skipped": 1})
    assert mark_finished(store_of(backend, new_id=ids("m")), "j", SPEC)
    for number in range(2):
        put(backend, KEYS.shard(number), Shard().to_json())
    job = job_of(backend)
    assert (job.state, job.added, job.skipped, job.done, job.failed) == (JOB_FINISHED, 1, 1, 2, 1)
    assert read_progress(store_of(backend), "j", SPEC) == Progress(3, 2, 1, 0, finished=True, skipped=1)
    assert mark_finished(store_of(backend, new_id=ids("m")), "j", SPEC)
    assert job_of(backend).id == "m0"


def test_a_job_that_is_not_finished_is_not_marked() -> None:
    """Even if it lacks one outcome only."""
    backend = store()
    books(backend, 3, {"done": 2})
    assert not mark_finished(store_of(backend, new_id=ids("m")), "j", SPEC)
    assert job_of(backend).state == JOB_SEALED


def test_a_job_submitted_to_meanwhile_is_not_marked() -> None:
    """The record is compared."""
    backend = store()
    books(backend, 2, {"done": 2})
    commit = backend.store.commit

    def late(*parts: object) -> object:
        backend.store.commit = commit  # type: ignore[method-assign]
        books(backend, 3, {"done": 2})
        return commit(*parts)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    backend.store.commit = late  # type: ignore[assignment,method-assign]  # pyright: ignore[reportAttributeAccessIssue]
    assert not mark_finished(store_of(backend, new_id=ids("m")), "j", SPEC)
    assert job_of(backend).tasks == 3


def test_a_garbage_shard_keeps_books_from_balancing() -> None:
    """What it counts is missing, so equality proves nothing."""
    backend = store()
    books(backend, 2, {"done": 2})
    put(backend, KEYS.shard(1), b"garbage")
    report = Garbage()
    assert not read_progress(store_of(backend, report), "j", SPEC).finished
    assert list(report.found) == [KEYS.shard(1)]
    assert not mark_finished(store_of(backend, new_id=ids("m")), "j", SPEC)


def test_a_job_that_is_not_there_is_an_error() -> None:
    """With or without a group."""
    for backend in (store(), MemoryBackend()):
        with pytest.raises(UsageError, match="no job 'j'"):
            read_counts(store_of(backend), "j", SPEC)


def test_a_store_that_answers_and_takes_nothing_is_not_asked_for_ever() -> None:
    """Its disk is full, say: whoever submits is told when the patience is over."""
    faulty = Faulty(store())
    for _ in range(2000):
        faulty.hold()
    with pytest.raises(OutcomeUnknownError):
        Submission(store_of(faulty, clock=SYSTEM_CLOCK), "j", 0.1).run(tasks(1))


def test_an_answer_that_stays_unknown_is_not_taken_for_a_refusal() -> None:
    """If the store cannot even be read, its error escapes."""
    faulty = Faulty(store())
    faulty.drop_answer()
    faulty.cut(OutcomeUnknownError)
    with pytest.raises(OutcomeUnknownError):
        submit(faulty, tasks(1))


def lost(backend: CoordinationBackend) -> int | None:
    """How many tasks the store has lost of a job that cannot finish."""
    found = find_loss(store_of(backend), "j", SPEC)
    return None if found is None else found.lost


@pytest.mark.parametrize("value", [None, b"garbage", b"[]"], ids=["gone", "garbage", "empty"])
def test_tasks_of_which_nothing_readable_is_left_are_lost(value: bytes | None) -> None:
    """Written and added, less what has an outcome or was a repeat."""
    backend = store()
    books(backend, 10, {"done": 3, "added": 2}, {"failed": 1, "skipped": 1})
    if value is not None:
        put(backend, KEYS.chunk(1, "j-1"), value)
    assert lost(backend) == 7


def test_a_job_with_a_readable_chunk_is_not_lost() -> None:
    """However few of its chunks are readable; those of others, and names that are none, do not count."""
    backend = store()
    books(backend, 10, {"done": 3})
    for name in ("j-1", "other-1", "stray"):
        put(backend, KEYS.chunk(1, name), b"garbage" if name == "j-1" else b"[]")
    assert lost(backend) == 7
    put(backend, KEYS.chunk(1, "j-2"), f"[{encode_task(Task(id='a'))}]".encode())
    assert lost(backend) is None


@pytest.mark.parametrize("state", [JOB_OPEN, JOB_FINISHED])
def test_a_job_that_is_written_or_finished_is_not_lost(state: str) -> None:
    """A submitter may be about to write the rest; a finished job has its sums."""
    backend = store()
    books(backend, 10, {"done": 3}, state=state)
    assert lost(backend) is None


def test_a_job_with_an_open_chunk_is_not_lost() -> None:
    """A member has it in memory, or the next owner counts what it cannot read."""
    backend = store()
    books(backend, 10, {"done": 3})
    put(backend, KEYS.shard(1), Shard(open={"j-1": OpenChunk(7)}).to_json())
    assert lost(backend) is None


def test_a_count_that_changes_during_the_search_proves_nothing_lost() -> None:
    """The chunk may have moved behind the search."""
    backend = Faulty(store())
    books(backend, 10, {"done": 3})
    keys = backend.keys

    def meanwhile(directory: str) -> list[str]:
        put(backend, KEYS.shard(0), Shard(counts={"j": {"done": 4}}).to_json())
        return keys(directory)

    vars(backend)["keys"] = meanwhile
    assert lost(backend) is None
    del vars(backend)["keys"]
    assert lost(backend) == 6
