"""A damaged JSON array gives up its readable elements, and nothing else."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcluster.records.salvage import as_text, split_array

ELEMENTS: list[object] = [{"id": str(number), "meta": [{"id": "in"}, {"id": "out"}]} for number in range(5)]
WHOLE = json.dumps(ELEMENTS, separators=(",", ":"))


def split(text: str) -> tuple[list[object], list[object], bool]:
    """The elements of a chunk's array."""
    return split_array(text, 1, "]", '{"id":')


def test_a_whole_array_is_whole() -> None:
    """Nothing comes after a damage that is none."""
    assert split(WHOLE) == (ELEMENTS, [], True)
    assert split("[]") == ([], [], True)


@pytest.mark.parametrize("damage", ["#", "\x00", '"', "\\", "]", "}", ",", "{", "[" * 5000])
def test_a_damaged_element_takes_no_other_along(damage: str) -> None:
    """Whatever took the place of a character of the third element."""
    second, third = WHOLE.index('{"id":"2"'), WHOLE.index('{"id":"3"')
    for position in range(second, third - 1):
        before, after, whole = split(WHOLE[:position] + damage + WHOLE[position + 1 :])
        if whole:
            assert (before[:2], before[-2:]) == (ELEMENTS[:2], ELEMENTS[3:]), "still JSON: another value, or another id"
        else:
            assert (before[:2], after[-2:]) == (ELEMENTS[:2], ELEMENTS[3:]), position
            assert len(before) + len(after) <= len(ELEMENTS)


@pytest.mark.parametrize("length", [length for length in range(1, len(WHOLE)) if WHOLE[length - 1] != "]"])
def test_a_torn_array_gives_the_elements_before_the_tear(length: int) -> None:
    """The objects in a value of the torn element are no elements."""
    before, after, whole = split(WHOLE[:length])
    assert (ELEMENTS[: len(before)], after, whole) == (before, [], False)
    ends = [len(json.dumps(ELEMENTS[:count], separators=(",", ":"))) for count in range(1, 5)]
    assert len(before) == sum(end <= length for end in ends)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_bytes_raise(value: bytes) -> None:
    """Whatever follows the opening bracket."""
    before, after, whole = split("[" + as_text(value))
    assert not (after and whole)
    assert isinstance(before, list)


def test_bytes_that_are_no_text_belong_to_no_element() -> None:
    """They would become other text than was written."""
    text = as_text(WHOLE.encode().replace(b'"id":"2"', b'"id":"\xff"'))
    assert split(text) == (ELEMENTS[:2], ELEMENTS[3:], False)
