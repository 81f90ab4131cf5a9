"""A shard's commits on stores that take little: operations are counted as bytes are, and what fits nowhere fails."""

import logging
from collections.abc import Sequence

import pytest
from core_kit import KEYS, Bench, decode_chunk, done, failed, limits
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcluster.backend import Guarantees, check_commit
from smoothcluster.errors import CommitTooLargeError
from smoothcluster.group.handover import release
from smoothcluster.model import Outcome, State, Task
from smoothcluster.options import Retries
from smoothcluster.records.keys import last_part
from smoothcluster.records.results import outcomes
from smoothcluster.work import ShardWork
from smoothcluster.work.room import Room

ETCD = limits(most_operations=64)
SMALL = limits(most_operations=64, largest_commit=64 * 1024, largest_value=60 * 1024)


def recorded(bench: Bench, job: str = "j") -> list[Outcome]:
    """The outcomes in the store."""
    return [outcome for value in bench.results(job) for outcome in outcomes(value)]


def written(bench: Bench) -> list[str]:
    """The ids of all tasks in chunks of any shard that no member has admitted."""
    admitted = bench.read().record.open
    chunks = [entry for shard in range(bench.shards) for entry in bench.backend.list(KEYS.tasks(shard))]
    return [task.id for entry in chunks if last_part(entry.key) not in admitted for task in decode_chunk(entry.value)]


def drain(bench: Bench, work: ShardWork, most: int = 200) -> int:
    """Commit until everything is said; how many commits that took. Each is held against the store's limits."""
    for commits in range(most):
        if not work.unsaid():
            return commits
        pending = work.prepare(0, 0.0)
        assert pending is not None, "there is news, and no commit carries any of it"
        check_commit(bench.guarantees, [], pending.changes)
        bench.send(work)
    raise AssertionError(f"not all is said after {most} commits")


def crawl(bench: Bench, links: Sequence[Task], value: str = "null") -> tuple[ShardWork, int]:
    """A task that adds *links* and returns *value*; how many commits it took to say so."""
    bench.chunk("j-0", "page")
    work = bench.own()
    (run,) = bench.start(work)
    work.finish(done(run, *links, value=value), 0.0)
    return work, drain(bench, work)


@pytest.mark.promise(7)
@pytest.mark.parametrize(
    ("guarantees", "shards"),
    [
        pytest.param(ETCD, 64, id="etcd, 16 Runners"),
        pytest.param(ETCD, 160, id="etcd, 40 Runners"),
        pytest.param(limits(most_operations=512), 1024, id="sqlite, 256 Runners"),
        pytest.param(limits(most_operations=4000), 16_384, id="Redis, 4096 Runners"),
        pytest.param(SMALL, 4096, id="a small store"),
        pytest.param(limits(most_operations=8), 64, id="few operations"),
    ],
)
def test_a_page_with_links_to_more_shards_than_a_commit_has_operations_is_recorded(
    guarantees: Guarantees, shards: int
) -> None:
    """In several commits, each full; the outcome comes with the last."""
    links = [Task(id=f"link-{number}") for number in range(4200 if shards == 16_384 else 500)]
    bench = Bench(guarantees, shards)
    _, commits = crawl(bench, links)
    assert [outcome.state for outcome in recorded(bench)] == [State.DONE]
    assert sorted(written(bench)) == sorted(task.id for task in links)
    assert bench.read().record.counts == {"j": {"added": len(links), "done": 1}}
    chunks = sum(len(bench.backend.keys(KEYS.tasks(shard))) for shard in range(shards))
    assert commits <= chunks / (0.75 * guarantees.most_operations) + 2, "commits are nearly full"


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 2000)), min_size=1, max_size=6),
    st.integers(6, 130),
    st.integers(1, 300),
)
@settings(max_examples=60, deadline=None)
def test_whatever_handlers_add_is_written_once(pages: list[tuple[int, int]], operations: int, shards: int) -> None:
    """Any number of links, of any size, from several pages in one commit."""
    bench = Bench(limits(most_operations=operations, largest_commit=64 * 1024, largest_value=60 * 1024), shards)
    bench.chunk("j-0", *(f"page-{number}" for number in range(len(pages))))
    work = bench.own()
    wanted: set[str] = set()
    for run, (links, size) in zip(bench.start(work), pages, strict=True):
        added = [Task(id=f"link-{number}", meta="x" * size) for number in range(links)]
        wanted.update(task.id for task in added)
        work.finish(done(run, *added), 0.0)
    drain(bench, work, 1000)
    found = written(bench)
    assert set(found) == wanted
    counts = bench.read().record.counts["j"]
    assert (counts["done"], counts.get("added", 0)) == (len(pages), len(found))


@pytest.mark.promise(7)
def test_a_value_that_no_commit_can_carry_is_a_failed_outcome() -> None:
    """With the reason; the member goes on."""
    bench = Bench(SMALL)
    crawl(bench, [], value=f'"{"x" * 100_000}"')
    (outcome,) = recorded(bench)
    assert (outcome.state, outcome.value) == (State.FAILED, None)
    assert outcome.error is not None
    assert "100002 bytes" in outcome.error
    assert "the store" in outcome.error


@pytest.mark.promise(7)
def test_an_added_task_that_no_commit_can_carry_fails_the_task_that_adds_it() -> None:
    """None of its tasks is added, as after an error of the handler."""
    bench = Bench(SMALL, 100)
    crawl(bench, [*(Task(id=f"link-{number}") for number in range(200)), Task(id="large", meta="x" * 100_000)])
    (outcome,) = recorded(bench)
    assert outcome.state is State.FAILED
    assert outcome.error is not None
    assert "'large'" in outcome.error
    assert "the store" in outcome.error
    assert written(bench) == []


def test_what_fits_nowhere_is_tried_again_as_any_failure() -> None:
    """Another try may return less."""
    bench = Bench(SMALL, retries=Retries(attempts=2))
    bench.chunk("j-0", "page")
    work = bench.own()
    for now, value, ended in ((0.0, f'"{"x" * 100_000}"', 0), (60.0, "1", 1)):
        (run,) = bench.start(work, now=now)
        work.finish(done(run, value=value), now)
        drain(bench, work)
        assert len(recorded(bench)) == ended
    assert [(outcome.state, outcome.attempts) for outcome in recorded(bench)] == [(State.DONE, 2)]


@pytest.mark.promise(3)
def test_a_commit_counted_too_small_is_built_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake of ours in the count loses nothing and skips nothing: the commit was never sent. It is reported."""
    reserve = Room.reserve

    def miscounted(room: Room, size: int, operations: int) -> bool:
        return reserve(room, size // 8, operations // 4)

    monkeypatch.setattr(Room, "reserve", miscounted)
    bench = Bench(SMALL, 200)
    ids = [f"page-{number}" for number in range(240)]
    for chunk in range(8):
        bench.chunk(f"j-{chunk}", *ids[chunk::8])
    work, started = bench.own(), 0
    with caplog.at_level(logging.ERROR, "smoothcluster"):
        for _ in range(2000):
            if len(recorded(bench)) == len(ids):
                break
            # Each commit records outcomes and links, and admits chunks whose tasks it starts.
            work.backlog.fill(300)
            for run in bench.commit(work, 40):
                started += 1
                links = [Task(id=f"{run.task.id}.{number}") for number in range(7 if run.task.id[-1] != "0" else 90)]
                ending = failed(run) if run.task.id.endswith("7") else done(run, *links, value=f'"{"v" * 900}"')
                work.finish(ending, 0.0)
    drain(bench, work, 2000)
    assert started == len(ids), "no task ran again"
    assert sorted(outcome.task_id for outcome in recorded(bench)) == sorted(ids)
    assert len(written(bench)) == len(set(written(bench))) == 192 * 7 + 24 * 90
    counts = bench.read().record.counts["j"]
    assert (counts["done"], counts["failed"], counts["added"], counts.get("skipped", 0)) == (
        216,
        24,
        192 * 7 + 24 * 90,
        0,
    )
    assert "larger than the store takes" in caplog.text
    assert [event["kind"] for event in bench.events] == ["too_large"]


def test_an_unsettled_commit_is_never_built_anew() -> None:
    """It may have landed: what is sent again is the same, byte for byte."""
    bench = Bench(SMALL, 200)
    bench.chunk("j-0", "page")
    work = bench.own()
    (run,) = bench.start(work)
    work.finish(done(run, *(Task(id=f"link-{number}") for number in range(500))), 0.0)
    pending = work.prepare(0, 0.0)
    work.keep_pending()
    assert not work.build_smaller(CommitTooLargeError("too large, the server says"))
    assert work.pending is pending


def test_a_record_full_of_starts_starts_no_more_tasks() -> None:
    """All that run may be blamed for the end of this process, and the record must still fit then."""
    bench = Bench(SMALL)
    for number in range(10):
        bench.chunk(f"j-{number}", *(f"task-{number}-{each}" for each in range(250)))
    work = bench.own()
    runs = bench.start(work, 2500)
    assert 100 < len(runs) < 600
    assert len(release(bench.read().record, "x").to_json()) < SMALL.largest_commit // 2
    while len(recorded(bench)) < 2500:
        for run in runs:
            work.finish(done(run), 0.0)
        drain(bench, work)
        work.backlog.stale = True
        runs = bench.start(work, 2500)
