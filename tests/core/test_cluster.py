"""The client: hands in, watches, collects; and says what is wrong in words."""

import threading
from collections.abc import Sequence

import pytest
from core_kit import KEYS, Bench, Group, done, failed, member, put

from smoothcluster.backend import Create, Delete
from smoothcluster.cluster import Cluster
from smoothcluster.errors import DuplicateTaskError, JobClosedError, TasksLostError, UnavailableError, UsageError
from smoothcluster.memory import MemoryBackend
from smoothcluster.model import Outcome, State, Task
from smoothcluster.records.codec import GarbageError, dump
from smoothcluster.records.group import Seat, Spec
from smoothcluster.records.job import Job
from smoothcluster.records.results import outcomes
from smoothcluster.records.shard import Shard
from smoothcluster.testing import Faulty, HeldClock, eventually


@pytest.fixture
def bench() -> Bench:
    """A group of one shard."""
    bench = Bench()
    put(bench.backend, KEYS.spec, Spec(1, 1, 1, 0, "").to_json())
    return bench


@pytest.fixture
def cluster(bench: Bench) -> Cluster:
    """Its client."""
    return Cluster(bench.backend, "g", clock=bench.clock)


def work_off(bench: Bench) -> None:
    """Do all tasks; those whose id begins with x fail."""
    work = bench.own(0, bench.read().record if bench.backend.get(KEYS.shard(0)) else None)
    for run in bench.start(work, 100):
        work.finish(failed(run) if run.task.id.startswith("x") else done(run, value='"v"'), 0.0)
    bench.commit(work)


def test_a_job_is_handed_in_and_collected(bench: Bench, cluster: Cluster) -> None:
    """Every task has one outcome."""
    job = cluster.submit([Task(id="a"), Task(id="x")])
    assert job.id in repr(job)
    assert (job.progress().pending, cluster.jobs()) == (2, {job.id: "sealed"})
    work_off(bench)
    assert job.wait(timeout=0).finished
    assert list(cluster.job(job.id).results()) == [
        Outcome("a", State.DONE, "v", None, 1, "runner", 0),
        Outcome("x", State.FAILED, None, "no", 1, "runner", 0),
    ]


def test_tasks_may_come_from_an_iterator(cluster: Cluster) -> None:
    """They need not all be in memory."""
    assert cluster.submit((Task(id=str(number)) for number in range(5)), "j").progress().total == 5


def test_a_repeat_in_a_list_is_found_before_anything_is_written(bench: Bench, cluster: Cluster) -> None:
    """The error says so."""
    with pytest.raises(DuplicateTaskError, match=r"'a' .*nothing was written"):
        cluster.submit([Task(id="a"), Task(id="a")], "j")
    assert cluster.jobs() == {}


def test_repeats_in_an_iterator_are_skipped_and_counted(bench: Bench, cluster: Cluster) -> None:
    """As tasks that are in the job already; the job finishes, with exact counts. Those of a finished job stay."""
    job = cluster.submit((Task(id=name) for name in "abacab"), "j")
    work_off(bench)
    progress = job.wait(timeout=0)
    assert (progress.total, progress.done, progress.skipped, progress.pending) == (3, 3, 3, 0)
    assert [outcome.task_id for outcome in job.results()] == ["a", "b", "c"]
    assert cluster.status()["tasks"] == {
        "pending": 0, "running": 0, "done": 3, "failed": 0, "quarantined": 0, "skipped": 3,
    }  # fmt: skip
    put(bench.backend, KEYS.job("j"), Job("finished", 6, 1, "", "", skipped=3, done=3).to_json())
    assert (job.progress().skipped, job.progress().total) == (3, 3)


def test_a_jobs_name_must_be_able_to_be_part_of_a_key(cluster: Cluster) -> None:
    """As a group's."""
    with pytest.raises(UsageError, match="job 'a/b'"):
        cluster.submit([], "a/b")
    with pytest.raises(UsageError, match="group 'a/b'"):
        Cluster(MemoryBackend(), "a/b")


def test_a_job_that_is_not_there_is_an_error(cluster: Cluster) -> None:
    """Naming it and the group."""
    with pytest.raises(UsageError, match="'g' has no job 'nope'"):
        cluster.job("nope")


def test_a_finished_job_is_closed(bench: Bench, cluster: Cluster) -> None:
    """It takes no more tasks."""
    put(bench.backend, KEYS.job("j"), Job("finished", 0, 0, "", "").to_json())
    with pytest.raises(JobClosedError):
        cluster.submit([Task(id="a")], "j")


def test_waiting_ends_with_its_time(cluster: Cluster) -> None:
    """The error says how far it has come."""
    job = cluster.submit([Task(id="a")], "j")
    with pytest.raises(TimeoutError, match=r"'j' is not finished after 0 s: .*total=1"):
        job.wait(timeout=0)


def test_waiting_ends_with_the_job(bench: Bench, cluster: Cluster) -> None:
    """Whoever does it."""
    job, told = cluster.submit([Task(id="a")], "j"), list[bool]()
    thread = threading.Thread(target=lambda: told.append(job.wait().finished), daemon=True)
    thread.start()
    work_off(bench)

    def ended() -> bool:
        bench.clock.advance(0.3)
        return not thread.is_alive()

    eventually(ended)
    assert told == [True]


def test_a_group_that_is_not_there_is_an_error() -> None:
    """Naming it and the store."""
    cluster = Cluster(MemoryBackend(), "nope", clock=HeldClock())
    assert cluster.absent()
    with pytest.raises(UsageError, match="no group 'nope' at memory://"):
        cluster.status()
    with pytest.raises(UsageError, match="no group"):
        cluster._access.spec()  # pyright: ignore[reportPrivateUsage]


def status_of(name: str, **others: object) -> dict[str, object]:
    """What `status` says of a member."""
    same = {
        "host": "host",
        "pid": 1,
        "suspects": "apart",
        "capacity": None,
        "unfit": None,
        "checked": None,
        "results_wait": None,
    }
    return {"name": name, **same, "silent": False, **others}


def test_status_tells_numbers_members_tasks_and_what_nobody_owns(bench: Bench, cluster: Cluster) -> None:
    """In the shape that the command prints."""
    put(bench.backend, KEYS.spec, Spec(1, 1, 3, 2, "").to_json())
    put(bench.backend, KEYS.seat(0), Seat("a", "").to_json())
    put(bench.backend, KEYS.member("b"), member("b", 2, running=False).to_json())
    put(bench.backend, KEYS.member("a"), member("a", 1).to_json())
    put(bench.backend, KEYS.shard(0), Shard(owner="a", counts={"j": {"done": 2, "added": 1}}).to_json())
    put(bench.backend, KEYS.shard(1), Shard(owner="gone").to_json())
    put(bench.backend, KEYS.job("j"), Job("sealed", 5, 1, "", "").to_json())
    bench.chunk("j-1", "c", "d", "e", "f", shard=1)
    old = Job("finished", 3, 1, "", "", done=2, failed=1)
    put(bench.backend, KEYS.job("old"), old.to_json())
    assert cluster.status() == {
        "group": "g",
        "spec": {"runner": 1, "backup": 1, "shards": 3},
        "members": [
            status_of("a", role="runner", seat=0, shards=1, running=True),
            status_of("b", role="backup-runner", seat=None, shards=0, running=False),
        ],
        "tasks": {"pending": 4, "running": 0, "done": 4, "failed": 1, "quarantined": 0, "skipped": 0},
        "jobs": {"j": "sealed", "old": "finished"},
        "unassigned": [1, 2],
        "breaker": "closed",
        "garbage": {},
        "store": None,
    }


def test_a_member_with_a_silent_lease_is_silent(
    bench: Bench, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the store's answer about the leases of the members, and no other member is."""
    put(bench.backend, KEYS.spec, Spec(1, 1, 3, 2, "").to_json())
    leases = {name: bench.backend.lease(5.0) for name in "ab"}
    for name, lease in leases.items():
        bench.backend.commit([], [Create(KEYS.member(name), member(name, 1).to_json(), lease)])
    put(bench.backend, KEYS.member("c"), member("c", 3).to_json())
    asked: list[Sequence[str]] = []

    def silent_leases(ids: Sequence[str]) -> frozenset[str]:
        asked.append(ids)
        return frozenset({leases["b"].id})

    monkeypatch.setitem(vars(bench.backend), "silent_leases", silent_leases)
    assert {each["name"]: each["silent"] for each in cluster.status()["members"]} == {"a": False, "b": True, "c": False}
    assert [sorted(ids) for ids in asked] == [sorted(lease.id for lease in leases.values())]


def lose_chunks(bench: Bench) -> None:
    """What a store does that evicts: the chunks of all waiting tasks go."""
    for shard in range(bench.shards):
        bench.backend.commit([], [Delete(key) for key in bench.backend.keys(KEYS.tasks(shard))])


def test_a_job_whose_tasks_are_lost_is_told_from_one_that_waits(bench: Bench, cluster: Cluster) -> None:
    """By its state, with numbers; waiting for it ends with an error."""
    job = cluster.submit([Task(id=name) for name in "abc"], "j")
    assert (cluster.status()["jobs"], job.loss()) == ({"j": "sealed"}, None)
    lose_chunks(bench)
    found = cluster.status()
    assert found["jobs"] == {"j": "lost"}
    assert found["lost"] == {"j": {"written": 3, "accounted": 0, "lost": 3}}
    told: list[str] = []

    def wait() -> None:
        try:
            job.wait()
        except TasksLostError as error:
            told.append(str(error))

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()

    def ended() -> bool:
        bench.clock.advance(0.3)
        return not thread.is_alive()

    eventually(ended)
    assert "lost 3 tasks of job j: 3 were written, 0 are accounted for" in told[0]


def test_tasks_that_run_are_not_lost(bench: Bench, cluster: Cluster) -> None:
    """Their chunk is open: the owner of the shard has them in memory, though the store has them no more."""
    cluster.submit([Task(id="a"), Task(id="b")], "j")
    bench.start(bench.own(), 1)
    lose_chunks(bench)
    assert "lost" not in cluster.status()


def test_running_tasks_are_counted(bench: Bench, cluster: Cluster) -> None:
    """By their marks."""
    cluster.submit([Task(id="a"), Task(id="b")], "j")
    bench.start(bench.own(), 1)
    tasks = cluster.status()["tasks"]
    assert (tasks["running"], tasks["pending"]) == (1, 1)


def test_garbage_is_told_by_its_key(bench: Bench, cluster: Cluster) -> None:
    """And stepped over: the rest is shown."""
    keys = [KEYS.job("bad"), KEYS.member("bad"), KEYS.seat(0), KEYS.shard(0)]
    for key in keys:
        put(bench.backend, key, b"garbage")
    status = cluster.status()
    assert (sorted(status["garbage"]), status["unassigned"]) == (sorted(keys), [0])
    assert cluster.garbage == status["garbage"]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"runner": "r", "epoch": "x", "outcomes": []},
        {"runner": "r", "epoch": 1, "outcomes": 5},
        {"runner": "r", "epoch": 1, "outcomes": [["a"]]},
        {"runner": "r", "epoch": 1, "outcomes": [["a", "colourful", None, None, 1]]},
    ],
)
def test_a_result_that_is_none_is_garbage(data: object) -> None:
    """No other error escapes."""
    with pytest.raises(GarbageError):
        list(outcomes(dump(data)))


def test_garbage_among_the_results_is_reported_and_left(bench: Bench, cluster: Cluster) -> None:
    """The others are read."""
    job = cluster.submit([Task(id="a")], "j")
    work_off(bench)
    put(bench.backend, f"{KEYS.results('j', 0)}/5", b"garbage")
    assert [outcome.task_id for outcome in job.results()] == ["a"]
    assert len(cluster.garbage) == 1


def test_a_store_that_stays_away_is_an_error_in_the_end(bench: Bench) -> None:
    """After patience is over."""
    faulty = Faulty(bench.backend)
    faulty.cut()
    with pytest.raises(UnavailableError):
        Cluster(faulty, "g", clock=bench.clock, patience=0).jobs()


def test_events_are_those_of_all_members() -> None:
    """Oldest first."""
    group = Group(runner=2)
    group.turn(group.member(), group.member())
    events = Cluster(group.backend, "g", clock=group.clock).events()
    assert {event["member"] for event in events} == {"m_0", "m_1"}
