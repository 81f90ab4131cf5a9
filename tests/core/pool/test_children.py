"""Child processes, real ones: what comes of a task in one, and what is left of them."""

# pyright: reportPrivateUsage=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false
# What children there are is nobody's business but a test's; and handlers that are refused need no types.

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from core.children_kit import SIGKILL, SIGTERM, Handlers, handle, handle_async, new_run
from pages import ROOT

from smoothcluster import ClusterCrawler
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import UsageError
from smoothcluster.memory import MemoryBackend
from smoothcluster.model import LARGEST_VALUE, Handler
from smoothcluster.options import LEAST_TASK_MEMORY_BYTES, Isolation
from smoothcluster.pool import NoChildren, Run, RunState, make_pool
from smoothcluster.pool.children.handler_ref import CHILD_MAIN_MODULE, NoOriginError, Origin, load, origin_of
from smoothcluster.pool.children.messages import LARGEST_MESSAGE_BYTES, NonsenseError, Reader
from smoothcluster.pool.children.pool import Children
from smoothcluster.pool.children.process import LONGEST_START_SECONDS, Child
from smoothcluster.pool.children.spawner import Spawner
from smoothcluster.pool.children.starter import MOST_FAILED_STARTS
from smoothcluster.records.blame import CHILD_NONSENSE, CHILD_SHARED
from smoothcluster.testing import HeldClock, eventually

Make = Callable[..., Children]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make children that end with the test."""
    made: list[Children] = []

    def make(handler: Handler = handle, most: int = 1, **options: Any) -> Children:
        made.append(Children(origin_of(handler), most, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def ran(children: Children, **orders: object) -> Run:
    """What comes of a run."""
    run = new_run(**orders)
    children.run(run)
    return run


@pytest.mark.parametrize("handler", [handle, handle_async])
def test_a_task_is_run_in_a_child(make: Make, handler: Handler) -> None:
    """It gets what it would have got here, and what it gives comes back; the child leads a session of its own."""
    run = ran(make(handler))
    assert (run.state, run.encoded) == (RunState.DONE, '["m","j",5,7,2,true]')
    assert ([task.id for task in run.added], run.added_encoded) == (["more"], ['{"id":"more"}'])


def test_what_children_die_of(make: Make) -> None:
    """Each death is told as what it is; whatever else happens, the next task has a child to run in."""
    children = make()
    deaths: dict[str, dict[str, Any]] = {
        "exit": {"act": "exit"},
        "signal_SIGSEGV": {"act": "crash"},
        "killed": {"act": "kill", "signal": SIGKILL},
        "signal_40": {"act": "kill", "signal": 40},
    }
    for death, orders in deaths.items():
        run = ran(children, **orders)
        assert (run.state, run.death.startswith(f"child_{death}")) == (RunState.DIED, True), run.death
    assert (ran(children, act="raise").error, ran(children).state) == ("ValueError: no", RunState.DONE)
    assert ran(children, act="kill", signal=SIGTERM).encoded == '"still here"'


def test_what_a_child_has_forked_does_not_hide_its_death(make: Make, tmp_path: Path) -> None:
    """The copy has the child's end of their connection, too, so that does not end; a browser that goes on, say."""
    began = SYSTEM_CLOCK.monotonic()
    run = ran(make(), act="fork", seconds=30, file=str(tmp_path / "copy"))
    assert (run.state, run.death) == (RunState.DIED, "child_exit_4")
    assert SYSTEM_CLOCK.monotonic() - began < 25, "waited for the copy"
    os.kill(int((tmp_path / "copy").read_text()), SIGKILL)


def test_a_handler_that_comes_back_twice_is_answered_for_once(make: Make) -> None:
    """A child that it has copied is one child all the same: the next task has its own answer."""
    children = make()
    assert [ran(children, act="copy").encoded for _ in range(5)] == ["null"] * 5
    assert ran(children).encoded == '["m","j",5,7,2,true]'


def test_a_default_timeout_of_sockets_does_not_reach_the_connection(make: Make) -> None:
    """Many crawlers set one for all the sockets of their process."""
    socket.setdefaulttimeout(30.0)
    try:
        assert ran(make()).state is RunState.DONE
    finally:
        socket.setdefaulttimeout(None)


def test_programs_that_a_task_starts_end_by_sigterm(make: Make) -> None:
    """The child itself goes on when it gets the signal; what it starts does as usual."""
    children = make()
    assert ran(children, act="start program").encoded == "-15"
    assert ran(children, act="use pool").encoded == "[1,2,3]"
    assert ran(children, act="kill", signal=SIGTERM).encoded == '"still here"'


def test_no_sigterm_is_lost_in_a_fork(make: Make) -> None:
    """Whoever ends a worker just after its start waits for its end."""
    assert ran(make(), act="terminate copies", count=100, seconds=1).encoded == "0"


NONSENSE: dict[str, tuple[str, dict[str, Any]]] = {
    "valid": ("write", {}),
    "text": ("shout", {"text": "GET / HTTP/1.1\r\n\r\n"}),
    "no JSON": ("shout", {"text": "\0\0\0\0\0\0\0\3no!"}),
    "no object": ("shout", {"text": "\0\0\0\0\0\0\0\2[]"}),
    "no text": ("shout", {"text": "\0\0\0\0\0\0\0\x0a\xff{}\xff{}\xff{}\xff"}),
    "nested": ("shout", {"text": f"\0\0\0\0\0\1\x86\xa0{'[' * 100_000}"}),
    "forged": ("shout", {"text": '\0\0\0\0\0\0\0\x1c{"run":1,"error":null,"a":1} '}),
    "endless": ("shout", {"text": "\0\0\0\0\0\x1f\xff\xff" + "x" * 100_000, "times": 10_000}),
}
"""What handlers write to descriptors that are not theirs."""


@pytest.mark.parametrize("what", NONSENSE)
def test_a_child_that_sends_nonsense(make: Make, caplog: pytest.LogCaptureFixture, what: str) -> None:
    """Is ended, whatever it is at, and the task is blamed; the next has another child, and nothing is kept of it."""
    children, (act, orders) = make(), NONSENSE[what]
    run = ran(children, act=act, seconds=30.0, **orders)
    assert (run.state, run.death, run.added) == (RunState.DIED, CHILD_NONSENSE, [])
    assert "sent bytes that are no message" in caplog.text
    assert "'t'" in caplog.text
    assert ran(children).encoded == '["m","j",5,7,2,true]'


def test_no_more_is_read_than_a_message_may_have() -> None:
    """Whatever length a child announces, and whatever it sends."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for length in (LARGEST_MESSAGE_BYTES + 1, 2**64 - 1):
            theirs.sendall(length.to_bytes(8, "big"))
            with pytest.raises(NonsenseError, match=f"a length of {length} bytes"):
                Reader(ours, LARGEST_MESSAGE_BYTES).next()
        theirs.sendall((2**40).to_bytes(8, "big") + b"x")
        ours.setblocking(False)
        reader = Reader(ours)
        assert reader.read() is None
        with pytest.raises(BlockingIOError):
            reader.next()


def frames(*messages: dict[str, object]) -> bytes:
    """Messages as they are sent."""
    texts = [json.dumps(message).encode() for message in messages]
    return b"".join(len(text).to_bytes(8, "big") + text for text in texts)


OLD_ANSWER = frames({"begun": True, "run": 1}, {"error": None, "exhausted": False, "value": '"old"', "run": 1})


@pytest.mark.parametrize("nonsense", [b"nonsense", OLD_ANSWER])
def test_nonsense_between_two_tasks_is_blamed_on_neither(make: Make, nonsense: bytes) -> None:
    """A thread that one has left behind may have sent it: the next is run in another child."""
    children = make()
    ran(children)
    (child,) = children._starter.all
    child.reader._buffer += nonsense
    assert ran(children).state is RunState.NOT_STARTED
    assert ran(children).state is RunState.DONE


def test_a_child_that_hangs_up_and_goes_on(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended after a while."""
    monkeypatch.setattr("smoothcluster.pool.children.process.LONGEST_DEATH_SECONDS", 0.1)
    children = make()
    run = ran(children, act="shut")
    assert (run.state, run.death) == (RunState.DIED, CHILD_NONSENSE)
    assert ran(children).state is RunState.DONE


def test_an_answer_never_goes_into_a_connection_of_the_handler(make: Make, tmp_path: Path) -> None:
    """Which may have got the number of a descriptor that it has closed."""
    children, path = make(), str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(20)
        assert ran(children, act="close", path=path).death == "child_exit_1"
        for _ in range(20):
            with server.accept()[0] as connection:
                assert connection.recv(1000) == b""
    assert ran(children).state is RunState.DONE


def test_many_large_tasks_submitted_in_a_child(make: Make) -> None:
    """More than one message may hold; each quotation mark takes four bytes there."""
    size = LARGEST_VALUE // 2 - 100
    run = ran(make(), act="submit", size=size, count=10)
    assert (run.state, run.error, len(run.added)) == (RunState.DONE, None, 10)
    assert [task.body for task in run.added] == ['"' * size] * 10


def test_a_child_that_has_been_stopped_takes_no_task(make: Make) -> None:
    """It is given up after a minute, and the task has not started."""
    clock = HeldClock()
    children = make(clock=clock)
    ran(children)
    (child,) = children._starter.all
    os.kill(child.pid, signal.SIGSTOP)
    run = new_run()
    thread = threading.Thread(target=children.run, args=(run,))
    thread.start()
    since = clock.monotonic()

    def over() -> bool:
        clock.advance(5.0)
        return not thread.is_alive()

    eventually(over)
    assert clock.monotonic() - since >= LONGEST_START_SECONDS
    assert (run.state, child.alive()) == (RunState.NOT_STARTED, False)
    assert ran(children).state is RunState.DONE


def test_a_child_that_dies_while_it_imports_is_not_waited_for(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Though a process that it has forked holds its end of the connection."""
    file = tmp_path / "copy"
    script = f"""import os, time
if (copy := os.fork()) == 0: time.sleep(50)
open({str(file)!r}, "a").write(f"{{copy}} "), os._exit(1)"""
    monkeypatch.setattr("smoothcluster.pool.children.process._START_SCRIPT", script)
    began = SYSTEM_CLOCK.monotonic()
    assert make().check() == "child processes die while they get ready"
    assert SYSTEM_CLOCK.monotonic() - began < 45, "waited for the copy"
    for pid in file.read_text().split():
        os.kill(int(pid), SIGKILL)


def test_a_child_that_sends_nonsense_while_it_imports(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is no child that gets ready."""
    script = r"import os, sys, time; os.write(int(sys.argv[1]), b'\0\0\0\0\0\0\0\3no!'); time.sleep(50)"
    monkeypatch.setattr("smoothcluster.pool.children.process._START_SCRIPT", script)
    began = SYSTEM_CLOCK.monotonic()
    assert make().check() == "child processes die while they get ready"
    assert SYSTEM_CLOCK.monotonic() - began < 45, "waited for the child"


def test_an_exit_status_that_other_code_takes(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody knows then whether the task has killed its child: that counts as a kill from outside."""
    children = make()
    ran(children)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        run = ran(children, act="exit")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert (run.state, run.death) == (RunState.DIED, "child_killed")
    assert "went to other code of this process" in caplog.text


def test_an_error_that_nobody_expects_costs_no_worker(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the child is ended, and the task is run again."""
    children = make()

    def broken(run: Run) -> bool:
        raise LookupError("unheard of")

    run = new_run()
    children.run(run, broken)
    assert (run.state, "LookupError: unheard of" in caplog.text) == (RunState.NOT_STARTED, True)
    assert ran(children).state is RunState.DONE


def test_what_a_task_leaves_behind_does_not_fail_the_next(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a coroutine that exits, nor an alarm."""
    coroutines, alarms = (make(each, isolation=Isolation()) for each in (handle_async, handle))
    assert ran(coroutines, leave=True).state is RunState.DONE
    (child,) = coroutines._starter.all
    assert [ran(coroutines, act="nap", seconds=0.01).error for _ in range(5)] == [None] * 5
    assert coroutines._starter.all == {child}
    assert ran(alarms, act="ring", seconds=600).state is RunState.DONE
    (child,) = alarms._starter.all
    assert ran(alarms, act="timer").encoded == "0.0"
    assert alarms._starter.all == {child}


def test_a_start_that_hangs_or_fails_in_any_way(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it for ever; a child that comes too late is ended."""
    monkeypatch.setattr("smoothcluster.pool.children.spawner.LONGEST_SPAWN_SECONDS", 0.1)
    gate, late = threading.Event(), list[Child]()

    def hang() -> Child:
        gate.wait(30.0)
        late.append(Child(origin_of(handle), None, SYSTEM_CLOCK))
        return late[0]

    def fail() -> Child:
        raise LookupError("unheard of")

    spawner = Spawner()
    try:
        assert spawner.spawned(hang) is None
        gate.set()
        eventually(lambda: late and not late[0].alive())
        assert spawner.spawned(fail) is None
    finally:
        spawner.close()


def test_a_child_is_used_again_and_a_task_that_runs_alone_has_one_of_its_own(make: Make) -> None:
    """And a bystander beside it."""
    children = make()
    ran(children)
    (first,) = children._starter.all
    ran(children)
    assert children._starter.all == {first}
    run = new_run()
    run.alone = True
    children.run(run)
    assert run.state is RunState.DONE
    assert len(children._starter.all) == 2
    assert children._bystander in children._starter.all - {first}


def _kill_host(children: Children) -> None:
    host = children._host
    assert host is not None
    host.child.kill()
    eventually(lambda: not host.usable)


def test_a_bystander_that_dies_is_noticed(make: Make) -> None:
    """So is an idle child, by whoever asks, and by whoever wants to use it."""
    children = make(most=2)
    since = SYSTEM_CLOCK.monotonic()
    run = new_run()
    run.alone = True
    children.run(run)
    ran(children)
    assert not children.disturbed(since)
    assert children._bystander is not None
    children._bystander.end()
    assert children.disturbed(since)
    since = SYSTEM_CLOCK.monotonic()
    assert not children.disturbed(since)
    _kill_host(children)
    assert children.disturbed(since)
    assert children._host is None
    ran(children)
    since = SYSTEM_CLOCK.monotonic()
    _kill_host(children)
    assert ran(children).state is RunState.DONE
    assert children.disturbed(since)


def test_suspects_share_a_host_that_comes_up_when_it_is_needed(make: Make) -> None:
    """No child exists before there is a suspect; the host that comes up then runs as many suspects as may run."""
    woken = threading.Event()
    children = make(most=2, wake=woken.set)
    assert (children.able, children.ready(0), children.ready(5)) == (None, 0, 0)
    assert woken.wait(30.0)
    assert (children.able, children.ready(5), len(children._starter.all)) == (True, 2, 1)
    busy = [new_run(act="wait"), new_run(act="wait")]
    threads = [threading.Thread(target=children.run, args=(run,)) for run in busy]
    for thread in threads:
        thread.start()
    eventually(lambda: all(run.began for run in busy))
    assert len(children._starter.all) == 1
    for run in busy:
        run.context.stopping.set()  # type: ignore[attr-defined]  # an event, in this test
    for thread in threads:
        thread.join()
    assert [run.encoded for run in busy] == ["true", "true"]
    assert children.ready(5) == 0, "a host that was told to stop is not used again"


@pytest.mark.parametrize("handler", [handle, handle_async])
def test_the_death_of_a_host_names_its_only_task(make: Make, handler: Handler, tmp_path: Path) -> None:
    """With several tasks, the death names none of them; a task of which the host has told the outcome is done."""
    children = make(handler, most=3)
    assert ran(children).state is RunState.DONE
    gate = tmp_path / "gate"
    act = "hold" if handler is handle_async else "show"
    others = [new_run(act=act, file=str(tmp_path / str(number)), gate=str(gate)) for number in range(2)]
    threads = [threading.Thread(target=children.run, args=(run,)) for run in others]
    for thread in threads:
        thread.start()
    eventually(lambda: all(run.began for run in others))
    killer = ran(children, act="exit")
    for thread in threads:
        thread.join()
    assert [(run.state, run.death) for run in (killer, *others)] == [(RunState.DIED, CHILD_SHARED)] * 3
    assert ran(children, act="exit").death == "child_exit_4"


@pytest.mark.parametrize("isolation", [None, Isolation()])
def test_children_warm_up_for_a_takeover(make: Make, isolation: Isolation | None) -> None:
    """A host, or where all tasks run in children all of them; none is started twice, and a dead host is replaced."""
    children = make(most=3, isolation=isolation)
    size = 1 if isolation is None else 3
    for _ in range(3):
        children.warm_up()
        eventually(lambda: children._coming == 0)
        assert len(children._starter.all) == size
    if isolation is None:
        _kill_host(children)
        children.warm_up()
        eventually(lambda: children.ready(1) == 3)


def test_a_task_that_takes_too_long(make: Make) -> None:
    """Its child is ended; the next has another."""
    children = make(isolation=Isolation(timeout=0.2))
    assert ran(children, act="wait").error == "the task took longer than its timeout of 0.2 seconds and was ended"
    children._timeout = None  # That would be short on a busy machine.
    assert ran(children).state is RunState.DONE


def test_a_task_that_takes_too_much(make: Make) -> None:
    """It fails, and its child is not used again; what a child took to start is not counted."""
    children = make(isolation=Isolation(memory=64 * 2**20))
    assert ran(children, act="eat", bytes=32 * 2**20).encoded == str(32 * 2**20)
    (first,) = children._starter.all
    run = ran(children, act="eat", bytes=128 * 2**20)
    assert (run.state, run.error) == (RunState.FAILED, "MemoryError (more than the memory limit of a task allows)")
    assert first not in children._starter.all


def test_the_least_memory_is_enough_for_a_task_that_takes_none(make: Make) -> None:
    """What a child needs for itself is not counted, its threads' stacks included."""
    assert ran(make(isolation=Isolation(memory=LEAST_TASK_MEMORY_BYTES)), act="eat", bytes=1000).encoded == "1000"


@pytest.mark.promise(4)
def test_nothing_starts_that_may_not_by_the_time_there_is_a_child(make: Make) -> None:
    """The lease may have been lost while it came up."""
    children = make()
    run = new_run()
    children.run(run, lambda run: False)
    assert run.state is RunState.NOT_STARTED


def test_a_handler_that_children_cannot_import() -> None:
    """That is found out once, and told; runs are handed back."""
    children = Children(Origin("no_such_module", "handle", None), 1)
    run = new_run()
    children.run(run)
    assert (run.state, children.able, children.ready(3)) == (RunState.NOT_STARTED, False, 0)
    run.alone = True
    children.run(run)
    assert run.state is RunState.NOT_STARTED
    assert "No module named" in (children.check() or "")
    children.close()


def test_whether_children_can_import_the_handler_is_found_out_once(make: Make) -> None:
    """By a child that is kept. Where children need not import the handler, nothing is tried."""
    for isolation in (None, Isolation()):
        children = make(isolation=isolation)
        assert (children.able, children.check(), children.able, len(children._starter.all)) == (None, None, True, 1)
        children._starter.origin = Origin("no_such_module", "handle", None)
        assert (children.check(), len(children._starter.all)) == (None, 1)
    unnamed = Children(None, 1)
    assert (unnamed.check(), unnamed.able) == (None, False)


def test_an_import_that_fails_is_tried_again_when_asked(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """What was missing may have come; meanwhile no child is used, and that is said once."""
    children = make()
    there, children._starter.origin = children._starter.origin, Origin("no_such_module", "handle", None)
    for _ in range(2):
        assert "No module named" in (children.check() or "")
    assert (children.able, children.ready(1), len(caplog.records)) == (False, 0, 1)
    children._starter.origin = there
    assert (children.check(), children.able) == (None, True)
    assert ran(children).state is RunState.DONE


def killer(times: float) -> Callable[..., Child]:
    """Makes children and kills the first ones before they are ready."""
    made = count()

    def spawn(*origin: Any, **options: Any) -> Child:
        child = Child(*origin, **options)
        if next(made) < times:
            child._process.kill()
        return child

    return spawn


@pytest.mark.parametrize("alone", [False, True])
def test_children_that_are_killed_while_they_get_ready_say_nothing(make: Make, alone: bool) -> None:
    """Whoever kills children in a row must not have suspects run in the member: there they would take it along."""
    children = make(spawn=killer(2 * MOST_FAILED_STARTS))
    assert children.check() == "child processes die while they get ready", "for the time being"
    assert children.able is None
    run = new_run()
    run.alone = alone
    while run.state is RunState.NOT_STARTED:
        children.run(run)
        assert children.able is not False
    assert (run.state, children.check()) == (RunState.DONE, None)


def test_children_that_are_always_killed_are_given_up(make: Make) -> None:
    """After a long time: the kernel may have no memory for them, and tasks must end."""
    clock = HeldClock()
    children = make(spawn=killer(math.inf), clock=clock)
    thread = threading.Thread(target=children.run, args=(new_run(),))
    thread.start()
    until = clock.monotonic() + LONGEST_START_SECONDS

    def over() -> bool:
        if clock.waiting:
            clock.advance(10.0)
        assert children.able is None or clock.monotonic() > until
        return not thread.is_alive()

    eventually(over)
    assert children.able is False


def test_children_that_die_while_they_get_ready(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some in a row it is believed."""
    monkeypatch.setattr("smoothcluster.pool.children.process._START_SCRIPT", "import os; os._exit(1)")
    children = make()
    assert ran(children).state is RunState.NOT_STARTED
    assert children.able is False
    assert make().check() == "child processes die while they get ready"


def test_children_that_cannot_be_started(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise."""
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    children = make()
    assert ran(children).state is RunState.NOT_STARTED
    assert children.able is False


def test_children_end_with_their_set(make: Make) -> None:
    """Whatever they are at, and nothing is started any more."""
    children, run = make(), new_run(act="wait")
    thread = threading.Thread(target=children.run, args=(run,))
    thread.start()
    pids = eventually(lambda: [child.pid for child in children._starter.all if run.began])
    children.close()
    thread.join()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert (ran(children).state, children.ready(1)) == (RunState.NOT_STARTED, 0)
    untried = make()
    untried.close()
    assert untried.check() is not None


@pytest.mark.parametrize("isolation", [None, Isolation()])
def test_a_child_that_has_been_stopped_holds_up_no_pool(make: Make, isolation: Isolation | None) -> None:
    """In the middle of a task without a timeout: the pool is left after its grace period, and the child is ended."""
    children, over = make(isolation=isolation), threading.Event()
    pool, run = make_pool(handle, 1, over.set, apart=children), new_run(act="wait")
    pool.put([run])
    (pid,) = eventually(lambda: [child.pid for child in children._starter.all if run.began])
    os.kill(pid, signal.SIGSTOP)
    run.context.stopping.set()  # type: ignore[attr-defined]  # an event, in this test
    assert pool.stop(0.5) == 1
    children.close()
    assert not Path(f"/proc/{pid}").exists()
    assert pool.stop(30.0) == 0
    assert run.state is RunState.DIED


def test_children_end_with_their_parent() -> None:
    """However that ends, and whatever they are at."""
    script = """
from core.children_kit import handle, new_run
from smoothcluster.pool.children.pool import Children
from smoothcluster.pool.children.handler_ref import origin_of
import os, threading
children, run = Children(origin_of(handle), 1), new_run(act="wait")
threading.Thread(target=children.run, args=(run,), daemon=True).start()
while not run.began:
    threading.Event().wait(0.01)
print([child.pid for child in children._starter.all][0], flush=True)
os.kill(os.getpid(), 9)
"""
    path = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": path}, capture_output=True, check=False
    )
    assert done.returncode == -SIGKILL, done.stderr
    eventually(lambda: not Path(f"/proc/{int(done.stdout)}").exists())


@pytest.mark.parametrize("handler", [handle, handle_async])
@pytest.mark.parametrize("every", [True, False])
def test_pools_run_tasks_apart(make: Make, handler: Handler, every: bool) -> None:
    """Beside others that they run themselves, and on no more workers."""
    children, over = make(handler, 2, isolation=Isolation() if every else None), threading.Event()
    pool = make_pool(handler, 2, over.set, apart=children)
    runs = [new_run(), new_run()]
    runs[1].apart = every
    pool.put(runs)
    eventually(lambda: len(pool.finished) == 2)
    assert {run.state for run in runs} == {RunState.DONE}
    assert [run.encoded.endswith("true]") for run in runs] == [True, every]
    assert children.ready(9) == (1 if every else 2)
    pool.stop(5.0)


def test_no_children() -> None:
    """Where there are none, nobody asks them to run anything."""
    none = NoChildren()
    assert (none.ready(1), none.disturbed(0.0)) == (0, False)
    with pytest.raises(NotImplementedError):
        none.run(new_run())


# Where handlers come from


def test_functions_and_static_methods_are_found() -> None:
    """By the names of their modules and their own."""
    assert origin_of(handle) == Origin("core.children_kit", "handle", None)
    assert load(origin_of(Handlers.handle).to_json()) is Handlers.handle


def test_the_path_on_which_a_child_looks_for_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what an import skips; a folder that was on the path by a relative name is there by its own."""
    whole = ["/here", "/there.zip"]
    odd: list[Any] = [None, b"/bytes", Path("/path"), "nul\0", "\ud800", *whole]
    monkeypatch.setattr("sys.path", odd)
    assert origin_of(handle).search_path() == whole
    monkeypatch.setattr("sys.path", ["/here", "", "lib", *odd])
    assert origin_of(handle).search_path() == ["/here", str(ROOT / "tests"), "", "lib", *whole]
    assert Origin(CHILD_MAIN_MODULE, "handle", "/place/script.py").search_path()[1] == "/place"
    assert Origin("shop.__main__", "handle", "/place/shop/__main__.py").search_path()[1] == "/place"
    assert Origin("shop", "handle", "/place/shop/__init__.py").search_path()[1] == "/place"
    assert Origin("no_such_module", "handle", None).search_path() == ["/here", "", "lib", *whole]


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (lambda task, context: None, "is defined inside a function"),
        (Handlers().bound, "finds functions"),
        (type("Callable", (), {"__call__": lambda self, task, context: None})(), "the handler is an object"),
    ],
)
def test_others_are_not(handler: Handler, why: str) -> None:
    """And it is said what to do."""
    with pytest.raises(NoOriginError, match=why):
        origin_of(handler)


def _script(tmp_path: Path, text: str, *options: str) -> str:
    """What a script prints."""
    (tmp_path / "script.py").write_text(text)
    command = [sys.executable, *(options or [str(tmp_path / "script.py")])]
    # As users have it: with the folder that they are in on the path.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


GUARDED = """
from smoothcluster.pool.children.handler_ref import NoOriginError, origin_of

def fetch(task, context):
    return "script"

def main():
    try:
        print(origin_of(fetch).to_json())
    except NoOriginError as error:
        print(error)

if __name__ == "__main__":
    main()
"""


def test_a_script_with_a_guard_is_imported(tmp_path: Path) -> None:
    """Under the name that multiprocessing gives it; `python -m` makes no difference."""
    file = str(tmp_path.resolve() / "script.py")
    assert eval(_script(tmp_path, GUARDED)) == {"module": CHILD_MAIN_MODULE, "name": "fetch", "script": file}
    assert eval(_script(tmp_path, GUARDED, "-m", "script"))["name"] == "fetch"
    before = sys.modules["__main__"]
    try:
        assert load({"module": CHILD_MAIN_MODULE, "name": "fetch", "script": file})(None, None) == "script"  # type: ignore[arg-type]
    finally:
        sys.modules["__main__"] = before
        del sys.modules[CHILD_MAIN_MODULE]


def test_a_script_without_a_guard_is_not(tmp_path: Path) -> None:
    """Importing it would run all of it once more."""
    text = GUARDED.replace('if __name__ == "__main__":', "if True:")
    assert "so an import would run the whole program" in _script(tmp_path, text)
    assert "not read from a file" in _script(tmp_path, GUARDED, "-c", GUARDED)


def test_a_script_that_has_changed_since(tmp_path: Path) -> None:
    """What cannot be read cannot be imported."""
    text = GUARDED.replace("    main()", '    open(__file__, "w").write("((")\n    main()')
    assert "cannot be read" in _script(tmp_path, text)


# What a crawler makes of it


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"isolation": "process"}, r"isolation must be Isolation\(…\) or None, not 'process'"),
        (
            {"isolation": Isolation(), "handler": lambda task, context: None},
            "define the handler at the top level of a module",
        ),
    ],
)
def test_isolation_that_makes_no_sense(options: dict[str, Any], why: str) -> None:
    """It is told at once, with what to do."""
    with pytest.raises(UsageError, match=why):
        ClusterCrawler(backend=MemoryBackend(), runner=1, **dict[str, Any](handler=handle) | options)


def test_isolation_where_the_import_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found out by a child, at once."""
    monkeypatch.setattr("smoothcluster.pool.children.process._START_SCRIPT", "import os; os._exit(1)")
    with pytest.raises(UsageError, match="die while they get ready"):
        ClusterCrawler(backend=MemoryBackend(), runner=1, handler=handle, isolation=Isolation())


def test_a_child_that_imports_its_handler_makes_no_crawlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that joins a group while it is imported would have ghosts join it."""
    monkeypatch.setattr("smoothcluster.pool.children.main._State.importing", True)
    with pytest.raises(UsageError, match="a child process imports this module"):
        ClusterCrawler(backend=MemoryBackend(), runner=1, handler=handle)
