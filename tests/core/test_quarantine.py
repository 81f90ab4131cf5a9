"""What is in quarantine: listed, released as new jobs, dropped; through the API and through the commands."""

import json
import secrets
from collections.abc import Callable, Iterator

import pytest
from cli_kit import Invoke, invoke_on, one_line
from core_kit import Group, put

from smoothcluster.cluster import Cluster
from smoothcluster.errors import UsageError
from smoothcluster.memory import MemoryBackend
from smoothcluster.model import Task
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.keys import Keys
from smoothcluster.records.quarantine import MOST_EVIDENCE_ENTRIES, QuarantinedTask, name_of_release
from smoothcluster.registry import connect
from smoothcluster.testing import Faulty

KEYS = Keys("default")


def condemned(number: str, job: str = "j", task: str = "t", at: float = 1.7e9) -> QuarantinedTask:
    """A task in quarantine."""
    return QuarantinedTask.of(number, job, Task(id=task), ["a@1:process_gone", "b@2:child_exit_1@5"], 3, "m", 0, 2, at)


@pytest.fixture
def url() -> str:
    """A store that no other test uses."""
    return f"memory://{secrets.token_hex(8)}"


@pytest.fixture
def faulty(url: str) -> Iterator[Faulty]:
    """A connection to it that can fail."""
    backend = connect(url)
    yield Faulty(backend)
    backend.close()


@pytest.fixture
def cluster(faulty: Faulty) -> Cluster:
    """A client with three tasks of two jobs in quarantine."""
    Cluster(faulty).submit([Task(id="x")], "j")
    for number, job, task, at in (("2.1", "k", "c", 3.0), ("0.1", "j", "a", 1.0), ("1.1", "j", "b", 2.0)):
        put(faulty, KEYS.quarantined(number), condemned(number, job, task, at).to_json())
    return Cluster(faulty, patience=0.0)


@pytest.fixture
def invoke(url: str) -> Invoke:
    """Run a command there."""
    return invoke_on(url)


def ids(cluster: Cluster) -> list[str]:
    """What is there."""
    return [each.id for each in cluster.quarantine()]


def test_a_list_by_time(cluster: Cluster, faulty: Faulty) -> None:
    """Oldest first; garbage is told and stepped over."""
    put(faulty, KEYS.quarantined("bad"), b'{"id":1}')
    assert ids(cluster) == ["0.1", "1.1", "2.1"]
    assert list(cluster.garbage) == [KEYS.quarantined("bad")]


def test_a_release_is_a_new_job_for_each_old_one(cluster: Cluster) -> None:
    """With copies of the tasks, which are in quarantine no more."""
    jobs = cluster.release("0.1", "2.1", "0.1")
    assert [job.id for job in jobs] == [
        name_of_release("j", [condemned("0.1")]),
        name_of_release("k", [condemned("2.1")]),
    ]
    assert [job.progress().total for job in jobs] == [1, 1]
    assert ids(cluster) == ["1.1"]


def test_a_release_that_was_cut_short_can_be_repeated(cluster: Cluster, faulty: Faulty) -> None:
    """Nothing is submitted twice, not even if the job has ended since."""
    name = name_of_release("j", [condemned("0.1")])
    job = cluster.submit([Task(id="a")], name)
    assert [each.id for each in cluster.release("0.1")] == [name]
    assert job.progress().total == 2, "repeats are skipped when they are admitted"
    put(faulty, KEYS.quarantined("0.1"), condemned("0.1").to_json())
    record = json.loads(faulty.get(KEYS.job(name)).value)  # type: ignore[union-attr]  # it is there
    put(faulty, KEYS.job(name), json.dumps(record | {"state": "finished"}).encode())
    assert [each.id for each in cluster.release("0.1")] == [name]
    assert ids(cluster) == ["1.1", "2.1"]


@pytest.mark.parametrize("lose", [Faulty.drop_answer, Faulty.hold])
def test_a_removal_of_which_no_answer_comes(cluster: Cluster, faulty: Faulty, lose: Callable[[Faulty], None]) -> None:
    """It is looked for, and sent again if it is not to be seen."""
    lose(faulty)
    cluster.drop("0.1")
    assert ids(cluster) == ["1.1", "2.1"]


def test_what_is_not_there(cluster: Cluster) -> None:
    """Is told before anything is done."""
    for act in (cluster.release, cluster.drop):
        with pytest.raises(UsageError, match=r"has no task '9\.9' in quarantine"):
            act("0.1", "9.9")
    assert len(ids(cluster)) == 3


@pytest.mark.parametrize(
    "value", [b"[]", b"{}", b'{"id":"1","job":"j","task":{"no":1}}', condemned("1").to_json().replace(b"2,", b'"x",')]
)
def test_garbage_is_refused(value: bytes) -> None:
    """Whatever it is."""
    with pytest.raises(GarbageError):
        QuarantinedTask.from_json(value)


def test_evidence_without_end_is_cut() -> None:
    """The latest is kept; so are the words short."""
    many = [f"x@{number}:process_gone" for number in range(3 * MOST_EVIDENCE_ENTRIES)]
    kept = QuarantinedTask.of("1", "j", Task(id="t"), many, 1, "m", 0, 1, 0.0)
    assert (len(kept.evidence), kept.evidence[-1]["epoch"], len(kept.error)) == (
        MOST_EVIDENCE_ENTRIES,
        3 * MOST_EVIDENCE_ENTRIES - 1,
        1024,
    )


def test_status_says_who_runs_suspects_how() -> None:
    """By what each member knows."""
    group = Group()
    group.member()
    status = Cluster(MemoryBackend(group.store), "g", clock=group.clock).status()
    assert [each["suspects"] for each in status["members"]] == ["alone"]


# The commands


def test_list_as_a_table(cluster: Cluster, invoke: Invoke) -> None:
    """For people."""
    head, first, *_ = invoke("quarantine", "list").stdout.splitlines()
    assert head.split() == ["ID", "JOB", "TASK", "SINCE", "STARTS", "EVIDENCE"]
    assert first.split(maxsplit=5) == ["0.1", "j", "a", "1970-01-01T00:00:01+00:00", "3", "process_gone, child_exit_1"]


def test_list_as_json(cluster: Cluster, invoke: Invoke) -> None:
    """For scripts, a task a line, with all there is."""
    lines = [json.loads(line) for line in invoke("quarantine", "list", "--json").stdout.splitlines()]
    assert [line["id"] for line in lines] == ["0.1", "1.1", "2.1"]
    assert lines[0] == json.loads(condemned("0.1", "j", "a", 1.0).to_json())


def test_release_and_drop(cluster: Cluster, invoke: Invoke) -> None:
    """Each by the ids that the list shows; a release prints the new jobs."""
    assert invoke("quarantine", "release", "0.1", "1.1").stdout.split() == [
        name_of_release("j", [condemned("0.1"), condemned("1.1")])
    ]
    assert invoke("quarantine", "drop", "2.1").exit_code == 0
    assert invoke("quarantine", "list").stdout == "no task is in quarantine\n"
    assert invoke("quarantine", "list", "--json").stdout == ""


def test_mistakes_are_told(cluster: Cluster, invoke: Invoke) -> None:
    """In one line."""
    assert "no task '9' in quarantine" in one_line(invoke("quarantine", "drop", "9"), 2)
    assert "there is no group 'other'" in one_line(invoke("quarantine", "list", "--group", "other"), 2)
