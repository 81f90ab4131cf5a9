"""A submit that is called wrongly writes nothing; a submit that is cut short names its job and says how to go on."""

import re
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import pytest
from core_kit import KEYS, limits, put

from smoothcluster.cluster import Cluster
from smoothcluster.errors import (
    JobClosedError,
    OutcomeUnknownError,
    SmoothclusterError,
    UnavailableError,
    UsageError,
)
from smoothcluster.group.store import GroupStore
from smoothcluster.memory import MemoryBackend, MemoryStore
from smoothcluster.model import LARGEST_VALUE, Task
from smoothcluster.records.group import Spec
from smoothcluster.records.job import Job
from smoothcluster.records.quarantine import QuarantinedTask
from smoothcluster.testing import Faulty

FINE = Task(id="fine")


@pytest.fixture
def faulty() -> Faulty:
    """A store that can fail."""
    return Faulty(MemoryBackend())


@pytest.fixture
def cluster(faulty: Faulty) -> Cluster:
    """A client that does not wait for a store out of reach."""
    return Cluster(faulty, "g", patience=0)


def told(error: BaseException) -> str:
    """All that people see of *error*: its text and its notes."""
    return "".join(traceback.format_exception_only(error)).replace("\n", " ")


def raising(error: BaseException, after: int) -> Iterator[Task]:
    """So many tasks, and then *error*."""
    yield from (Task(id=str(number)) for number in range(after))
    raise error


RIGHT_FORM = 'as in submit([Task(url="http://localhost/")])'


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        ("http://x/", f"submit takes Tasks, {RIGHT_FORM}, not str: 'http://x/'"),
        (b"http://x/", "not bytes: b'http://x/'"),
        (None, "not NoneType: None"),
        (5, "not int: 5"),
        (FINE, f"{RIGHT_FORM}, not Task: Task(id='fine'"),
        (Task, "not type: <class"),
        ({"id": "x"}, "not dict: {'id': 'x'}"),
        (["http://x/"], "submit takes Tasks, not str: 'http://x/'"),
        ([FINE, None], "not NoneType: None"),
        ((FINE, {"id": "x"}), "not dict: {'id': 'x'}"),
        ({FINE.id}, "not str: 'fine'"),
        (deque([FINE, 5]), "not int: 5"),
        ([FINE, Task(id="large", meta="x" * LARGEST_VALUE)], "task 'large' takes"),
        (deque([FINE, FINE]), "task 'fine' appears twice"),
        (lambda: iter(["http://x/"]), "submit takes Tasks, not str: 'http://x/'"),
        (lambda: iter([Task(id="large", meta="x" * LARGEST_VALUE)]), "task 'large' takes"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("job", [None, "j"])
def test_a_wrong_call_writes_nothing(cluster: Cluster, tasks: Any, says: str, job: str | None) -> None:
    """What can be seen before the first commit is refused before; the error shows the right form."""
    with pytest.raises(UsageError) as caught:
        cluster.submit(tasks() if isinstance(tasks, FunctionType) else tasks, job)
    assert says in str(caught.value)
    assert str(caught.value).endswith("; nothing was written")
    assert cluster.absent()


@pytest.mark.parametrize("job", [5, b"j", ["j"], 1.5])
def test_a_job_that_is_no_text_is_refused(cluster: Cluster, job: Any) -> None:
    """As a name that no key can have."""
    with pytest.raises(UsageError, match="job must be text"):
        cluster.submit([FINE], job)
    assert cluster.absent()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, UsageError])
def test_an_iterator_that_raises_at_once_leaves_no_job(cluster: Cluster, error: type[BaseException]) -> None:
    """The first task is asked for before the first commit."""
    with pytest.raises(error) as caught:
        cluster.submit(raising(error("no such line"), after=0), "j")
    assert "nothing was written" in told(caught.value)
    assert cluster.absent()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, UsageError, GeneratorExit])
def test_an_iterator_that_raises_half_way_names_the_job(cluster: Cluster, error: type[BaseException]) -> None:
    """Its own text stays; below it, or behind it, stands what to do."""
    with pytest.raises(error, match="no such line") as caught:
        cluster.submit(raising(error("no such line"), after=3))
    ((job, state),) = cluster.jobs().items()
    assert state == "open"
    text = told(caught.value)
    assert f"job '{job}' {'is' if issubclass(error, Exception) else 'may be'} open now" in text
    assert "with at least 0 tasks of this submit" in text
    assert f"submit the same tasks with job='{job}'" in text


def test_what_the_error_says_completes_the_job() -> None:
    """Submitting all tasks again, or none."""
    for tasks in ([Task(id=str(number)) for number in range(3000)], []):
        backend = MemoryBackend(MemoryStore(guarantees=limits(largest_commit=12_000)))
        put(backend, KEYS.spec, Spec(1, None, 1, 0, "").to_json())
        cluster = Cluster(backend, "g")
        with pytest.raises(ValueError, match="no") as caught:
            cluster.submit(raising(ValueError("no"), after=2500), "j")
        assert re.search(r"at least [1-9]\d+ tasks", told(caught.value))
        assert "submit([], job='j')" in told(caught.value)
        assert cluster.jobs()["j"] == "open"
        cluster.submit(tasks, "j")
        assert cluster.jobs()["j"] == "sealed"


def test_an_element_that_is_no_task_names_the_job(cluster: Cluster) -> None:
    """It comes too late for an error that writes nothing."""
    with pytest.raises(UsageError, match="submit takes Tasks, not int: 4; job 'j' is open now"):
        cluster.submit(iter([FINE, 4]), "j")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_store_that_goes_away_half_way(cluster: Cluster, faulty: Faulty) -> None:
    """And one that was never there."""
    faulty.cut()
    with pytest.raises(UnavailableError, match="nothing was written"):
        cluster.submit([FINE], "j")
    faulty.mend()

    def tasks() -> Iterator[Task]:
        yield FINE
        yield Task(id="2")
        faulty.cut()

    with pytest.raises(UnavailableError, match="job 'j' is open now, with at least 0 tasks"):
        cluster.submit(tasks(), "j")


@pytest.mark.parametrize("error", [OutcomeUnknownError, KeyboardInterrupt])
@pytest.mark.parametrize("commits", [0, 1, 2, 3])
def test_a_commit_without_an_answer(faulty: Faulty, error: type[BaseException], commits: int) -> None:
    """The job may be there or not; the first commit may make the group."""
    cluster, through, count = Cluster(faulty, "g", patience=0), faulty.through, 0

    def answerless(act: str, call: Callable[[], object]) -> object:
        nonlocal count
        count += act == "commit"
        answer = through(act, call)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        if count > commits:
            raise error("no answer")
        return answer

    faulty.through = answerless  # type: ignore[assignment,method-assign]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(error) as caught:
        cluster.submit(iter([FINE]), "j")
    text = told(caught.value)
    assert ("nothing was written" in text) == (commits == 0)
    assert (f"may be open now, with at least {int(commits == 3)} tasks" in text) == (commits > 0)


def test_an_error_after_the_end_says_that_all_is_there(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is sealed."""
    calls = iter([None])

    def history(_: GroupStore) -> str | None:
        try:
            return next(calls)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(GroupStore, "history", history)
    with pytest.raises(KeyboardInterrupt) as caught:
        cluster.submit([FINE], "j")
    assert "all tasks of this submit are in job 'j'" in told(caught.value)
    assert cluster.jobs() == {"j": "sealed"}


def test_a_job_that_ends_meanwhile(cluster: Cluster, faulty: Faulty) -> None:
    """Another submit has sealed it, and its tasks had their outcomes."""

    def tasks() -> Iterator[Task]:
        yield FINE
        yield Task(id="2")
        put(faulty, KEYS.job("j"), Job("finished", 0, 0, "", "").to_json())

    with pytest.raises(JobClosedError, match="submit to a new job; earlier, this submit wrote 0 tasks to the job"):
        cluster.submit(tasks(), "j")


def test_an_interrupted_release_says_what_completes_it(cluster: Cluster, faulty: Faulty) -> None:
    """That is the same release, not a submit."""
    cluster.submit([FINE], "j")
    task = QuarantinedTask.of("0.1", "j", FINE, ["a@1:process_gone"] * 2, 3, "m", 0, 2, 1.0)
    put(faulty, KEYS.quarantined("0.1"), task.to_json())
    through = faulty.through

    def interrupted(act: str, call: Callable[[], object]) -> object:
        if act == "commit":
            raise UnavailableError("no answer")
        return through(act, call)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    faulty.through = interrupted  # type: ignore[assignment,method-assign]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(SmoothclusterError, match="no answer; to complete the release, call release with the same ids"):
        cluster.release("0.1")
