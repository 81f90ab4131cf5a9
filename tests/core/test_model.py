"""The words: what a task is, and what is said to those who write one wrongly."""

import json
import re
from typing import Any

import pytest
from core_kit import Quiet, decode_chunk
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcluster.arguments import check_name
from smoothcluster.errors import UsageError
from smoothcluster.jobs.chunks import encode_task
from smoothcluster.model import MOST_NESTING, Task, TaskContext
from smoothcluster.pool.run import Run, RunState, record_result


def test_a_task_needs_an_id_or_a_url() -> None:
    """Else two of them could not be told apart."""
    with pytest.raises(UsageError, match="id or a url"):
        Task()


def test_the_same_request_is_the_same_task() -> None:
    """Without an id, one is derived from what is requested; what the handler notes for itself does not count."""
    one = Task(url="http://x", params={"a": "1", "b": "2"}, meta=1)
    assert one.id == Task(url="http://x", params={"b": "2", "a": "1"}, meta=2).id


@pytest.mark.parametrize(
    "other",
    [
        Task(url="http://y"),
        Task(url="http://x", method="POST"),
        Task(url="http://x", params={}),
        Task(url="http://x", headers={"a": "b"}),
        Task(url="http://x", body="b"),
        Task(url="http://x", body=b"b"),
    ],
)
def test_another_request_is_another_task(other: Task) -> None:
    """Whatever differs."""
    assert other.id != Task(url="http://x").id
    assert len(other.id) == 32


def test_a_body_of_bytes_is_not_one_of_text() -> None:
    """The handler gets what was handed in."""
    assert Task(url="u", body="b").id != Task(url="u", body=b"b").id


def test_an_id_is_no_longer_than_512_characters() -> None:
    """It stands in every result."""
    assert Task(id="x" * 512).id
    with pytest.raises(UsageError, match="512 characters long, not 513"):
        Task(id="x" * 513)


FULL = Task(id="i", url="u", method="PUT", params={"a": "b"}, headers={"c": "d"}, body="e", meta=[1])


@pytest.mark.parametrize("task", [Task(id="i"), Task(url="u"), FULL, Task(url="u", body=b"\x00\xff")])
def test_a_task_is_read_back_as_it_was(task: Task) -> None:
    """What is at its default is left out of the JSON."""
    assert Task.from_json(task.to_json()) == task


def test_defaults_take_no_room() -> None:
    """Millions of tasks are stored."""
    assert Task(id="i").to_json() == {"id": "i"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"id": "i", "colour": "red"}, "no field 'colour'"),
        ({"id": 5}, "a Task's id must be text, not 5; use str\\(id\\), '5'"),
        ({"url": None}, "url cannot be null; leave the field out"),
        ({"url": "u", "method": 1}, "a Task's method must be text, not 1"),
        ({"url": "u", "params": {"a": 1}}, "a Task's params must be a dict of text to text, or None, not {'a': 1}"),
        ({"url": "u", "headers": "a: b"}, "a Task's headers must be a dict of text to text, or None, not 'a: b'"),
        ({"url": "u", "body": {}}, "a Task's body must be text, bytes or None, not {}"),
        ({"url": "u", "body64": "?"}, "body64 is not base64"),
        ({"url": "u", "body64": 1}, "body64 is not base64"),
        ({"meta": 1}, "id or a url"),
    ],
)
def test_what_is_no_task_is_refused_by_the_name_of_its_field(data: dict[str, object], words: str) -> None:
    """A person may have written it."""
    with pytest.raises(UsageError, match=words):
        Task.from_json(data)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"id": 0}, "a Task's id must be text, not 0; use str(id), '0'"),
        ({"id": 7}, "a Task's id must be text, not 7; use str(id), '7'"),
        ({"id": None}, "a Task's id must be text, not None"),
        ({"id": b"i"}, "a Task's id must be text, not b'i'"),
        ({"url": b"u"}, "a Task's url must be text or None"),
        ({"id": "i", "method": None}, "a Task's method must be text, not None"),
        ({"id": "i", "params": {"page": 1}}, "a Task's params must be a dict of text to text, or None"),
        ({"id": "i", "params": {"page": None}}, "a Task's params must be"),
        ({"id": "i", "params": {"page": True}}, "a Task's params must be"),
        ({"id": "i", "params": {1: "page"}}, "a Task's params must be"),
        ({"id": "i", "params": [("page", "1"), ("page", "2")]}, "a Task's params must be"),
        ({"id": "i", "headers": [("a", "b")]}, "a Task's headers must be"),
        ({"id": "i", "body": bytearray(b"b")}, "a Task's body must be text, bytes or None"),
        ({"id": "i", "meta": (1, 2)}, "meta must be a JSON value: tuple is no JSON type; use a list"),
        ({"id": "i", "meta": {1: 2}}, "meta must be a JSON value: a key is no text: 1"),
        ({"id": "i", "meta": {None: 2}}, "meta must be a JSON value: a key is no text: None"),
        ({"id": "i", "meta": [float("nan")]}, "meta must be a JSON value: nan is no JSON number"),
        ({"id": "i", "meta": 10**5000}, "meta must be a JSON value: an int has more than 4200 digits"),
        ({"id": "i", "meta": b"m"}, "meta must be a JSON value: bytes is no JSON type"),
        ({"id": "\ud800\udc00"}, "a Task's id must be text"),
    ],
)
def test_what_the_store_would_not_return_is_refused_by_the_name_of_its_field(fields: Any, words: str) -> None:
    """Nothing is coerced: the handler would get something else than was submitted."""
    with pytest.raises(UsageError, match=re.escape(words)):
        Task(**fields)


def test_nesting_has_a_bound_that_no_reader_depends_on() -> None:
    """A reader's own limit depends on how deep its caller is; a value that holds itself has no end."""
    value: list[Any] = []
    for _ in range(MOST_NESTING - 1):
        value = [value]
    assert Task(id="i", meta=value).meta == value
    for wrong in ([value], itself := list[Any]()):
        itself.append(itself)
        with pytest.raises(UsageError, match="more than 100 levels of lists and dicts"):
            Task(id="i", meta=wrong)
    twice: list[Any] = []
    twice += [twice, twice]
    with pytest.raises(UsageError, match=r"levels|parts"):
        Task(id="i", meta=twice)


class Link(str):
    """Text as parsers give it."""

    __slots__ = ()


def test_text_of_a_parser_is_text() -> None:
    """Libraries return subclasses of str; the handler gets equal text."""
    assert Task.from_json(json.loads(encode_task(Task(url=Link("u"), meta={"a": Link("b")})))).meta == {"a": "b"}


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS,
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.tuples(parts, parts)
        | st.dictionaries(SCALARS, parts, max_size=3)
        | st.dictionaries(st.text(), parts, max_size=3)
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Whether both are equal, type for type."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(one, dict):
        return [*one] == [*other] and all(same(one[key], other[key]) for key in one)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return bool(one == other)


@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("id", "url", "method", "params", "headers", "body", "meta"), VALUES)
    )
)
@settings(max_examples=400, deadline=None)
def test_every_task_is_refused_or_read_back_as_it_was(fields: dict[str, Any]) -> None:
    """Whatever the fields hold: one task that cannot be read would take its whole chunk along."""
    try:
        task = Task(**fields)
    except UsageError:
        return
    (read,) = decode_chunk(f"[{encode_task(task)}]".encode())
    assert all(same(getattr(read, name), getattr(task, name)) for name in Task.__slots__)


@given(VALUES)
@settings(max_examples=400, deadline=None)
def test_every_value_of_a_handler_fails_its_task_or_is_read_back_as_it_was(value: object) -> None:
    """The record of an outcome holds those of other tasks, too."""
    run = Run(Task(id="t"), TaskContext("m", "j", 0, 1, 1, Quiet()))
    record_result(run, value)
    if run.state is RunState.DONE:
        assert same(json.loads(run.encoded), value)
    else:
        assert "which is not JSON: " in str(run.error)


def test_a_context_collects_what_a_handler_submits() -> None:
    """In order, however often it is asked."""
    context = TaskContext("m", "j", 0, 1, 1, Quiet())
    context.submit([Task(id="a")])
    context.submit(Task(id=name) for name in "bc")
    assert [task.id for task in context.submitted] == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["a", "crawler_0", ".hidden", "a-b.c", "x" * 100])
def test_a_name_that_can_be_part_of_a_key_is_returned(name: str) -> None:
    """Letters, digits and a few signs."""
    assert check_name("group", name) == name


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a b", ".", "..", "ü", "x" * 101, "a\n"])
def test_a_name_that_cannot_be_part_of_a_key_is_refused(name: str) -> None:
    """Saying what it was for."""
    with pytest.raises(UsageError, match=r"group .* not valid"):
        check_name("group", name)


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        (
            "http://x/",
            'takes Tasks, as in context.submit\\(\\[Task\\(url="http://localhost/"\\)\\]\\), not str: .http://x/',
        ),
        (None, "not NoneType: None"),
        (Task(id="x"), "not Task: Task"),
        ({"id": "x"}, "not dict: "),
        ([Task(id="x"), None], "takes Tasks, not NoneType: None"),
        ([Task(id="x"), "http://x/"], "takes Tasks, not str: 'http://x/'"),
    ],
)
def test_a_handler_that_submits_no_tasks_is_told_at_once(tasks: Any, says: str) -> None:
    """The error shows the right form, where the handler made the call."""
    context = TaskContext("m", "j", 0, 1, 1, Quiet())
    with pytest.raises(UsageError, match=f"context.submit {says}" if "takes" in says else says):
        context.submit(tasks)


def test_a_submit_that_a_handler_does_not_survive_adds_nothing() -> None:
    """An iterator that raises half-way adds none of its tasks, even if the handler goes on."""
    context = TaskContext("m", "j", 0, 1, 1, Quiet())
    with pytest.raises(ZeroDivisionError):
        context.submit(Task(id=str(1 // (2 - number))) for number in range(3))
    assert context.submitted == []


def test_a_handler_cannot_go_on_after_it_submitted_what_is_no_task() -> None:
    """Links that nobody crawls are no success, even if the handler catches every error."""
    context = TaskContext("m", "j", 0, 1, 1, Quiet())
    with pytest.raises(UsageError):
        context.submit(["http://x/"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    run = Run(Task(id="t"), context)
    record_result(run, None)
    assert (run.state, run.error) == (RunState.FAILED, "the handler submitted str, not a Task")
