"""The words: what a task is, and what is said to those who write one wrongly."""

import pytest
from core_kit import Quiet

from smoothcluster.errors import UsageError
from smoothcluster.model import Task, TaskContext, check_name


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
        ({"id": 5}, "id cannot be 5"),
        ({"url": None}, "url cannot be None"),
        ({"url": "u", "method": 1}, "method cannot be 1"),
        ({"url": "u", "params": {"a": 1}}, "params cannot be"),
        ({"url": "u", "headers": "a: b"}, "headers cannot be 'a: b'"),
        ({"url": "u", "body": {}}, "body cannot be"),
        ({"url": "u", "body64": "?"}, "body64 is not base64"),
        ({"url": "u", "body64": 1}, "body64 cannot be 1"),
        ({"meta": 1}, "id or a url"),
    ],
)
def test_what_is_no_task_is_refused_by_the_name_of_its_field(data: dict[str, object], words: str) -> None:
    """A person may have written it."""
    with pytest.raises(UsageError, match=words):
        Task.from_json(data)


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
