"""What users need who write their first test: a context for their handler, and a word on what is not installed."""

import subprocess
import sys
import threading
from textwrap import dedent

import pytest

from smoothcluster import Task, TaskContext
from smoothcluster.errors import UsageError
from smoothcluster.testing import task_context


def follow(task: Task, context: TaskContext) -> object:
    """A handler that adds a task, and stops when told to."""
    if context.stopping.is_set():
        raise RuntimeError("told to stop")
    context.submit([Task(url=f"{task.url}/next")])
    return {"by": context.member, "attempt": context.attempt}


def test_a_handler_can_be_called_without_a_group() -> None:
    """Its context has sensible values, and holds the tasks that were added."""
    context = task_context()
    assert follow(Task(url="http://h"), context) == {"by": "crawler_0", "attempt": 1}
    assert context.submitted == [Task(url="http://h/next")]
    assert not context.stopping.wait(0)


def test_the_context_is_as_the_test_wants_it() -> None:
    """Each attribute has a keyword; a test may tell the handler to stop."""
    stopping = threading.Event()
    context = task_context(member="m", job="j", shard=2, epoch=3, attempt=4, stopping=stopping)
    assert (context.member, context.job, context.shard, context.epoch, context.attempt) == ("m", "j", 2, 3, 4)
    stopping.set()
    with pytest.raises(RuntimeError, match="told to stop"):
        follow(Task(url="http://h"), context)


def test_it_refuses_what_a_member_would_refuse() -> None:
    """So the test finds a handler that adds no tasks."""
    with pytest.raises(UsageError, match=r"context\.submit takes Tasks"):
        task_context().submit(["http://h"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


def without(package: str, code: str) -> "subprocess.CompletedProcess[str]":
    """Run *code* where *package* is not installed."""
    lines = f"import sys\nfor name in {package!r}.split(): sys.modules[name] = None\n{dedent(code)}"
    return subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=False)


INSTALL = "pip install 'smoothcluster[testing]'"


def test_the_simulator_says_what_it_needs() -> None:
    """In one line, with the status of a wrong call."""
    done = without(
        "greenlet",
        """
        import runpy
        sys.argv = ["simulate", "--help"]
        runpy.run_module("smoothcluster.testing.simulate", run_name="__main__", alter_sys=True)
        """,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line == f"Error: greenlet is not installed: {INSTALL}"


def test_names_that_need_the_extra_say_so_when_they_are_imported() -> None:
    """The others do without."""
    done = without(
        "greenlet hypothesis pytest",
        """
        from smoothcluster.testing import Faulty, HeldClock, Lagging, eventually, task_context
        for name in ("BackendConformance", "Ability", "backend_machine", "simulate.play"):
            module, _, attribute = f"smoothcluster.testing.{name}".rpartition(".")
            try:
                exec(f"from {module} import {attribute}")
            except ModuleNotFoundError as error:
                print(error)
        try:
            from smoothcluster.testing.simulate import nonsense
        except ImportError as error:
            assert "nonsense" in str(error)
        """,
    )
    assert done.stderr == ""
    pytest_missing, again, hypothesis, greenlet = done.stdout.splitlines()
    assert pytest_missing == again == f"pytest is not installed: {INSTALL}"
    assert hypothesis == f"hypothesis is not installed: {INSTALL}"
    assert greenlet == f"greenlet is not installed: {INSTALL}"
