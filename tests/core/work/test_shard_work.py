"""The work on one shard: marked before it starts, recorded once, in commits that are settled one by one."""

import json
from dataclasses import replace

import pytest
from core_kit import KEYS, Bench, done, failed, limits, member, put
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smoothcluster.backend import Create, Delete, Refused, Update, commit_size
from smoothcluster.group.handover import succeed
from smoothcluster.jobs.chunks import DIGEST_BYTES
from smoothcluster.model import Evidence, Outcome, State, Task
from smoothcluster.options import Retries
from smoothcluster.pool import Run, RunState
from smoothcluster.records.results import outcomes
from smoothcluster.records.shard import OpenChunk, Shard
from smoothcluster.work import ShardWork, place_of, shard_of


@pytest.fixture
def bench() -> Bench:
    """A store with one shard."""
    return Bench()


def recorded(bench: Bench, job: str = "j", shard: int = 0) -> list[Outcome]:
    """The outcomes in the store."""
    return [outcome for value in bench.results(job, shard) for outcome in outcomes(value)]


def finish(work: ShardWork, *runs: Run, now: float = 0.0) -> None:
    """The pool gives them back."""
    for run in runs:
        work.finish(run, now)


@pytest.mark.promise(5)
def test_a_task_is_marked_in_the_store_before_it_may_run(bench: Bench) -> None:
    """What the process dies of is known to its successor."""
    bench.chunk("j-0", "a", "b", "c")
    runs = bench.start(bench.own(), 2)
    assert [run.task.id for run in runs] == ["a", "b"]
    record = bench.read().record
    assert (record.open["j-0"].run, record.open["j-0"].size, record.seq) == (0b011, 3, 1)


def test_a_run_says_where_it_is_from(bench: Bench) -> None:
    """And its context what the handler may want to know."""
    bench.chunk("j-0", "a")
    work = bench.own(0, Shard(epoch=7))
    (run,) = bench.start(work)
    context = run.context
    assert (context.member, context.job, context.shard, context.epoch, context.attempt) == ("runner", "j", 0, 7, 1)
    assert (shard_of(run), place_of(run)) == (work, ("j-0", 0))


def test_what_a_claim_has_marked_can_be_left_to_others(bench: Bench) -> None:
    """It was not begun, so no start of it is counted."""
    bench.chunk("j-0", "a", "b")
    work = bench.own(0, Shard(open={"j-0": OpenChunk(2, run=0b01)}))
    assert not work.quiet()
    work.unmark()
    assert (work.quiet(), work.record.open["j-0"].run, work.resume()) == (True, 0, [])


def test_nothing_to_say_is_no_commit(bench: Bench) -> None:
    """An idle shard costs nothing."""
    work = bench.own()
    work.backlog.fill(10)
    assert work.prepare(10, 0.0) is None
    assert (work.pending, work.unsaid(), work.quiet()) == (None, False, True)


def test_outcomes_are_recorded_with_who_under_which_epoch_and_how_often(bench: Bench) -> None:
    """One key for the outcomes of a job that one commit carries."""
    bench.chunk("j-0", "a", "b", "c")
    work = bench.own(0, Shard(epoch=7))
    a, b, c = bench.start(work)
    finish(work, done(a, value='{"n":1}'), failed(b, 'x "y"'))
    bench.commit(work)
    assert recorded(bench) == [
        Outcome("a", State.DONE, {"n": 1}, None, 1, "runner", 7),
        Outcome("b", State.FAILED, None, 'x "y"', 1, "runner", 7),
    ]
    record = bench.read().record
    assert (record.counts, record.open["j-0"].closed, record.open["j-0"].run) == ({"j": {"done": 1, "failed": 1}}, 3, 4)
    assert work.outstanding == 1
    assert c.state is RunState.NOT_STARTED


def test_a_finished_chunk_is_deleted(bench: Bench) -> None:
    """In the commit that records the last of it."""
    bench.chunk("j-0", "a", "b")
    work = bench.own()
    finish(work, *map(done, bench.start(work)))
    bench.commit(work)
    assert bench.backend.keys(KEYS.tasks(0)) == []
    assert (bench.read().record.open, work.quiet()) == ({}, True)


@pytest.mark.promise(3)
def test_added_tasks_are_written_with_the_outcome(bench: Bench) -> None:
    """Both or neither: one commit; and only once it was applied are they known to be there."""
    bench.chunk("j-0", "a")
    work = bench.own()
    (run,) = bench.start(work)
    finish(work, done(run, Task(id="new"), Task(id="newer"), Task(id="new")))
    pending = work.prepare(0, 0.0)
    assert pending is not None
    keys = [change.key for change in pending.changes]
    assert keys[0] == KEYS.shard(0)
    assert any(key.startswith(KEYS.tasks(0)) for key in keys)
    assert any(key.startswith(KEYS.results("j", 0)) for key in keys)
    assert all(mark not in bench.context.sent for mark in pending.sent), "a commit that never happened adds nothing"
    bench.send(work)
    assert len(pending.sent) == 2
    assert all(mark in bench.context.sent for mark in pending.sent)
    assert bench.read().record.counts["j"] == {"added": 2, "done": 1}


def test_added_tasks_go_to_their_own_shards() -> None:
    """By hash of their ids, wherever they were found."""
    bench = Bench(shards=4)
    bench.chunk("j-0", "a")
    work = bench.own()
    (run,) = bench.start(work)
    finish(work, done(run, *(Task(id=f"t{n}") for n in range(40))))
    bench.commit(work)
    assert all(bench.backend.keys(KEYS.tasks(shard)) for shard in range(4))


def test_what_was_added_before_is_not_sent_again(bench: Bench) -> None:
    """A link that is met often costs one write."""
    bench.chunk("j-0", "a", "b")
    work = bench.own()
    for run in bench.start(work):
        finish(work, done(run, Task(id="same")))
        bench.commit(work)
    assert bench.read().record.counts["j"]["added"] == 1


def test_the_same_id_in_another_job_is_another_task(bench: Bench) -> None:
    """What one job has added does not keep it from another."""
    bench.chunk("j-0", "a")
    bench.chunk("k-0", "a")
    work = bench.own()
    work.backlog.fill(512)
    for run in bench.start(work):
        finish(work, done(run, Task(id="same")))
    bench.commit(work)
    assert [bench.read().record.counts[job]["added"] for job in "jk"] == [1, 1]


@pytest.mark.promise(3)
def test_a_repeated_id_is_skipped_and_counted(bench: Bench) -> None:
    """It is not run a second time; a chunk of repeats alone is deleted at once."""
    bench.chunk("j-0", "a", "b")
    bench.chunk("j-1", "a", "b")
    work = bench.own()
    runs = bench.start(work, 512)
    work.backlog.fill(512)
    bench.commit(work, 512)
    assert [run.task.id for run in runs] == ["a", "b"]
    assert bench.read().record.counts == {"j": {"skipped": 2}}
    assert bench.backend.keys(KEYS.tasks(0)) == [KEYS.chunk(0, "j-0")]


@pytest.mark.promise(3)
def test_a_successor_knows_the_ids_of_a_job(bench: Bench) -> None:
    """Digests are written in the commit that admits, so who comes after skips the same repeats."""
    bench.chunk("j-0", "a")
    work = bench.own()
    finish(work, *map(done, bench.start(work)))
    bench.commit(work)
    bench.chunk("j-1", "a", "b")
    successor = bench.own(0, bench.read().record)
    assert [run.task.id for run in bench.start(successor)] == ["b"]


@pytest.mark.promise(3, 5)
def test_a_successor_runs_what_ran_and_counts_that_start(bench: Bench) -> None:
    """Attempts are counted in the store."""
    bench.chunk("j-0", "a", "b")
    record = Shard(open={"j-0": OpenChunk(2, blame={1: ["x@1:left", "y@2:left"]}, fails={0: 1})})
    runs = bench.start(bench.own(0, record))
    assert [(run.task.id, run.context.attempt) for run in runs] == [("b", 3), ("a", 2)]


def test_a_failed_task_is_tried_again_after_a_delay_that_doubles() -> None:
    """Until it has failed so often as it may; then that is its outcome."""
    bench = Bench(retries=Retries(attempts=3, delay=10.0))
    bench.chunk("j-0", "a")
    work = bench.own()
    (run,) = bench.start(work)
    finish(work, failed(run))
    bench.commit(work, 1, now=100.0)
    assert (recorded(bench), work.backlog.pauses.next_end(), work.startable(109.0), work.startable(110.0)) == (
        [],
        110.0,
        False,
        True,
    )
    assert bench.read().record.open["j-0"].fails == {0: 1}
    assert bench.commit(work, 1, now=109.0) == []
    (run,) = bench.commit(work, 1, now=110.0)
    finish(work, failed(run))
    bench.commit(work, now=200.0)
    assert (run.context.attempt, work.backlog.pauses.next_end()) == (2, 220.0)
    (run,) = bench.commit(work, 1, now=220.0)
    finish(work, failed(run, "thrice"))
    bench.commit(work, now=220.0)
    (outcome,) = recorded(bench)
    assert (outcome.state, outcome.error, outcome.attempts) == (State.FAILED, "thrice", 3)
    assert work.backlog.pauses.next_end() is None


def test_a_pause_outlives_its_owner() -> None:
    """The record says how long the pause still lasts; a successor counts this time from its adoption on."""
    bench = Bench(retries=Retries(attempts=2, delay=60.0))
    bench.chunk("j-0", "a", "b")
    work = bench.own()
    run, _ = bench.start(work)
    finish(work, failed(run))
    now = bench.clock.monotonic()
    bench.commit(work, now=now)
    assert bench.read().record.open["j-0"].waits == {0: 60.0}
    for seconds, refresh, remaining in ((4.0, False, 60.0), (6.0, True, 54.0), (9.0, False, 54.0), (25.0, True, 35.0)):
        assert work.backlog.pauses.needs_refresh(now + seconds) is refresh
        if refresh:
            bench.commit(work, now=now + seconds)
        assert bench.read().record.open["j-0"].waits == {0: remaining}
    # Any other commit writes the remaining time, too; so do releases and transfers.
    bench.clock.advance(30.0)
    assert work.present().record.open["j-0"].waits == {0: 30.0}
    bench.clock.advance(1000.0)
    now = bench.clock.monotonic()
    successor = bench.own(0, succeed(work.record, member("next"), Evidence.LEFT, "c"))
    successor.backlog.fill(9)
    assert [run.task.id for run in bench.commit(successor, 9, now=now + 29.0, apart=9)] == ["b"]
    assert successor.backlog.pauses.next_end() == now + 30.0
    (again,) = bench.commit(successor, 9, now=now + 30.0)
    assert (again.task.id, again.context.attempt) == ("a", 2)
    assert bench.read().record.open["j-0"].waits == {}


def test_starts_that_nothing_came_of_are_no_failures() -> None:
    """A handler is not to blame for the deaths of its processes: it has its tries all the same."""
    bench = Bench(retries=Retries(attempts=2))
    bench.chunk("j-0", "a")
    work = bench.own(0, Shard(open={"j-0": OpenChunk(1, blame={0: ["x@1:left", "x@2:left"]})}))
    (run,) = bench.start(work)
    finish(work, failed(run))
    bench.commit(work)
    assert (recorded(bench), work.backlog.pauses.next_end()) == ([], 1.0)


@pytest.mark.parametrize("state", [RunState.NOT_STARTED, RunState.INTERRUPTED])
def test_what_was_handed_back_is_unmarked_and_first_in_line(bench: Bench, state: RunState) -> None:
    """Nobody is blamed for it, and it counts as no attempt."""
    bench.chunk("j-0", "a", "b")
    work = bench.own()
    (run,) = bench.start(work, 1)
    run.state = state
    work.finish(run, 0.0)
    assert work.unsaid()
    bench.commit(work)
    assert bench.read().record.open["j-0"].run == 0
    assert [(run.task.id, run.context.attempt) for run in bench.commit(work, 2)] == [("a", 1), ("b", 1)]


def test_a_shard_that_is_to_move_starts_nothing_and_records_on(bench: Bench) -> None:
    """Until all that runs is recorded."""
    bench.chunk("j-0", "a", "b")
    work = bench.own()
    (run,) = bench.start(work, 1)
    work.moving = True
    finish(work, done(run))
    assert (work.startable(0.0), bench.commit(work, 5), len(recorded(bench)), work.quiet()) == (False, [], 1, True)


@pytest.mark.promise(3)
def test_an_unsettled_commit_is_resent_as_it_was(bench: Bench) -> None:
    """What happens meanwhile waits for the next: a late original and a fatter retry would lose what was added."""
    bench.chunk("j-0", "a", "b")
    work = bench.own()
    a, b = bench.start(work)
    finish(work, done(a))
    pending = work.prepare(0, 0.0)
    assert pending is not None
    before = list(pending.changes)
    finish(work, done(b))
    assert work.pending is pending
    assert (pending.changes, work.startable(0.0), work.unsaid(), work.quiet()) == (before, False, True, False)
    with pytest.raises(AssertionError):
        work.prepare(0, 0.0)
    fence = pending.changes[0]
    assert isinstance(fence, Update)
    assert fence.version == work.version
    bench.send(work)
    assert isinstance(bench.backend.commit([], before), Refused), "sent twice, applied once"
    bench.commit(work)
    assert [outcome.task_id for outcome in recorded(bench)] == ["a", "b"]


@pytest.mark.promise(2)
def test_whoever_was_replaced_records_nothing(bench: Bench) -> None:
    """Every commit compares the shard's record."""
    bench.chunk("j-0", "a")
    work = bench.own()
    finish(work, *map(done, bench.start(work)))
    put(bench.backend, KEYS.shard(0), replace(bench.read().record, owner="other", epoch=9).to_json())
    pending = work.prepare(0, 0.0)
    assert pending is not None
    assert isinstance(bench.backend.commit([], pending.changes), Refused)
    assert recorded(bench) == []


def test_garbage_in_the_way_of_a_commit_is_written_over(bench: Bench) -> None:
    """Names are never used twice, so whatever lies there is a stranger's."""
    bench.chunk("j-0", "a")
    work = bench.own()
    finish(work, *map(done, bench.start(work)))
    key = f"{KEYS.results('j', 0)}/{work.record.seq:010d}"
    work.prepare(0, 0.0)
    put(bench.backend, key, b"garbage")
    assert work.pending is not None
    refused = bench.backend.commit([], work.pending.changes)
    assert refused == Refused(key)
    work.resolve_conflict(key)
    bench.send(work)
    assert ([outcome.task_id for outcome in recorded(bench)], list(bench.garbage.found)) == (["a"], [key])


def test_a_chunk_that_a_stranger_deleted_is_not_missed(bench: Bench) -> None:
    """Its tasks are done; that it has gone already changes nothing."""
    bench.chunk("j-0", "a")
    work = bench.own()
    finish(work, *map(done, bench.start(work)))
    key = KEYS.chunk(0, "j-0")
    bench.backend.commit([], [Delete(key)])
    work.prepare(0, 0.0)
    assert work.pending is not None
    assert bench.backend.commit([], work.pending.changes) == Refused(key)
    work.resolve_conflict(key)
    bench.send(work)
    assert len(recorded(bench)) == 1


def test_an_unreadable_task_ends_as_failed(bench: Bench) -> None:
    """The good ones run, the job's counts add up, and an event tells of it."""
    put(bench.backend, KEYS.chunk(0, "j-0"), b'[{"id":"a"},{"id":"b","params":{"page":1}},{"id":5}]')
    work = bench.own()
    runs = bench.start(work)
    assert [run.task.id for run in runs] == ["a"]
    assert work.unsaid()
    finish(work, *map(done, runs))
    bench.commit(work)
    assert {(each.task_id, each.state, each.attempts) for each in recorded(bench)} == {
        ("a", State.DONE, 1), ("b", State.FAILED, 0), ("j-0#2", State.FAILED, 0),
    }  # fmt: skip
    assert {each.error for each in recorded(bench) if each.task_id == "b"} == {
        "the task is not readable: a Task's params must be a dict of text to text, or None, not {'page': 1}"
    }
    record = bench.read().record
    assert (record.open, record.counts) == ({}, {"j": {"done": 1, "failed": 2, "unreadable": 2}})
    assert bench.events == [{"kind": "tasks_unreadable", "job": "j", "shard": 0, "count": 2, "tasks": ["b", "j-0#2"]}]
    assert bench.backend.get(KEYS.chunk(0, "j-0")) is None


def test_an_unreadable_task_that_its_claim_has_marked_ends_as_failed(bench: Bench) -> None:
    """As if it had not been marked; nothing of it is started."""
    work = bench.own(record=Shard(open={"j-0": OpenChunk(2, run=0b11, fails={1: 1})}))
    put(bench.backend, KEYS.chunk(0, "j-0"), b'[{"id":"a"},{"id":"b","colour":1}]')
    work.backlog.reopen()
    runs = work.resume()
    assert [run.task.id for run in runs] == ["a"]
    bench.commit(work)
    assert [(each.task_id, each.state, each.attempts) for each in recorded(bench)] == [("b", State.FAILED, 1)]
    assert bench.read().record.open["j-0"].run == 0b01


def test_unreadable_tasks_fail_in_commits_within_the_limits() -> None:
    """As many commits as they need."""
    bench = Bench(guarantees=limits(largest_commit=40_000, largest_value=20_000))
    work = bench.own()
    put(bench.backend, KEYS.chunk(0, f"j-0+{200:x}"), b"garbage")
    assert bench.start(work) == []
    commits = 0
    while work.unsaid():
        bench.commit(work)
        commits += 1
    assert (len(recorded(bench)), bench.read().record.counts["j"]["failed"]) == (200, 200)
    assert 1 < commits < 20


def test_too_many_added_tasks_are_written_before_the_outcome() -> None:
    """In commits of their own, each within the limits; the outcome comes with the last of them."""
    bench = Bench(guarantees=limits(largest_commit=60_000, largest_value=40_000))
    bench.chunk("j-0", "a")
    work = bench.own()
    (run,) = bench.start(work)
    new = [Task(id=f"t{number}", meta="x" * 100) for number in range(1000)]
    finish(work, done(run, *new))
    commits = 0
    while work.unsaid():
        assert recorded(bench) == []
        assert bench.read().record.open["j-0"].run == 1, "till then it counts as running"
        bench.commit(work)
        commits += 1
    assert commits > 1
    assert bench.read().record.counts["j"] == {"added": 1000, "done": 1}
    assert [outcome.task_id for outcome in recorded(bench)] == ["a"]
    found = bench.start(bench.own(0, bench.read().record), 2000)
    assert len(found) >= 256


@pytest.mark.promise(3)
def test_who_dies_while_spilling_adds_nothing_twice() -> None:
    """The task runs again, and what it adds again is skipped."""
    bench = Bench(guarantees=limits(largest_commit=60_000, largest_value=40_000))
    bench.chunk("j-0", "a")
    work = bench.own()
    (run,) = bench.start(work)
    new = [Task(id=f"t{number}", meta="x" * 100) for number in range(600)]
    finish(work, done(run, *new))
    bench.commit(work)
    assert recorded(bench) == []
    record = bench.read().record
    record.open["j-0"].run = 0
    other = Bench(guarantees=bench.guarantees)
    other.store, other.backend = bench.store, bench.backend
    other.context.store.backend = bench.backend
    work = other.own(0, record)
    for _ in range(60):
        for each in other.start(work, 50):
            finish(work, done(each, *(new if each.task.id == "a" else ())))
        other.commit(work)
        work.backlog.stale = True
    names = [outcome.task_id for outcome in recorded(other)]
    counts = other.read().record.counts["j"]
    assert sorted(names) == sorted(["a", *(task.id for task in new)])
    assert 1 + counts["added"] == counts["done"] + counts["skipped"]
    assert counts["skipped"] > 0


def test_results_are_split_so_that_each_key_fits() -> None:
    """No more outcomes in a commit than one key can hold; the others follow."""
    bench = Bench(guarantees=limits(largest_value=3000))
    bench.chunk("j-0", *(f"t{number}" for number in range(20)))
    work = bench.own()
    finish(work, *(done(run, value=f'"{"x" * 500}"') for run in bench.start(work, 20)))
    while work.unsaid():
        bench.commit(work)
    assert len(recorded(bench)) == 20
    assert len(bench.results("j")) > 4
    assert all(len(value) <= 3000 for value in bench.results("j"))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(0, 3000)), min_size=1, max_size=25),
    st.integers(12, 128),
)
# The last tasks wait in a queue.
@example([(1, 6, 0), (1, 20, 0), (1, 0, 0), (0, 3, 0), (1, 3, 0), (0, 0, 0), (0, 1, 0), (0, 0, 0)], 12)
@example([(0, 0, 0)] * 10 + [(0, 51, 2404)], 13)  # A commit full of added tasks starts none, though some wait.
@settings(max_examples=40, deadline=None)
def test_no_commit_exceeds_what_the_store_takes(tasks: list[tuple[int, int, int]], operations: int) -> None:
    """Whatever handlers return and submit, all of it gets recorded, and the books balance."""
    bench = Bench(guarantees=limits(largest_commit=50_000, largest_value=30_000, most_operations=operations), shards=4)
    for number, (job, _, _) in enumerate(tasks):
        bench.chunk(f"j{job}-{number}", f"t{number}")
    work = bench.own()
    plans = {f"t{number}": plan for number, plan in enumerate(tasks)}
    while work.record.has_tasks() or bench.backend.keys(KEYS.tasks(0)) or work.unsaid():
        for run in bench.start(work, 8):
            _, adds, size = plans.get(run.task.id, (0, 0, 0))
            new = [Task(id=f"{run.task.id}.{n}", meta="y" * (size // 4)) for n in range(adds)]
            finish(work, done(run, *new, value=f'"{"x" * size}"'))
        pending = work.prepare(0, 0.0)
        if pending is not None:
            reckoned = commit_size([], pending.changes)
            assert reckoned.bytes <= 50_000
            assert reckoned.operations <= operations
            bench.send(work)
        work.backlog.stale = True
    counts = bench.read().record.counts
    assert sum(tally.get("done", 0) for tally in counts.values()) >= len(tasks)
    assert sum(tally.get("added", 0) for tally in counts.values()) == sum(adds for _, adds, _ in tasks)


def test_a_chunk_that_does_not_fit_waits_for_the_next_commit() -> None:
    """Each may have to be deleted, and the digests of their job are one record."""
    bench = Bench(guarantees=limits(most_operations=4))
    for number in range(4):
        bench.chunk(f"j-{number}", f"t{number}")
    work = bench.own()
    work.backlog.fill(2000)
    assert len(bench.commit(work, 10)) == 2
    assert len(bench.commit(work, 10)) == 2
    assert [len(entry.value) // DIGEST_BYTES for entry in bench.backend.list(KEYS.seen("j", 0))] == [2, 2]


def test_what_finished_jobs_left_goes_in_as_many_commits_as_it_takes() -> None:
    """The counts go with the last of it."""
    bench = Bench(guarantees=limits(most_operations=4))
    work = bench.own(0, Shard(counts={"j": {"done": 5}}))
    keys = [f"{KEYS.seen('j', 0)}/{number}" for number in range(5)]
    for key in keys:
        bench.backend.commit([], [Create(key, b"x" * 16)])
    work.forget("j", list(keys))
    left: list[int] = []
    while work.unsaid():
        assert "j" in bench.read().record.counts
        bench.commit(work)
        left.append(len(bench.backend.keys(KEYS.seen("j", 0))))
    assert (left, bench.read().record.counts) == ([2, 0], {})


def test_results_are_json_of_ascii(bench: Bench) -> None:
    """Whatever an id or an error holds, lone surrogates included."""
    bench.chunk("j-0", "\udcff")
    work = bench.own()
    finish(work, *(failed(run, "ü\udcff\n") for run in bench.start(work)))
    bench.commit(work)
    (value,) = bench.results("j")
    assert json.loads(value.decode("ascii"))["outcomes"] == [
        ["\udcff", "failed", None, "ü\udcff\n", 1, {"id": "\udcff"}]
    ]
