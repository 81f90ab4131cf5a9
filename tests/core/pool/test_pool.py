"""A pool runs handlers, makes something storable of what they did, and survives all of it."""

import asyncio
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial, wraps
from math import nan
from pathlib import Path
from typing import cast

import pytest

import smoothcluster.pool
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import UsageError
from smoothcluster.model import LARGEST_VALUE, Handler, Task, TaskContext
from smoothcluster.pool import AsyncHandlerPool, HandlerPool, Pool, Run, RunState, is_async, make_pool
from smoothcluster.pool.run import LONGEST_ERROR_CHARACTERS

DEADLINE = 20.0


class Member:
    """As much of a coordinator as a pool needs: hands in, waits, takes out."""

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.allowed = True
        self.pools: list[Pool] = []

    def pool(self, handler: Handler, concurrency: int = 2) -> Pool:
        """A pool that ends with the test."""
        pool = make_pool(handler, concurrency, self.deliver, lambda run: self.allowed)
        self.pools.append(pool)
        return pool

    def deliver(self) -> None:
        """Wake up; cheap where it is awake."""
        if not self.woken.is_set():
            self.woken.set()

    def wait(self, pool: Pool, count: int) -> list[Run]:
        """The next *count* finished runs."""
        runs: list[Run] = []
        while len(runs) < count:
            assert self.woken.wait(DEADLINE), f"{len(runs)} of {count} runs came back"
            self.woken.clear()
            while pool.finished:
                runs.append(pool.finished.popleft())
        return runs

    def run(self, handler: Handler) -> Run:
        """What becomes of one run of *handler*."""
        pool = self.pool(handler)
        pool.put([new_run()])
        return self.wait(pool, 1)[0]


@pytest.fixture
def member() -> Iterator[Member]:
    """A coordinator whose pools end with the test."""
    made = Member()
    yield made
    for pool in made.pools:
        pool.stop(0)


def new_run(name: str = "t", key: object = None) -> Run:
    """A run of a task with the id *name*."""
    return Run(Task(id=name), TaskContext("m", "j", 0, 1, 1, threading.Event()), key)


def new_runs(count: int) -> list[Run]:
    """Runs of tasks "0", "1" and so on."""
    return [new_run(str(number)) for number in range(count)]


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for *condition*."""
    deadline = SYSTEM_CLOCK.monotonic() + DEADLINE
    while not condition():
        assert SYSTEM_CLOCK.monotonic() < deadline
        SYSTEM_CLOCK.sleep(0.001)


def as_async(handler: Handler) -> Handler:
    """The same as an ``async def``."""

    @wraps(handler)
    async def run(task: Task, context: TaskContext) -> object:
        await asyncio.sleep(0)
        return handler(task, context)

    return run


def as_is(handler: Handler) -> Handler:
    """The sync handler that it is."""
    return handler


@pytest.fixture(params=[as_is, as_async], ids=["sync", "async"])
def flavour(request: pytest.FixtureRequest) -> Callable[[Handler], Handler]:
    """Turns a handler into one of each kind."""
    made: Callable[[Handler], Handler] = request.param
    return made


class Gate:
    """A handler of either kind that waits until it is let go."""

    def __init__(self, flavour: Callable[[Handler], Handler]) -> None:
        self.open = threading.Event()
        self.inside: list[str] = []
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self.handler: Handler = self._wait_in_loop if flavour is as_async else self._wait

    def _enter(self, task: Task) -> None:
        with self._lock:
            self.inside.append(task.id)
            self._now += 1
            self.most = max(self.most, self._now)

    def _leave(self) -> None:
        with self._lock:
            self._now -= 1

    def _wait(self, task: Task, context: TaskContext) -> object:
        self._enter(task)
        self.open.wait(DEADLINE)
        self._leave()
        return task.id

    async def _wait_in_loop(self, task: Task, context: TaskContext) -> object:
        self._enter(task)
        try:
            while not self.open.is_set():  # noqa: ASYNC110 - it is set by another thread
                await asyncio.sleep(0.001)
        finally:
            self._leave()
        return task.id


@pytest.fixture
def gate(flavour: Callable[[Handler], Handler]) -> Iterator[Gate]:
    """Opens when the test ends at the latest."""
    made = Gate(flavour)
    yield made
    made.open.set()


# What comes of a run


def test_value_is_encoded_compactly(member: Member, flavour: Callable[[Handler], Handler]) -> None:
    """What a handler returns comes back as JSON text without blanks, in ASCII."""
    run = member.run(flavour(lambda task, context: {"a": [1, None], "é": True}))
    assert (run.state, run.encoded, run.error) == (RunState.DONE, '{"a":[1,null],"\\u00e9":true}', None)


def test_nothing_returned_is_null(member: Member, flavour: Callable[[Handler], Handler]) -> None:
    """A handler that returns nothing is done, with the value null."""
    run = member.run(flavour(lambda task, context: None))
    assert (run.state, run.encoded) == (RunState.DONE, "null")


def test_key_comes_back(member: Member, flavour: Callable[[Handler], Handler]) -> None:
    """A run comes back as the same object, with the coordinator's key."""
    run, key = new_run(), object()
    run.key = key
    pool = member.pool(flavour(lambda task, context: None))
    pool.put([run])
    (back,) = member.wait(pool, 1)
    assert back is run
    assert back.key is key


def test_handler_gets_task_and_context(member: Member, flavour: Callable[[Handler], Handler]) -> None:
    """The handler is called with the run's own task and context."""
    run = member.run(flavour(lambda task, context: [task.id, context.member, context.attempt]))
    assert json.loads(run.encoded) == ["t", "m", 1]


def test_submitted_tasks_are_encoded(member: Member, flavour: Callable[[Handler], Handler]) -> None:
    """What a handler submits comes back with its outcome, as tasks and as JSON."""

    def handler(task: Task, context: TaskContext) -> object:
        context.submit([Task(id="a"), Task(id="b", meta=[1])])
        return None

    run = member.run(flavour(handler))
    assert [task.id for task in run.added] == ["a", "b"]
    assert run.added_encoded == ['{"id":"a"}', '{"id":"b","meta":[1]}']


def test_failed_handler_adds_nothing(member: Member, flavour: Callable[[Handler], Handler]) -> None:
    """What a handler submitted before it raised is not added."""

    def handler(task: Task, context: TaskContext) -> object:
        context.submit([Task(id="a")])
        raise ValueError("no")

    run = member.run(flavour(handler))
    assert (run.state, run.added, run.added_encoded) == (RunState.FAILED, [], [])


@pytest.mark.parametrize(
    "error",
    [ValueError("broken"), SystemExit("broken"), KeyboardInterrupt("broken"), asyncio.CancelledError("broken")],
    ids=lambda error: type(error).__name__,
)
def test_whatever_is_raised_fails_the_run_only(
    member: Member, flavour: Callable[[Handler], Handler], error: BaseException
) -> None:
    """Even an exit fails just that run: the same worker runs the next one."""

    def handler(task: Task, context: TaskContext) -> object:
        if task.id == "bad":
            raise error
        return "good"

    pool = member.pool(flavour(handler), concurrency=1)
    pool.put([new_run("bad"), new_run("good")])
    bad, good = member.wait(pool, 2)
    assert (bad.state, bad.error) == (RunState.FAILED, f"{type(error).__name__}: broken")
    assert good.encoded == '"good"'


class MuteError(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (ValueError(), "ValueError"),
        (MuteError(), "MuteError"),
        (ValueError("x" * 10_000), "ValueError: " + "x" * (LONGEST_ERROR_CHARACTERS - 13) + "…"),
    ],
    ids=["lines", "silent", "mute", "long"],
)
def test_error_is_one_line_of_bounded_length(member: Member, error: Exception, text: str) -> None:
    """An error is its kind and its words on one line, cut where it is long."""

    def handler(task: Task, context: TaskContext) -> object:
        raise error

    assert member.run(handler).error == text


class Strange(dict[str, object]):
    """Raises when it is looked into."""

    def items(self) -> object:  # type: ignore[override]  # as users' classes may
        """Raise."""
        raise SystemExit("surprise")


def circle() -> list[object]:
    """A list that holds itself."""
    ring: list[object] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({1, 2}, "the handler returned set, which is not JSON: set is no JSON type; use a list"),
        (nan, "the handler returned float, which is not JSON: nan is no JSON number"),
        (circle(), "the handler returned list, which is not JSON: it has more than 100 levels of lists and dicts"),
        (Strange(a=1), "the handler returned Strange, which is not JSON: surprise"),
        (Task(id="x"), "the handler returned Task, which is not JSON: Task is no JSON type"),
        (
            "x" * LARGEST_VALUE,
            f"the handler returned str of {LARGEST_VALUE + 2} bytes of JSON; the limit is {LARGEST_VALUE}",
        ),
    ],
    ids=["set", "nan", "circle", "surprise", "task", "large"],
)
def test_value_that_cannot_be_stored_fails_the_run(
    member: Member, flavour: Callable[[Handler], Handler], value: object, reason: str
) -> None:
    """A value that is not JSON, or too large, fails the run and says why."""
    run = member.run(flavour(lambda task, context: value))
    assert run.state is RunState.FAILED
    assert run.error is not None
    assert run.error.startswith(reason)


def test_largest_value_is_taken(member: Member) -> None:
    """A value of exactly the limit is stored."""
    run = member.run(lambda task, context: "x" * (LARGEST_VALUE - 2))
    assert (run.state, len(run.encoded)) == (RunState.DONE, LARGEST_VALUE)


CHANGED = Task(id="x", meta=[])
cast("list[object]", CHANGED.meta).append({1})


@pytest.mark.parametrize(
    ("submitted", "reason"),
    [
        ("http://x", "UsageError: context.submit takes Tasks, not str: 'http://x'"),
        (CHANGED, "the handler submitted task 'x', which is not JSON: set is no JSON type; use a list"),
        (Task(id="x", meta="x" * LARGEST_VALUE), "the handler submitted task 'x' of "),
    ],
    ids=["text", "set", "large"],
)
def test_task_that_cannot_be_stored_fails_the_run(member: Member, submitted: object, reason: str) -> None:
    """What a handler submits must be tasks that fit the store; else it fails, and adds nothing."""

    def handler(task: Task, context: TaskContext) -> object:
        wrong: Iterable[Task] = [Task(id="fine"), submitted]  # type: ignore[list-item]  # pyright: ignore[reportAssignmentType]
        context.submit(wrong)
        return 1

    run = member.run(handler)
    assert run.state is RunState.FAILED
    assert run.error is not None
    assert run.error.startswith(reason)
    assert not run.added


def test_coroutine_from_sync_handler_is_explained(member: Member) -> None:
    """A sync handler that returns a coroutine is told what to do; the coroutine is closed, not forgotten."""

    async def fetch() -> None:
        pass

    coroutine = fetch()
    run = member.run(lambda task, context: coroutine)
    assert run.error is not None
    assert run.error.startswith("the handler returned a coroutine: declare the handler with 'async def'")
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


# Which pool


async def fetch(task: Task, context: TaskContext) -> object:
    """A handler as in the manual."""
    return None


def fetch_now(task: Task, context: TaskContext) -> object:
    """The same, sync."""
    return None


class Fetcher:
    """Handlers as users write them with state."""

    async def __call__(self, task: Task, context: TaskContext) -> object:
        """Do nothing."""
        return None

    async def fetch(self, task: Task, context: TaskContext) -> object:
        """Do nothing."""
        return None

    def fetch_now(self, task: Task, context: TaskContext) -> object:
        """Do nothing."""
        return None


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (fetch, True),
        (partial(fetch), True),
        (partial(partial(Fetcher())), True),
        (Fetcher(), True),
        (Fetcher().fetch, True),
        (Fetcher().fetch_now, False),
        (partial(Fetcher().fetch_now), False),
        (fetch_now, False),
    ],
)
def test_async_handlers_are_recognised(member: Member, handler: Handler, expected: bool) -> None:
    """Functions, methods, partial objects and callable instances get the pool that suits them."""
    assert is_async(handler) is expected
    assert isinstance(member.pool(handler), AsyncHandlerPool if expected else HandlerPool)


@pytest.mark.parametrize("concurrency", [0, -1])
def test_concurrency_must_be_positive(member: Member, flavour: Callable[[Handler], Handler], concurrency: int) -> None:
    """Without any concurrency nothing would ever run."""
    with pytest.raises(UsageError, match="at least 1"):
        member.pool(flavour(lambda task, context: None), concurrency)


# Starting and stopping


@pytest.mark.promise(6)
def test_runs_at_most_concurrency_at_once(member: Member, gate: Gate) -> None:
    """As many handlers wait at once as concurrency says, and never more."""
    pool = member.pool(gate.handler, concurrency=3)
    pool.put(new_runs(10))
    eventually(lambda: len(gate.inside) == 3)
    gate.open.set()
    assert {run.task.id for run in member.wait(pool, 10)} == {str(number) for number in range(10)}
    assert gate.most == 3


def test_runs_start_in_order(member: Member, flavour: Callable[[Handler], Handler]) -> None:
    """What was put first starts first."""
    started: list[str] = []
    pool = member.pool(flavour(lambda task, context: started.append(task.id)), concurrency=1)
    runs = new_runs(100)
    pool.put(runs[:50])
    pool.put(runs[50:])
    member.wait(pool, 100)
    assert started == [run.task.id for run in runs]


def test_nothing_put_is_nothing_done(member: Member, flavour: Callable[[Handler], Handler]) -> None:
    """An empty batch is harmless."""
    pool = member.pool(flavour(lambda task, context: None))
    pool.put([])
    pool.put([new_run()])
    member.wait(pool, 1)


def test_taken_back_runs_never_start(member: Member, gate: Gate) -> None:
    """What waits can be taken back, in order, and is not started any more."""
    pool = member.pool(gate.handler, concurrency=1)
    runs = new_runs(4)
    pool.put(runs)
    eventually(lambda: gate.inside == ["0"])
    back = pool.take_back()
    assert back == runs[1:]
    assert {run.state for run in back} == {RunState.NOT_STARTED}
    gate.open.set()
    assert member.wait(pool, 1) == runs[:1]
    assert pool.stop(DEADLINE) == 0
    assert gate.inside == ["0"]


@pytest.mark.promise(4)
def test_nothing_starts_without_leave(member: Member, flavour: Callable[[Handler], Handler]) -> None:
    """A run that may not start when its turn comes is handed back, and its handler not called."""
    called: list[str] = []
    member.allowed = False
    pool = member.pool(flavour(lambda task, context: called.append(task.id)))
    pool.put(new_runs(3))
    assert [run.state for run in member.wait(pool, 3)] == [RunState.NOT_STARTED] * 3
    assert called == []


@pytest.mark.promise(4)
def test_leave_is_asked_just_before_the_start(member: Member, gate: Gate) -> None:
    """What was allowed when it was put may no longer be so when its turn comes."""
    pool = member.pool(gate.handler, concurrency=1)
    pool.put(new_runs(2))
    eventually(lambda: gate.inside == ["0"])
    member.allowed = False
    gate.open.set()
    assert [run.state for run in member.wait(pool, 2)] == [RunState.DONE, RunState.NOT_STARTED]


def test_any_run_may_start_unless_said_otherwise(flavour: Callable[[Handler], Handler]) -> None:
    """The check before a start is optional."""
    done = threading.Event()
    pool = make_pool(flavour(lambda task, context: 7), 1, done.set)
    pool.put([new_run()])
    assert done.wait(DEADLINE)
    assert pool.finished[0].encoded == "7"
    assert pool.stop(DEADLINE) == 0


def test_stop_lets_running_handlers_finish(member: Member, gate: Gate) -> None:
    """Stopping waits for what runs, starts nothing more, and leaves the rest to be taken back."""
    pool = member.pool(gate.handler, concurrency=2)
    runs = new_runs(5)
    pool.put(runs)
    eventually(lambda: len(gate.inside) == 2)
    threading.Timer(0.05, gate.open.set).start()
    assert pool.stop(DEADLINE) == 0
    assert {run.state for run in member.wait(pool, 2)} == {RunState.DONE}
    assert pool.take_back() == runs[2:]


def test_stopped_pool_takes_nothing(member: Member, flavour: Callable[[Handler], Handler]) -> None:
    """Handing work to a stopped pool is a mistake, said aloud; stopping twice is not."""
    pool = member.pool(flavour(lambda task, context: None))
    assert pool.stop(DEADLINE) == 0
    assert pool.stop(DEADLINE) == 0
    with pytest.raises(RuntimeError, match="stopped"):
        pool.put([new_run()])


def test_stop_tells_how_many_do_not_come_back(member: Member, gate: Gate) -> None:
    """Handlers that do not come back in time are counted and left behind."""
    pool = member.pool(gate.handler, concurrency=3)
    pool.put(new_runs(2))
    eventually(lambda: len(gate.inside) == 2)
    assert pool.stop(0.01) == 2


def test_late_sync_handler_still_hands_in(member: Member) -> None:
    """What a sync handler returns after the pool stopped waiting is there, should anybody want it."""
    gate = Gate(as_is)
    pool = member.pool(gate.handler)
    pool.put([new_run()])
    eventually(lambda: len(gate.inside) == 1)
    assert pool.stop(0) == 1
    gate.open.set()
    assert member.wait(pool, 1)[0].state is RunState.DONE


def test_stop_cancels_async_handlers(member: Member) -> None:
    """An async handler that is not done in time is cancelled, and its run has no outcome."""
    gate = Gate(as_async)
    pool = member.pool(gate.handler)
    pool.put([new_run()])
    eventually(lambda: len(gate.inside) == 1)
    assert pool.stop(0) == 1
    (run,) = member.wait(pool, 1)
    assert (run.state, run.error) == (RunState.INTERRUPTED, None)
    assert pool.stop(DEADLINE) == 0


def test_handler_may_outlast_its_cancellation(member: Member) -> None:
    """An async handler that is cancelled and finishes all the same is done."""
    started = threading.Event()

    async def handler(task: Task, context: TaskContext) -> object:
        started.set()
        try:
            await asyncio.sleep(DEADLINE)
        except asyncio.CancelledError:
            return "saved"
        return "slept"

    pool = member.pool(handler)
    pool.put([new_run()])
    assert started.wait(DEADLINE)
    assert pool.stop(0) == 1
    assert member.wait(pool, 1)[0].encoded == '"saved"'


def test_loop_survives_what_handlers_leave_behind(member: Member, caplog: pytest.LogCaptureFixture) -> None:
    """A task that a handler started and forgot cannot end the event loop by exiting."""

    async def leave() -> None:
        raise SystemExit("stray")

    strays: list[asyncio.Task[None]] = []

    async def handler(task: Task, context: TaskContext) -> object:
        if task.id == "0":
            strays.append(asyncio.create_task(leave()))
        await asyncio.sleep(0.001)
        return task.id

    pool = member.pool(handler, concurrency=1)
    pool.put(new_runs(3))
    assert [run.encoded for run in member.wait(pool, 3)] == ['"0"', '"1"', '"2"']
    assert "tried to end the event loop" in caplog.text
    assert isinstance(strays[0].exception(), SystemExit)


def test_stuck_handler_does_not_keep_the_process(flavour: Callable[[Handler], Handler]) -> None:
    """A handler that never comes back does not keep the process from ending."""
    script = f"""
import threading, asyncio
from smoothcluster.pool import Run, make_pool
from smoothcluster.model import Task, TaskContext
started = threading.Event()
{"async " if flavour is as_async else ""}def handler(task, context):
    started.set()
    threading.Event().wait()
pool = make_pool(handler, 2, lambda: None)
pool.put([Run(Task(id="t"), TaskContext("m", "j", 0, 1, 1, threading.Event()))])
started.wait()
print(pool.stop(0.01))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(smoothcluster.pool.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, timeout=DEADLINE, check=True
    )
    assert done.stdout == b"1\n"


def test_no_wake_up_is_lost(member: Member, flavour: Callable[[Handler], Handler]) -> None:
    """However batches and handlers interleave, every run comes back to a coordinator that only waits."""
    pool = member.pool(flavour(lambda task, context: None), concurrency=4)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for size in [1, 2, 3, 7] * 250:
            pool.put(new_runs(size))
            assert len(member.wait(pool, size)) == size
    finally:
        sys.setswitchinterval(interval)


def test_waiting_handlers_get_all_threads_whatever_went_before(member: Member) -> None:
    """After any number of quick runs, as many slow ones as there are threads run at once."""
    barrier = threading.Barrier(8)

    def handler(task: Task, context: TaskContext) -> object:
        return barrier.wait(DEADLINE) if task.id == "slow" else None

    pool = member.pool(handler, concurrency=8)
    for count in range(50):
        pool.put(new_runs(count))
        pool.put([new_run("slow") for _ in range(8)])
        assert {run.state for run in member.wait(pool, count + 8)} == {RunState.DONE}


class Beds(dict[object, bool]):
    """The idle list of a pool of one worker, in which something happens just before the worker is listed."""

    def __init__(self, pool: Pool, happening: Callable[[], object]) -> None:
        super().__init__(vars(pool)["_idle"])
        self._happenings = [happening]

    def __setitem__(self, worker: object, idle: bool) -> None:
        if self._happenings:
            self._happenings.pop()()
        super().__setitem__(worker, idle)


def test_work_put_while_a_worker_lies_down_is_done(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that comes after a worker's last look, when it is not yet listed as idle, does not wait for more."""
    pool = member.pool(lambda task, context: None, concurrency=1)
    monkeypatch.setattr(pool, "_idle", Beds(pool, lambda: pool.put([new_run("late")])))
    pool.put([new_run("early")])
    assert [run.task.id for run in member.wait(pool, 2)] == ["early", "late"]


class Waited(threading.Event):
    """Tells when somebody begins to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        """As ever."""
        self.begun.set()
        return super().wait(timeout)


def test_worker_that_lies_down_while_stopping_leaves(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is not yet listed as idle when the pool stops does not sleep on, counted as running."""
    pool = member.pool(lambda task, context: None, concurrency=1)
    all_left, still_running = Waited(), list[int]()
    stopping = threading.Thread(target=lambda: still_running.append(pool.stop(DEADLINE)))

    def stop() -> None:
        stopping.start()
        assert all_left.begun.wait(DEADLINE)

    monkeypatch.setattr(pool, "_all_left", all_left)
    monkeypatch.setattr(pool, "_idle", Beds(pool, stop))
    pool.put([new_run()])
    eventually(lambda: still_running == [0])
    stopping.join()


def fork(task: Task, context: TaskContext) -> int:
    """Come back twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # From 3.12 on Python says itself that this is no good idea.
        return os.fork()


async def fork_async(task: Task, context: TaskContext) -> int:
    """Likewise."""
    return fork(task, context)


@pytest.mark.parametrize("handler", [fork, fork_async])
def test_a_copy_that_a_handler_makes_ends_with_it(member: Member, handler: Handler) -> None:
    """It would be half a member: it has the tasks that wait, and nobody who tells it to stop."""
    run = member.run(handler)
    copy = int(str(run.encoded))
    try:
        eventually(lambda: os.waitpid(copy, os.WNOHANG) == (copy, 0))
    except BaseException:
        os.kill(copy, signal.SIGKILL)
        raise
