"""Commits that a server refuses for their size, although the guarantees promise it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from core_kit import Bench, HandPool, News, done, limits, store_of

from smoothcluster.backend import Change, CommitSize, Committed, Condition, Refused, commit_size
from smoothcluster.errors import CommitTooLargeError, OutcomeUnknownError
from smoothcluster.memory import MemoryStore
from smoothcluster.model import Task
from smoothcluster.records.shard import Shard
from smoothcluster.work.sending import HINT_AFTER_UNANSWERED, HOLD_SECONDS
from smoothcluster.work.workload import Workload

PROMISED = limits(most_operations=64, largest_commit=64 * 1024, largest_value=60 * 1024)


class Server:
    """A workload of some shards, and a server with *answer* in place of its own answer to each commit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, shards: int = 1) -> None:
        self.bench = Bench(PROMISED, shards)
        self.pool, self.news = HandPool(), News()
        store = store_of(self.bench.backend, self.bench.garbage, self.bench.clock, self.bench.new_id)
        self.load = Workload(self.pool, replace(self.bench.context, store=store), 60, lambda: True, self.news)
        self.sizes: list[CommitSize] = []
        self.answer: Callable[[CommitSize], None] = lambda size: None
        commit = MemoryStore.commit

        def answered(
            store: MemoryStore, conditions: Sequence[Condition], changes: Sequence[Change]
        ) -> Committed | Refused:
            self.sizes.append(commit_size(conditions, changes))
            self.answer(self.sizes[-1])
            return commit(store, conditions, changes)

        monkeypatch.setattr(MemoryStore, "commit", answered)

    def own(self, number: int = 0, record: Shard | None = None) -> None:
        """Take a shard up."""
        self.bench.own(number, record)
        self.load.adopt(number, self.bench.read(number))

    def start(self, tasks: int) -> None:
        """Have so many tasks running."""
        self.bench.chunk("j-0", *(f"t{number}" for number in range(tasks)))
        self.load.step()
        assert len(self.pool.start()) == tasks

    def end(self, links: int = 7) -> None:
        """The running tasks add so many links each."""
        for run in self.pool.started:
            self.pool.finished.append(done(run, *(Task(id=f"{run.task.id}.{link}") for link in range(links))))
        self.pool.started.clear()

    @property
    def counts(self) -> dict[str, int]:
        """The counts of the job, by the store."""
        return self.bench.read().record.counts.get("j", {})

    @property
    def mistakes(self) -> int:
        """How many events say that a commit was too large."""
        return sum(event["kind"] == "too_large" for event in self.bench.events)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server, and shard 0 of a hundred."""
    server = Server(monkeypatch, 100)
    server.own()
    return server


def few(size: CommitSize) -> None:
    """Refuse more than ten operations."""
    if size.operations > 10:
        raise CommitTooLargeError(f"{size.operations} operations, and the server takes 10")


@pytest.mark.promise(7)
def test_a_commit_that_a_server_refuses_for_its_size_is_built_anew(server: Server) -> None:
    """Smaller, until the server takes it; nothing is lost, and the other tasks follow."""
    server.start(30)
    server.answer = few
    server.end()
    for _ in range(100):
        server.load.step()
    assert not server.load.works[0].unsaid()
    assert server.counts == {"done": 30, "added": 210}
    assert server.mistakes == 1, "from then on all commits are smaller"
    assert sum(size.operations > 10 for size in server.sizes) < 10
    assert max(size.operations for size in server.sizes) > 30


@pytest.mark.promise(3)
def test_a_commit_that_may_have_landed_is_dropped_rather_than_built_anew(server: Server) -> None:
    """The store says what is recorded, once the shard is claimed again: what was sent before comes too late then."""
    server.start(3)

    def unknown(size: CommitSize) -> None:
        raise OutcomeUnknownError("no answer")

    server.answer = unknown
    server.end()
    with pytest.raises(OutcomeUnknownError):
        server.load.step()
    pending = server.load.works[0].pending
    server.answer = few
    server.load.step()
    assert pending is not None
    assert 0 not in server.load.works
    assert server.mistakes == 0
    assert server.counts == {}


@pytest.mark.promise(7)
def test_a_shard_without_room_for_an_outcome_does_not_stop_the_others(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Its record may have been written by somebody else; it is left alone for a while, and tried again."""
    server.start(2)
    work = server.load.works[0]
    work.record.counts = {f"job-{number}": {"done": 1} for number in range(3000)}
    server.own(1)
    server.bench.chunk("j-1", "other", shard=1)
    server.end(0)
    for _ in range(3):
        server.load.step()
        server.pool.finish()
    assert (work.held, work.pending, server.counts) == (True, None, {})
    assert server.bench.read(1).record.counts == {"j": {"done": 1}}
    (message,) = caplog.messages
    assert message.startswith("no outcome of shard 0 can be recorded for now")
    due = server.load.next_time()
    assert due is not None
    assert 0 < due - server.bench.clock.monotonic() <= HOLD_SECONDS
    work.record.counts = {}
    server.bench.clock.advance(HOLD_SECONDS)
    server.load.step()
    assert server.counts == {"done": 2}


def test_a_commit_that_goes_without_an_answer_again_and_again_is_reported(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """ZooKeeper breaks the connection at a request that is too large: the log says once where to look."""
    server.start(3)

    def unknown(size: CommitSize) -> None:
        raise OutcomeUnknownError("the connection was lost")

    server.answer = unknown
    server.end()
    for _ in range(3 * HINT_AFTER_UNANSWERED):
        with pytest.raises(OutcomeUnknownError):
            server.load.step()
    assert len({size.bytes for size in server.sizes[-10:]}) == 1
    (hint,) = [message for message in caplog.messages if "doctor" in message]
    assert f"{server.sizes[-1].bytes} bytes and {server.sizes[-1].operations} operations" in hint
