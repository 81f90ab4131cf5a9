"""A store may keep each group by itself: whoever has to do with a group asks for its part, and for nothing else."""

import json
from types import SimpleNamespace
from typing import cast

import pytest
from cli_kit import Invoke, invoke_on

from smoothcluster import Cluster, ClusterCrawler, Task
from smoothcluster.backend import CoordinationBackend, Create
from smoothcluster.errors import OutcomeUnknownError, UnavailableError
from smoothcluster.memory import MemoryBackend, MemoryStore
from smoothcluster.testing import Faulty


def parted(stores: dict[str, MemoryStore]) -> CoordinationBackend:
    """A client of a store that has a place for each group and for nothing else: it has no method to be asked by."""
    parts: dict[str, MemoryBackend] = {}

    def for_group(group: str) -> MemoryBackend:
        return parts.setdefault(group, MemoryBackend(stores.setdefault(group, MemoryStore())))

    def close() -> None:
        for part in parts.values():
            part.close()

    client = SimpleNamespace(for_group=for_group, close=close, url="memory://parted", one_machine=True)
    return cast("CoordinationBackend", client)


@pytest.fixture
def stores() -> dict[str, MemoryStore]:
    """Where the groups lie, by name."""
    return {}


@pytest.fixture
def invoke(stores: dict[str, MemoryStore], monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command on such a store."""

    def connect(url: str | None, **options: object) -> CoordinationBackend:
        assert (url, options) == (None, {})
        return parted(stores)

    monkeypatch.setattr("smoothcluster.cli.common.connect", connect)
    return invoke_on("memory://parted")


def test_groups_work_where_they_lie(stores: dict[str, MemoryStore]) -> None:
    """Members and clients of two groups in one process: each has its own part, and neither knows of the other."""
    backend = parted(stores)
    for group, done in (("one", 3), ("two", 5)):
        job = Cluster(backend, group).submit([Task(id=str(number)) for number in range(done)], "j")
        with ClusterCrawler(backend=backend, runner=1, backup=0, group=group, handler=lambda task, _: task.id):
            assert job.wait(60).done == done
        assert {each.task_id for each in job.results()} == {str(number) for number in range(done)}
    assert stores.keys() == {"one", "two"}
    for group, store in stores.items():
        assert {key.partition("/")[0] for key in store.tree.entries} == {group}
    backend.close()
    with pytest.raises(UnavailableError):
        Cluster(backend, "one", patience=0.0).status()


@pytest.mark.parametrize(
    "command",
    ["status --json", "events", "results", "spec", "quarantine list", "wait j --timeout 0.1", "submit http://h/2"],
)
def test_every_command_looks_where_the_group_lies(invoke: Invoke, stores: dict[str, MemoryStore], command: str) -> None:
    """What it is asked about is found there, and nothing is asked of the whole."""
    submitted = invoke("submit", "http://h/1", "--job", "j", "--group", "g")
    assert submitted.exit_code == 0, submitted.output
    result = invoke(*command.split(), "--group", "g")
    assert result.exit_code == 0 or "is not finished" in result.output, result.exception or result.output
    if command.startswith("status"):
        assert json.loads(result.stdout)["tasks"]["pending"] == 1
    assert stores.keys() == {"g"}


def test_faults_befall_the_parts_of_one_client_together(stores: dict[str, MemoryStore]) -> None:
    """A group's part is reached over the connection that the whole is, and does what that was told."""
    faulty = Faulty(parted(stores))
    one, two = faulty.for_group("one"), faulty.for_group("two")
    assert faulty.for_group("one") is one.for_group("one") is one is not two
    wakes: list[str] = []
    one.watch("a", lambda: wakes.append("one"))
    faulty.drop_answer()
    with pytest.raises(OutcomeUnknownError):
        one.commit([], [Create("a", b"", one.lease(1.0))])
    two.hold()
    with pytest.raises(OutcomeUnknownError):
        one.commit([], [Create("b", b"")])
    assert (two.get("a"), one.get("b"), len(wakes)) == (None, None, 1)
    assert len(faulty.deliver()) == 1
    assert one.get("b") is not None
    faulty.cut()
    for part in (one, two):
        with pytest.raises(UnavailableError):
            part.get("a")
    two.mend()
    assert one.get("a") is not None
    assert wakes == ["one", "one"]
    one.close()
