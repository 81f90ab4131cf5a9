"""Arguments and circumstances that make no sense: an error that says what to do, and never a half-joined member."""

from typing import Any

import pytest
from cluster.group import Group, NewGroup
from cluster.stores import Kind, Store

from smoothcluster import Cluster, ClusterCrawler, Task, TaskContext, connect
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import (
    DuplicateTaskError,
    JobClosedError,
    NameInUseError,
    SpecMismatchError,
    UnavailableError,
    UnknownSchemeError,
    UsageError,
)


def fetch(task: Task, context: TaskContext) -> object:
    """Never called."""
    raise NotImplementedError


def construct(group: Group, /, **options: Any) -> None:
    """Make a member of *group* in this process; it leaves at once if it joins."""
    defaults: dict[str, Any] = {"group": group.name, "runner": 3, "backup": 2, "handler": fetch}
    ClusterCrawler(backend=group.backend, **defaults | options).stop()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"runner": 0}, "runner must be a whole number of at least 1, not 0"),
        ({"runner": -1}, "runner must be a whole number of at least 1, not -1"),
        ({"runner": 2.0}, "runner must be a whole number of at least 1, not 2.0"),
        ({"runner": "3"}, "runner must be a whole number of at least 1, not '3'"),
        ({"runner": True}, "runner must be a whole number of at least 1, not True"),
        ({"backup": -1}, "backup must be a whole number of at least 0, not -1"),
        ({"backup": 0.5}, "backup must be a whole number of at least 0, not 0.5"),
        ({"shards": 0}, "shards must be a whole number of at least 1, not 0"),
        ({"concurrency": 0}, "concurrency must be a whole number of at least 1, not 0"),
        ({"retries": 3}, "retries must be Retries(…) or None, not 3"),
        ({"pacing": 2}, "pacing must be Pacing(…) or None, not 2"),
        ({"isolation": "process"}, "isolation must be Isolation(…) or None, not 'process'"),
        ({"lease_ttl": 0}, "lease_ttl"),
        ({"lease_ttl": float("nan")}, "lease_ttl"),
        ({"name": "a/b"}, "name 'a/b' is not valid"),
        ({"name": ""}, "name '' is not valid"),
        ({"group": ".."}, "group '..' is not valid"),
        ({"handler": "fetch"}, "handler must be a function"),
        ({"listen": "no.such.host.invalid"}, "no.such.host.invalid"),
        ({"listen": "127.0.0.1:0"}, "ADDRESS[:PORT[-PORT]][@ADVERTISED]"),
    ],
)
def test_arguments_that_make_no_sense(group: Group, options: dict[str, Any], complaint: str) -> None:
    """The error names the argument and what it was; nothing was written to the store."""
    with pytest.raises(UsageError) as caught:
        construct(group, **options)
    assert complaint in str(caught.value)
    assert group.cluster.absent()


def test_no_backups_asked_for(group: Group) -> None:
    """No Backup Runner at all is a sensible wish."""
    construct(group, backup=0)
    assert group.status()["spec"] == {"runner": 3, "backup": 0, "shards": 32}


@pytest.mark.parametrize("numbers", [{"runner": 2}, {"backup": 1}, {"backup": None}])
def test_other_numbers_than_the_living_group(group: Group, numbers: dict[str, Any]) -> None:
    """The error names both; the group goes on as it was."""
    group.start()
    with pytest.raises(SpecMismatchError) as caught:
        construct(group, **numbers)
    wanted = {"runner": 3, "backup": 2} | numbers
    assert "runner=3, backup=2" in str(caught.value)
    assert f"runner={wanted['runner']}" in str(caught.value)
    assert wanted["backup"] is None or f"backup={wanted['backup']}" in str(caught.value)
    group.converged()


def test_other_shards_than_the_group_began_with(group: Group) -> None:
    """The number of shards is for good, even with no living member."""
    construct(group)
    with pytest.raises(SpecMismatchError, match="shards=32 for good, but this member asks for shards=16"):
        construct(group, shards=16)


def test_a_name_in_use(new_group: NewGroup) -> None:
    """It is waited for for about a lease's time, then the error names it; its holder notices nothing."""
    group = new_group(lease_ttl=1.0)
    holder = group.start_one(name="mine")
    since = SYSTEM_CLOCK.monotonic()
    with pytest.raises(NameInUseError, match="'mine'"):
        construct(group, name="mine", lease_ttl=1.0)
    assert 1.0 <= SYSTEM_CLOCK.monotonic() - since < 15.0
    assert [each["pid"] for each in group.status()["members"]] == [holder.pid]


def test_a_url_of_no_backend() -> None:
    """The error names the scheme and what there is instead."""
    with pytest.raises(UnknownSchemeError, match=r"nosuch.*zookeeper"):
        connect("nosuch://127.0.0.1:2181")


def unreachable(url: str) -> str:
    """Construct a member there, which must fail for the store; return the complaint."""
    backend = connect(url, timeout=1.0)
    since = SYSTEM_CLOCK.monotonic()
    try:
        with pytest.raises(UnavailableError) as caught:
            ClusterCrawler(backend=backend, runner=3, backup=2, handler=fetch)
        assert SYSTEM_CLOCK.monotonic() - since < 4.0
        return str(caught.value)
    finally:
        backend.close()


def test_a_store_that_is_not_there(kind: Kind) -> None:
    """Within its timeout the constructor says which address did not answer, and what to check."""
    url = kind.nowhere()
    complaint = unreachable(url)
    assert url.partition("://")[2] in complaint
    assert "check" in complaint.lower()


def test_a_store_that_does_not_answer(own_store: Store) -> None:
    """One that takes the connection and says nothing is no different."""
    own_store.pause()
    try:
        assert own_store.url.partition("://")[2] in unreachable(own_store.url)
    finally:
        own_store.resume()


def test_a_client_of_a_store_that_is_not_there(kind: Kind) -> None:
    """A client gives up when its patience is over."""
    backend = connect(kind.nowhere(), timeout=0.5)
    try:
        with pytest.raises(UnavailableError):
            Cluster(backend, "docs", patience=1.0).submit([Task(id="x")])
    finally:
        backend.close()


def test_submits_that_make_no_sense(group: Group) -> None:
    """Each is refused as a whole before anything is written."""
    with pytest.raises(DuplicateTaskError, match="'x' appears twice"):
        group.cluster.submit([Task(id="x"), Task(id="y"), Task(id="x")])
    with pytest.raises(UsageError, match="job 'a/b' is not valid"):
        group.cluster.submit([Task(id="x")], "a/b")
    with pytest.raises(UsageError, match="needs an id or a url"):
        Task()
    with pytest.raises(UsageError, match="a Task's meta must be a JSON value: object is no JSON type"):
        group.cluster.submit([Task(id="x", meta=object())])
    with pytest.raises(UsageError, match="limit is 262144"):
        group.cluster.submit([Task(id="x", body="x" * 300_000)])
    with pytest.raises(UsageError, match="submit takes Tasks, not str"):
        group.cluster.submit(["x"])  # type: ignore[list-item]  # on purpose


def test_a_submit_that_failed_can_be_repeated(group: Group) -> None:
    """What was written before the fault runs once; the whole, submitted again, is completed."""
    tasks = [Task(id=f"task-{number}") for number in range(10)]

    def cut_short() -> Any:
        yield from tasks[:5]
        raise OSError("the list of links ended here")

    with pytest.raises(OSError, match="ended here"):
        group.cluster.submit(cut_short(), "half")
    group.start(2)
    assert not group.cluster.job("half").progress().finished
    job = group.cluster.submit(tasks, "half")
    group.finish(job, [task.id for task in tasks])


def test_a_submit_to_a_job_that_has_finished(group: Group) -> None:
    """A job that has ended and was tidied up takes no more tasks: the error names it."""
    group.start(1, lease_ttl=1.0)
    group.finish(group.submit(5, job="over"), [f"task-{number}" for number in range(5)])
    group.eventually(lambda: group.cluster.jobs()["over"] == "finished")
    with pytest.raises(JobClosedError, match="'over' is finished"):
        group.submit(6, job="over")
    with pytest.raises(UsageError, match="no job 'other'"):
        group.cluster.job("other")
