"""What may have killed its process: run apart or alone, and convicted only by what nothing else explains."""

import json
from threading import Event

import pytest
from core_kit import KEYS, Bench, HandPool, Kennel, News, died, done, failed, limits, put

from smoothcluster.backend import Guarantees
from smoothcluster.jobs.chunks import encode_task
from smoothcluster.model import Outcome, State, Task
from smoothcluster.pool import RunState
from smoothcluster.records.quarantine import QuarantinedTask
from smoothcluster.records.results import outcomes
from smoothcluster.records.shard import OpenChunk, Shard
from smoothcluster.work import ShardWork
from smoothcluster.work.pace import COMMIT_INTERVAL_SECONDS
from smoothcluster.work.pending_commit import MOST_TASK_IDS_IN_EVENT
from smoothcluster.work.restarts import CHILD_CHECK_SECONDS
from smoothcluster.work.suspects import CONFIRM_DEATH_SECONDS
from smoothcluster.work.verdict import DEATHS_TO_QUARANTINE
from smoothcluster.work.workload import Workload

GONE = "x@1:process_gone"


@pytest.fixture
def bench() -> Bench:
    """A store with one shard, and one child."""
    return Bench()


def taken_over(bench: Bench, *blames: list[str]) -> ShardWork:
    """A shard with one chunk, whose tasks are a, b and so on, blamed for these."""
    names = [chr(ord("a") + number) for number in range(len(blames))]
    bench.chunk("j-0", *names)
    chunk = OpenChunk(len(blames), blame={number: list(blame) for number, blame in enumerate(blames) if blame})
    work = bench.own(0, Shard(epoch=2, open={"j-0": chunk}))
    work.backlog.reopen()
    return work


def recorded(bench: Bench) -> list[Outcome]:
    """The outcomes in the store."""
    return [outcome for value in bench.results("j") for outcome in outcomes(value)]


def blame(bench: Bench, index: int = 0) -> list[str]:
    """What the store says of a task."""
    return bench.read().record.open["j-0"].blame[index]


def test_suspects_start_apart_and_others_do_not_wait_for_them(bench: Bench) -> None:
    """As many as there are children for; each is marked before it starts."""
    work = taken_over(bench, [GONE], [], [GONE])
    runs = bench.commit(work, 10, apart=1)
    assert [(run.task.id, run.apart, run.alone, run.context.attempt) for run in runs] == [
        ("a", True, False, 2),
        ("b", False, False, 1),
    ]
    assert (bench.read().record.open["j-0"].run, work.suspects.in_children, work.outstanding) == (0b011, 1, 2)
    assert bench.commit(work, 10) == []


def test_what_comes_through_in_a_child_is_recorded(bench: Bench) -> None:
    """Like any other."""
    work = taken_over(bench, [GONE])
    (run,) = bench.commit(work, apart=1)
    work.finish(done(run, value="7"), 0.0)
    assert work.suspects.in_children == 0
    bench.commit(work)
    assert recorded(bench) == [Outcome("a", State.DONE, 7, None, 2, "runner", 2)]


def test_what_fails_in_a_child_is_run_once_more_in_the_member(bench: Bench) -> None:
    """The child may lack what the member has. If it kills there, what the next child says stands."""
    work = taken_over(bench, [GONE])
    (run,) = bench.commit(work, apart=1)
    work.finish(failed(run), 0.0)
    (run,) = bench.commit(work, 1)
    assert (run.apart, run.context.attempt, recorded(bench)) == (False, 3, [])
    assert blame(bench) == [GONE, "me@2:child_raised@1600001000"]
    again = taken_over(bench, [*blame(bench), "me@2:process_gone"])
    (run,) = bench.commit(again, apart=1)
    again.finish(failed(run, "why"), 0.0)
    bench.commit(again)
    assert recorded(bench) == [Outcome("a", State.FAILED, None, "why", 4, "runner", 2)]


@pytest.mark.promise(5)
def test_a_death_counts_when_the_member_has_outlived_it(bench: Bench) -> None:
    """Until then the task is as good as running: if the member dies, too, nobody is accused."""
    work = taken_over(bench, [GONE])
    (run,) = bench.commit(work, apart=1)
    work.finish(died(run, "child_exit_3"), 10.0)
    assert (work.suspects.next_verdict(), work.quiet()) == (10.0 + CONFIRM_DEATH_SECONDS, True)
    assert bench.commit(work, 1, 10.0 + CONFIRM_DEATH_SECONDS / 2, apart=1) == []
    assert (bench.read().record.open["j-0"].run, blame(bench)) == (1, [GONE])
    (run,) = bench.commit(work, 1, 10.0 + CONFIRM_DEATH_SECONDS, apart=1)
    assert (run.apart, run.alone, run.context.attempt, work.suspects.next_verdict()) == (True, True, 3, None)
    assert blame(bench) == [GONE, "me@2:child_exit_3@1600001000"]


@pytest.mark.promise(5)
def test_a_member_that_is_leaving_accuses_nobody() -> None:
    """Its children may have been told to end with it."""
    stopping = Event()
    bench = Bench(stopping=stopping)
    work = taken_over(bench, [GONE])
    (run,) = bench.commit(work, apart=1)
    work.finish(died(run, "child_exit_3"), 10.0)
    stopping.set()
    bench.commit(work, 0, 20.0)
    assert (bench.read().record.open["j-0"].run, blame(bench)) == (1, [GONE])


@pytest.mark.promise(5)
def test_the_second_crash_convicts(bench: Bench) -> None:
    """One commit has the outcome, the count and the record with the evidence; the event follows."""
    work = taken_over(bench, [GONE], [])
    work.finish(died(bench.commit(work, apart=1)[0], "child_exit_3"), 0.0)
    work.finish(
        died(bench.commit(work, 0, CONFIRM_DEATH_SECONDS, apart=1)[0], "child_signal_SIGSEGV"), CONFIRM_DEATH_SECONDS
    )
    assert bench.commit(work, 0, 2 * CONFIRM_DEATH_SECONDS, apart=1) == []
    (outcome,) = recorded(bench)
    assert (outcome.task_id, outcome.state, outcome.attempts) == ("a", State.QUARANTINED, 3)
    (entry,) = bench.backend.list(KEYS.quarantine)
    condemned = QuarantinedTask.from_json(entry.value)
    assert condemned.error == outcome.error
    assert [each["evidence"] for each in condemned.evidence] == ["process_gone", "child_exit_3", "child_signal_SIGSEGV"]
    assert entry.key == KEYS.quarantined(condemned.id)
    assert (condemned.job, condemned.task, condemned.attempts, condemned.at) == ("j", Task(id="a"), 3, 1600001000.0)
    record = bench.read().record
    assert (record.counts, record.open["j-0"].closed) == ({"j": {"quarantined": 1}}, 1)
    assert [(event["kind"], event["task"]) for event in bench.events] == [("quarantined", "a")]


@pytest.mark.promise(5)
def test_kills_convict_when_there_are_many_and_no_bystander_was_harmed(bench: Bench) -> None:
    """One that was takes back those before it."""
    work = taken_over(bench, [GONE, *["y@1:child_killed"] * (DEATHS_TO_QUARANTINE - 1)])
    bench.kennel.harmed = 5.0
    work.finish(died(bench.commit(work, apart=1)[0], "child_killed", began=4.0), 6.0)
    bench.commit(work, 0, 10.0)
    assert (blame(bench)[-1], recorded(bench)) == ("me@2:child_disturbed@1600001000", [])
    for number in range(DEATHS_TO_QUARANTINE):
        now = 10.0 * (number + 2)
        work.finish(died(bench.commit(work, 0, now, apart=1)[0], "child_killed", began=now), now)
    bench.commit(work, 0, 1000.0)
    assert recorded(bench)[0].state is State.QUARANTINED


def test_a_crash_is_one_whoever_dies_beside_it(bench: Bench) -> None:
    """No outsider makes a task crash."""
    bench.kennel.harmed = 99.0
    work = taken_over(bench, [GONE])
    work.finish(died(bench.commit(work, apart=1)[0], "child_exit_3"), 0.0)
    bench.commit(work, 0, 100.0)
    assert blame(bench)[-1] == "me@2:child_exit_3@1600001000"


@pytest.mark.promise(5)
def test_what_its_former_owners_have_proved_is_not_run_again(bench: Bench) -> None:
    """A task that was alone in two members that died is convicted by whoever takes over."""
    work = taken_over(bench, [GONE, "y@1:alone", "y@1:process_gone"])
    assert work.unsaid()
    assert bench.commit(work, 10, apart=10) == []
    assert [(each.state, each.attempts) for each in recorded(bench)] == [(State.QUARANTINED, 2)]


@pytest.mark.parametrize(
    "guarantees", [limits(largest_value=19_800), limits(largest_commit=20_000)], ids=["value", "commit"]
)
def test_a_task_too_large_for_the_quarantine_fails(guarantees: Guarantees) -> None:
    """The task with the evidence exceeds what the store takes; the outcome says why the task ended all the same."""
    bench = Bench(guarantees)
    texts = [encode_task(Task(id="a", meta="m" * 19_500)), encode_task(Task(id="b"))]
    bench.store.guarantees = limits()
    put(bench.backend, KEYS.chunk(0, "j-0"), f"[{','.join(texts)}]".encode())
    bench.store.guarantees = guarantees
    guilty = [GONE, "y@1:alone", "y@1:process_gone"]
    work = bench.own(0, Shard(open={"j-0": OpenChunk(2, blame={0: guilty, 1: guilty})}))
    work.backlog.reopen()
    while work.unsaid():
        assert bench.commit(work) == []
    assert [(outcome.task_id, str(outcome.state)) for outcome in recorded(bench)] == [
        ("a", "failed"), ("b", "quarantined"),
    ]  # fmt: skip
    assert "its process ended whenever it ran" in (recorded(bench)[0].error or "")
    assert len(bench.backend.keys(KEYS.quarantine)) == 1


def test_a_verdict_waits_until_it_fits() -> None:
    """A task may be as large as a quarter of a commit; a commit takes what it can."""
    bench = Bench(limits(largest_commit=410_000))
    tasks = [Task(id=name, meta="m" * 200_000) for name in "ab"]
    put(bench.backend, KEYS.chunk(0, "j-0"), f"[{','.join(map(encode_task, tasks))}]".encode())
    guilty = [GONE, "y@1:alone", "y@1:process_gone"]
    work = bench.own(0, Shard(open={"j-0": OpenChunk(2, blame={0: guilty, 1: guilty})}))
    work.backlog.reopen()
    bench.commit(work)
    assert (len(recorded(bench)), work.unsaid()) == (1, True)
    bench.commit(work)
    assert (len(recorded(bench)), work.unsaid()) == (2, False)


def test_where_all_tasks_run_apart_only_the_accused_are_special() -> None:
    """They are run alone; suspects are safe where they are."""
    bench = Bench(kennel=Kennel(every=True))
    work = taken_over(bench, [GONE], [], ["y@1:child_exit_3"])
    runs = bench.commit(work, 10)
    assert [(run.task.id, run.apart, run.alone) for run in runs] == [("a", True, False), ("b", True, False)]
    (run,) = bench.commit(work, apart=5)
    assert (run.task.id, run.alone, work.suspects.in_children) == ("c", True, 1)
    work.finish(failed(runs[0], "why"), 0.0)
    bench.commit(work)
    assert [each.state for each in recorded(bench)] == [State.FAILED]


def test_one_alone_in_the_member_is_announced(bench: Bench) -> None:
    """In the commit that marks it, and that is no start of its own; if it is handed back, it is taken back."""
    work = taken_over(bench, [GONE], [GONE])
    (run,) = bench.commit(work, apart=9, alone=True)
    assert (run.task.id, run.apart, run.context.attempt) == ("a", False, 2)
    assert blame(bench) == [GONE, "me@2:alone@1600001000"]
    run.state = RunState.NOT_STARTED
    work.finish(run, 0.0)
    bench.commit(work)
    assert (bench.read().record.open["j-0"].run, blame(bench)) == (0, [GONE])
    assert list(work.backlog.suspects) == [("j-0", 1), ("j-0", 0)]


# A whole member's work


class Desk:
    """A workload of shards that were taken over, and a pool that is worked by hand."""

    def __init__(self, kennel: Kennel, shards: int = 1, blamed: int = 1) -> None:
        self.bench = Bench(shards=shards, kennel=kennel)
        self.pool = HandPool()
        self.load = Workload(self.pool, self.bench.context, 2, lambda: self.held, News())
        self.held = True
        for number in range(shards):
            names = [f"{number}{letter}" for letter in "abcdef"]
            self.bench.chunk("j-0", *names, shard=number)
            chunk = OpenChunk(6, blame={index: [GONE] for index in range(blamed)})
            self.bench.own(number, Shard(epoch=2, open={"j-0": chunk}))
            self.load.adopt(number, self.bench.read(number))

    def turn(self) -> list[str]:
        """Let it start what it will; the tasks that the pool has."""
        self.load.step()
        return [run.task.id for run in self.pool.waiting]

    def end(self, how: str | None = None) -> list[str]:
        """End all that the pool has, suspects in children in this way; what it starts then."""
        for run in list(self.pool.start()):
            self.pool.finished.append(died(run, how) if how and run.apart else done(run))
        self.pool.started.clear()
        return self.turn()


def test_suspects_start_before_fresh_tasks() -> None:
    """As many start as children take. Fresh tasks get the workers that no suspect waits for."""
    kennel = Kennel(up=0)
    desk = Desk(kennel, blamed=3)
    assert desk.turn() == desk.turn() == []
    assert kennel.asked == [3, 3]
    now = desk.bench.clock.monotonic()
    assert desk.load.next_time() == now + CHILD_CHECK_SECONDS, "there may be a child then"
    kennel.up = 1
    assert desk.turn() == desk.turn() == ["0a"]
    kennel.up = 2
    assert desk.turn() == ["0a", "0b"]
    assert desk.end() == ["0c", "0d"]


def test_suspects_of_all_shards_start_at_once() -> None:
    """None of them waits for the turn of its shard, and their chunks are read with one request."""
    desk = Desk(Kennel(up=9), shards=6, blamed=1)
    reads: list[int] = []
    read = desk.bench.backend.get_many
    desk.bench.backend.get_many = lambda keys: [reads.append(len(keys)), *read(keys)][1:]  # type: ignore[method-assign,func-returns-value]
    assert sorted(desk.turn()) == [f"{number}a" for number in range(6)]
    assert reads == [6]
    desk.end()
    assert [name[1] for name in desk.turn()] == ["b", "c"]


def test_a_claim_leaves_workers_to_the_tasks_that_ran() -> None:
    """Those come first; fresh tasks get the rest, and nothing where the tasks that ran must run alone."""
    for kennel, wanted in (
        (Kennel(up=9), {0: (0, 2), 1: (1, 1), 2: (2, 0), 5: (2, 0)}),
        (Kennel(up=0), {0: (0, 2), 1: (0, 1), 5: (0, 0)}),
        (Kennel(can=False), {0: (0, 2), 1: (0, 0)}),
        (Kennel(every=True), {0: (0, 2), 1: (1, 1), 5: (2, 0)}),
    ):
        load = Desk(kennel, shards=0).load
        assert {number: load.restarts.claimable(number, load.room()) for number in wanted} == wanted


def test_a_suspect_that_a_claim_has_marked_runs_apart_and_is_told_of() -> None:
    """Without a further commit; marks that are taken back make the task wait for a child as usual."""
    for taken_back in (False, True):
        desk = Desk(Kennel(up=2), shards=0)
        desk.bench.chunk("j-0", "a", "b", "c")
        record = Shard(epoch=2, open={"j-0": OpenChunk(3, run=0b11, blame={0: [GONE]})})
        put(desk.bench.backend, KEYS.shard(0), record.to_json())
        work = desk.load.adopt(0, desk.bench.read(0))
        if taken_back:
            work.unmark()
        desk.turn()
        runs = {run.task.id: run for run in desk.pool.waiting}
        assert (runs["a"].apart, runs["a"].urgent, runs["b"].apart) == (True, True, False)
        assert work.suspects.in_children == 1
        assert [event["count"] for event in desk.bench.events] == [1]


def test_suspects_are_told_of_once_for_each_shard() -> None:
    """And named, unless they are very many."""
    desk = Desk(Kennel(up=0), shards=2, blamed=2)
    for _ in range(4):
        desk.end()
    told = [(event["shard"], event["count"], event["run"]) for event in desk.bench.events]
    assert sorted(told, key=str) == [(0, 2, "in a child"), (1, 2, "in a child")]
    assert {len(event["tasks"]) for event in desk.bench.events} == {2}  # type: ignore[arg-type]  # a list
    assert MOST_TASK_IDS_IN_EVENT > 2


def test_a_child_that_died_is_thought_of_when_it_is_time() -> None:
    """And not while the lease may be lost."""
    desk = Desk(Kennel())
    desk.turn()
    desk.end("child_exit_3")
    start = desk.bench.clock.monotonic()
    while desk.load.outstanding:
        desk.end()
    assert desk.load.next_time() == start + CONFIRM_DEATH_SECONDS
    desk.held = False
    desk.bench.clock.advance(CONFIRM_DEATH_SECONDS)
    desk.turn()
    assert desk.load.next_time() == start + CONFIRM_DEATH_SECONDS + COMMIT_INTERVAL_SECONDS
    desk.held = True
    desk.turn()
    assert desk.turn() == ["0a"]
    assert desk.pool.waiting[0].alone


def test_what_is_put_back_while_a_worker_is_free_is_started_at_once() -> None:
    """A suspect that has failed in a child needs no child any more."""
    desk = Desk(Kennel())
    while not any(run.apart for run in desk.pool.waiting):
        desk.turn()
    (suspect,) = [run for run in desk.pool.start() if run.apart]
    for run in list(desk.pool.started):
        desk.pool.finished.append(failed(run) if run is suspect else done(run))
    desk.pool.started.clear()
    desk.bench.clock.advance(COMMIT_INTERVAL_SECONDS)
    while "0a" not in desk.turn():
        assert desk.load.next_time() is not None
        desk.pool.finish()
        desk.bench.clock.advance(COMMIT_INTERVAL_SECONDS)
    assert not next(run for run in desk.pool.waiting if run.task.id == "0a").apart


@pytest.mark.promise(5)
def test_where_no_child_can_run_it_a_suspect_runs_alone() -> None:
    """When nothing else runs and all is recorded; nothing else starts meanwhile; one after another."""
    desk = Desk(Kennel(can=False), shards=2)
    first = desk.turn()
    assert desk.turn() == first
    assert desk.load.room() == 0
    seen: list[list[str]] = [first]
    for _ in range(4):
        seen.append(desk.end())
        assert desk.load.room() == 0 or not desk.load.works
    alone = [names for names in seen if any(name.endswith("a") for name in names)]
    assert sorted(alone) == [["0a"], ["1a"]]


def test_what_a_claim_has_marked_runs_before_a_suspect_does() -> None:
    """It counts as running."""
    desk = Desk(Kennel(can=False))
    desk.load.drop(0)
    record = desk.bench.read(0).record
    record.open["j-0"].run = 0b010
    put(desk.bench.backend, KEYS.shard(0), record.to_json())
    desk.load.adopt(0, desk.bench.read(0))
    assert "0b" in desk.turn()
    assert "0a" not in desk.turn()


def test_json_of_a_record(bench: Bench) -> None:
    """What it says of a task is a JSON object that people can read."""
    text = QuarantinedTask.of("1.2.3.0", "j", Task(id="a", url="u"), [GONE], 1, "m", 0, 2, 3.5).to_json()
    assert json.loads(text)["task"] == {"id": "a", "url": "u"}
    assert QuarantinedTask.from_json(text).evidence == [
        {"incarnation": "x", "epoch": 1, "evidence": "process_gone", "at": None}
    ]
