"""What a member works on: enough at once, in turns, and a commit whenever one is due."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from core_kit import KEYS, Bench, HandPool, News, died, done, put, store_of

from smoothcluster.backend import Create, Delete, Entry
from smoothcluster.errors import OutcomeUnknownError, UnavailableError
from smoothcluster.jobs.chunks import digest
from smoothcluster.options import Retries
from smoothcluster.records.shard import OpenChunk, Shard
from smoothcluster.testing import Faulty
from smoothcluster.work.pace import COMMIT_INTERVAL_SECONDS, MOST_MARKED_TASKS, SHARD_TURN_SECONDS, Pace
from smoothcluster.work.seen_ids import FIRST_SLICE_KEYS, MOST_SLICE_KEYS
from smoothcluster.work.suspects import CONFIRM_DEATH_SECONDS
from smoothcluster.work.workload import FULL_COMMIT_OUTCOMES, Workload


class Stopping:
    """Set by the test."""

    on = False

    def is_set(self) -> bool:
        """Whether a handler should stop."""
        return self.on

    def wait(self, timeout: float | None = None) -> bool:
        """Do not wait."""
        return self.on


class Desk:
    """A workload of some shards, over a connection that can fail."""

    def __init__(self, shards: int = 1, concurrency: int = 2, attempts: int = 1) -> None:
        self.stopping = Stopping()
        self.bench = Bench(shards=shards, retries=Retries(attempts=attempts), stopping=self.stopping)
        self.faulty = Faulty(self.bench.backend)
        self.pool = HandPool()
        self.clock = self.bench.clock
        self.held = True
        self.news = News()
        store = store_of(self.faulty, self.bench.garbage, self.clock, self.bench.new_id)
        context = replace(self.bench.context, store=store)
        self.load = Workload(self.pool, context, concurrency, lambda: self.held, self.news)
        for number in range(shards):
            self.bench.own(number)
            self.load.adopt(number, self.bench.read(number))

    def done(self, job: str = "j") -> int:
        """How many tasks the store says are done."""
        shards = [self.bench.read(number).record for number in self.load.works]
        return sum(shard.counts.get(job, {}).get("done", 0) for shard in shards)


@pytest.fixture
def desk() -> Desk:
    """One shard."""
    return Desk()


def test_no_more_is_started_than_concurrency_while_tasks_are_slow(desk: Desk) -> None:
    """Few are under suspicion if the process dies."""
    desk.bench.chunk("j-0", *"abcde")
    desk.load.step()
    assert (len(desk.pool.waiting), desk.load.outstanding, desk.news.starts) == (2, 2, [0])
    desk.load.step()
    assert desk.load.outstanding == 2


def _finish_at(desk: Desk, rate: float) -> None:
    """Have the workload believe that tasks finish at this *rate*."""
    pace = desk.load._pace = Pace(desk.clock.monotonic() - 1.0, 2)  # pyright: ignore[reportPrivateUsage]
    pace.count(round(rate), desk.clock.monotonic())


def test_slow_tasks_that_end_together_are_slow() -> None:
    """Eight tasks of two seconds end within a moment: no ninth is marked, and no outcome waits for others."""
    pace = Pace(0.0, 8)
    for round_ in range(1, 9):
        for number in range(4):
            now = 2.0 * round_ + 0.06 * number
            pace.count(2, now)
            assert (pace.ahead(now), pace.outcomes_wait(now)) == (0, False)
    fast = Pace(0.0, 8)
    for number in range(1, 400):
        fast.count(8, 0.001 * number)
    assert (fast.ahead(0.4) > 300, fast.outcomes_wait(0.4)) == (True, True)
    assert (fast.ahead(100.0), fast.outcomes_wait(100.0)) == (0, False), "nothing has finished for long"


def test_fast_tasks_are_marked_as_many_as_end_within_one_interval(desk: Desk) -> None:
    """So that commits are shared."""
    desk.bench.chunk("j-0", *(f"t{number}" for number in range(250)))
    _finish_at(desk, 2000.0)
    desk.load.step()
    assert desk.load.outstanding == 2 + 2000 * COMMIT_INTERVAL_SECONDS
    assert MOST_MARKED_TASKS > 2000 * COMMIT_INTERVAL_SECONDS


def test_the_rate_is_measured(desk: Desk) -> None:
    """Over one interval at least."""
    desk.bench.chunk("j-0", *(f"t{number}" for number in range(250)))
    for _ in range(12):
        desk.load.step()
        desk.pool.finish()
        desk.clock.advance(COMMIT_INTERVAL_SECONDS / 10)
    desk.load.step()
    assert desk.load.outstanding > 2


@pytest.fixture
def answered(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of values in each answer of the store."""
    counts: list[int] = []
    get_many, listing = desk.bench.store.get_many, desk.bench.store.list

    def counted_get_many(keys: Sequence[str]) -> list[Entry | None]:
        counts.append(len(keys))
        return get_many(keys)

    def counted_list(directory: str) -> list[Entry]:
        counts.append(len(entries := listing(directory)))
        return entries

    monkeypatch.setattr(desk.bench.store, "get_many", counted_get_many)
    monkeypatch.setattr(desk.bench.store, "list", counted_list)
    return counts


def have_seen(desk: Desk, count: int, shard: int = 0) -> None:
    """Have job j contain *count* ids, each in a key of its own."""
    for number in range(count):
        key = f"{KEYS.seen('j', shard)}/{number:010d}.0"
        desk.bench.backend.commit([], [Create(key, digest(f"known-{number}"))])


def test_tasks_that_were_admitted_go_on_while_the_ids_of_a_job_are_loaded(desk: Desk, answered: list[int]) -> None:
    """Each turn reads a bounded number of keys, and starts and records what there is to start and to record."""
    have_seen(desk, 1000)
    desk.bench.chunk("j-0", "known-0", "new", "known-999")
    desk.bench.chunk("j-1", *(f"open-{number}" for number in range(20)))
    desk.load.drop(0)
    desk.bench.own(0, Shard(open={"j-1": OpenChunk(20)}))
    desk.load.adopt(0, desk.bench.read(0))
    loading = started = 0
    ran: list[str] = []
    for _ in range(20):
        answered.clear()
        woken = desk.news.woken
        desk.load.step()
        assert sum(answered) <= FIRST_SLICE_KEYS + MOST_SLICE_KEYS + 1, "two slices at most, and a chunk"
        if desk.load.works[0].backlog.seen.loading:
            assert desk.news.woken > woken, "the next slice waits for nothing"
            loading += 1
            started += len(desk.pool.waiting)
        ran += [run.task.id for run in desk.pool.start() if run.task.id not in ran]
        desk.pool.finish()
    assert loading >= 3
    assert started >= 4
    assert ran == [*(f"open-{number}" for number in range(20)), "new"]
    assert desk.bench.read(0).record.counts["j"] == {"done": 21, "skipped": 2}


def test_shards_take_turns_to_load_ids() -> None:
    """One slice a turn, of all shards together."""
    desk = Desk(shards=2)
    for shard in range(2):
        have_seen(desk, 400, shard)
        desk.bench.chunk(f"j-{shard}", f"new-{shard}", shard=shard)
    desk.load.step()
    works = [work.backlog.seen for work in desk.load.works.values()]
    turns = 1
    while any(seen.loading for seen in works):
        desk.load.step()
        turns += 1
    assert turns >= 4
    desk.load.step()
    assert sorted(run.task.id for run in desk.pool.start()) == ["new-0", "new-1"]


def test_no_ids_are_loaded_while_nothing_may_start(desk: Desk) -> None:
    """Another member may own the shard by now."""
    have_seen(desk, 400)
    desk.bench.chunk("j-0", "new")
    desk.load.step()
    assert desk.load.works[0].backlog.seen.loading
    desk.held = False
    woken = desk.news.woken
    for _ in range(5):
        desk.load.step()
    assert desk.load.works[0].backlog.seen.loading
    assert desk.news.woken == woken


@pytest.mark.promise(4)
def test_nothing_starts_while_the_lease_may_be_lost(desk: Desk) -> None:
    """What ran is recorded none the less, if it can be."""
    desk.bench.chunk("j-0", *"abc")
    desk.load.step()
    desk.held = False
    desk.pool.finish()
    desk.load.step()
    assert (desk.done(), len(desk.pool.waiting)) == (2, 0)


def test_nothing_starts_while_stopping(desk: Desk) -> None:
    """The member is leaving."""
    desk.bench.chunk("j-0", "a")
    desk.load.stopping = True
    desk.load.step()
    assert not desk.pool.waiting


def test_outcomes_wait_a_little_for_others(desk: Desk) -> None:
    """One commit carries what came within an interval, where tasks are fast."""
    desk.bench.chunk("j-0", *"ab")
    _finish_at(desk, 10.0)
    desk.load.step()
    first, second = desk.pool.start()
    desk.pool.finished.append(done(first))
    desk.load.step()
    assert desk.done() == 0
    assert desk.load.next_time() == desk.clock.monotonic() + COMMIT_INTERVAL_SECONDS
    desk.clock.advance(COMMIT_INTERVAL_SECONDS)
    desk.load.step()
    assert desk.done() == 1
    desk.pool.finished.append(done(second))
    desk.load.step()
    assert desk.done() == 2, "the last one has none to wait for"


def test_many_outcomes_do_not_wait(desk: Desk) -> None:
    """A full batch goes at once."""
    for chunk in range(4):
        desk.bench.chunk(f"j-{chunk}", *(f"t{chunk}.{number}" for number in range(200)))
    _finish_at(desk, 598 / COMMIT_INTERVAL_SECONDS)
    desk.load.step()
    runs = desk.pool.start()
    assert len(runs) == 600
    desk.load.stopping = True
    desk.pool.finished.extend(map(done, runs[:FULL_COMMIT_OUTCOMES]))
    desk.load.step()
    assert desk.done() == FULL_COMMIT_OUTCOMES


def test_shards_take_turns() -> None:
    """One with a long queue keeps others waiting for a slice of time only."""
    desk = Desk(2)
    for shard in range(2):
        desk.bench.chunk("j-0", *(f"t{shard}.{number}" for number in range(100)), shard=shard)
    shards = list[int]()
    for _ in range(12):
        desk.load.step()
        shards.append(desk.news.starts[-1])
        desk.pool.finish()
        desk.clock.advance(SHARD_TURN_SECONDS / 3)
    assert {0, 1} == set(shards)
    assert shards[0] == shards[1]
    assert sum(one != other for one, other in pairwise(shards)) <= 6


def test_a_shard_with_little_to_do_is_helped_out_by_the_next() -> None:
    """The pool is filled from as many as it takes."""
    desk = Desk(3, concurrency=3)
    for shard in range(3):
        desk.bench.chunk("j-0", f"t{shard}", shard=shard)
    desk.load.step()
    assert sorted(desk.news.starts) == [0, 1, 2]


def test_what_was_running_when_its_owner_went_goes_first() -> None:
    """It is the oldest debt."""
    desk = Desk(2, concurrency=1)
    for shard in range(2):
        desk.bench.chunk("j-0", f"t{shard}", shard=shard)
    desk.load.step()
    work = desk.load.works[0]
    assert work.record.open
    read = desk.bench.read(0)
    desk.load.drop_all()
    desk.load.adopt(1, desk.bench.read(1))
    desk.load.adopt(0, read)
    assert desk.load._turns.order[0] == 0  # pyright: ignore[reportPrivateUsage]


def test_new_chunks_wake_the_member(desk: Desk) -> None:
    """The watch is armed with the first listing; closed when the shard goes."""
    desk.load.step()
    assert not desk.load.works[0].startable(0.0)
    desk.bench.chunk("j-0", "a")
    assert (desk.news.woken, desk.load.works[0].startable(0.0)) == (1, True)
    desk.load.step()
    assert len(desk.pool.waiting) == 1
    desk.load.drop(0)
    desk.bench.chunk("j-1", "b")
    assert desk.news.woken == 1


@pytest.mark.promise(3)
def test_a_commit_that_arrived_after_all_is_found_by_its_id(desk: Desk) -> None:
    """The answer was lost; sent again it is refused, and then known to be there."""
    desk.bench.chunk("j-0", "a")
    desk.faulty.drop_answer()
    with pytest.raises(OutcomeUnknownError):
        desk.load.step()
    assert not desk.pool.waiting, "nothing starts before it is settled"
    desk.load.step()
    assert ([run.task.id for run in desk.pool.waiting], desk.news.losses) == (["a"], [])


@pytest.mark.promise(9)
def test_a_commit_that_was_not_sent_is_sent_again(desk: Desk) -> None:
    """Nothing is lost while the store is away."""
    desk.bench.chunk("j-0", "a")
    desk.load.step()
    desk.pool.finish()
    desk.faulty.cut()
    for _ in range(3):
        with pytest.raises(UnavailableError):
            desk.load.step()
    desk.faulty.mend()
    desk.load.step()
    assert (desk.done(), desk.load.quiet()) == (1, True)


@pytest.mark.promise(3)
def test_a_late_original_is_refused(desk: Desk) -> None:
    """It was sent again meanwhile, the very same: of the two, one is applied."""
    desk.bench.chunk("j-0", "a")
    desk.load.step()
    desk.pool.finish()
    desk.faulty.hold()
    with pytest.raises(OutcomeUnknownError):
        desk.load.step()
    desk.load.step()
    desk.faulty.deliver()
    assert (desk.done(), len(desk.bench.results("j"))) == (1, 1)


def test_garbage_elsewhere_is_stepped_over(desk: Desk) -> None:
    """The refusal names another key, and the shard is still ours."""
    desk.bench.chunk("j-0", "a")
    desk.load.step()
    desk.pool.finish()
    desk.bench.backend.commit([], [Delete(KEYS.chunk(0, "j-0"))])
    desk.load.step()
    assert (desk.done(), desk.news.losses, list(desk.bench.garbage.found)) == (1, [], [KEYS.chunk(0, "j-0")])


@pytest.mark.promise(2)
@pytest.mark.parametrize("value", [Shard(owner="other", epoch=9).to_json(), b"garbage", None])
def test_a_shard_that_is_another_members_is_dropped(desk: Desk, value: bytes | None) -> None:
    """Or that nobody can read: what we still had to say is counted as refused."""
    desk.bench.chunk("j-0", "a", "b", "c")
    desk.load.step()
    desk.pool.start()
    if value is None:
        desk.bench.backend.commit([], [Delete(KEYS.shard(0))])
    else:
        put(desk.bench.backend, KEYS.shard(0), value)
    first, second = desk.pool.started
    desk.pool.finished.append(done(first))
    desk.clock.advance(1.0)
    desk.load.step()
    desk.clock.advance(1.0)
    desk.load.step()
    assert (desk.news.losses, desk.load.works) == ([0], {})
    desk.pool.finished.append(done(second))
    desk.load.step()
    assert not desk.pool.finished
    assert desk.bench.results("j") == []


def test_what_has_not_started_can_be_handed_back(desk: Desk) -> None:
    """Of some shards, or of all; what is not wanted stays in line."""
    desk.bench.chunk("j-0", *"ab")
    desk.load.step()
    desk.load.hand_back(lambda work: False)
    assert len(desk.pool.waiting) == 2
    desk.load.hand_back()
    desk.load.stopping = True
    desk.load.step()
    assert (len(desk.pool.waiting), desk.load.quiet(), desk.bench.read().record.open["j-0"].run) == (0, True, 0)


def test_what_comes_back_unstarted_from_a_lost_shard_is_nothing(desk: Desk) -> None:
    """Nobody had begun it, and nobody here will."""
    desk.bench.chunk("j-0", *"ab")
    desk.load.step()
    runs = list(desk.pool.waiting)
    desk.load.drop_all()
    desk.pool.finished.extend(runs)
    desk.load.step()
    assert (list(desk.pool.finished), list(desk.pool.waiting)) == ([], [])


def test_a_retry_is_waited_for() -> None:
    """If nothing else happens, that is when a turn is needed."""
    desk = Desk(attempts=2)
    desk.bench.chunk("j-0", "a")
    desk.load.step()
    (run,) = desk.pool.start()
    run.fail("no")
    desk.pool.finished.append(run)
    desk.load.step()
    assert desk.load.next_time() == desk.clock.monotonic() + 1.0
    desk.clock.advance(1.0)
    assert desk.load.next_time() is None, "due: it waits for a free worker only"
    desk.load.step()
    assert [run.context.attempt for run in desk.pool.waiting] == [2]


def test_nothing_to_do_needs_no_turn(desk: Desk) -> None:
    """A watch will wake us."""
    desk.load.step()
    assert desk.load.next_time() is None


def test_a_resigning_runner_waits_before_it_looks_at_a_death_again(desk: Desk) -> None:
    """No death counts meanwhile, so the loop must not turn without a pause."""
    desk.bench.chunk("j-0", "a")
    desk.load.step()
    desk.pool.finished.append(died(desk.pool.waiting.popleft(), "child_exit_3"))
    desk.load.step()
    desk.clock.advance(CONFIRM_DEATH_SECONDS)
    assert desk.load.next_time() == desk.clock.monotonic()
    desk.stopping.on = True
    seqs = [desk.bench.read().record.seq]
    desk.load.step()
    seqs.append(desk.bench.read().record.seq)
    assert desk.load.next_time() == desk.clock.monotonic() + COMMIT_INTERVAL_SECONDS
    desk.stopping.on = False
    desk.load.step()
    seqs.append(desk.bench.read().record.seq)
    assert seqs == [1, 1, 2]
