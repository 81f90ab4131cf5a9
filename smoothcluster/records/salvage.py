"""Read the readable elements of a damaged JSON array: every element before the damage, and every element after it."""

import json
import re
from typing import Any

from smoothcluster.records.codec import LARGEST_RECORD_BYTES

_STRAY_BYTE = re.compile("[\udc80-\udcff]")
"""A byte that is not UTF-8, as `as_text` returns it. JSON writes such a character in ASCII."""

_JSON_DECODER = json.JSONDecoder()


class DamagedElementError(ValueError):
    """No JSON element begins here, or the element holds bytes that are not UTF-8."""


def as_text(value: bytes) -> str:
    """Return *value* as text; each byte that is not UTF-8 becomes a character that no element may hold."""
    return value[:LARGEST_RECORD_BYTES].decode(errors="surrogateescape")


def split_array(text: str, start: int, end: str, opening: str) -> tuple[list[Any], list[Any], bool]:
    """Split a JSON array into the elements before the damage and after it; also return whether the array is whole.

    *start* is the position after the ``[``. The array is closed by *end*, with which the text must end. Every element
    begins with *opening*. Elements after the damage count only if an unbroken row of elements leads to the end of the
    text. So a part of a damaged element passes for an element only if the text was torn right after a list in it.
    """
    before, damage = _row(text, start, end)
    if damage is None:
        return before, [], True
    following = text.find(f",{opening}", damage)
    while following >= 0:
        after, damage = _row(text, following + 1, end)
        if damage is None:
            return before, after, False
        following = text.find(f",{opening}", following + 1)
    return before, [], False


def _row(text: str, start: int, end: str) -> tuple[list[Any], int | None]:
    """Return the elements from *start*, and the position of the first damaged element; None if there is none."""
    elements: list[Any] = []
    position = start
    if text[start:] == end:
        return elements, None
    while True:
        try:
            element, after = _element(text, position)
        except (ValueError, RecursionError):
            return elements, position
        if text[after:] == end:
            return [*elements, element], None
        if text[after : after + 1] != ",":
            return elements, position
        elements.append(element)
        position = after + 1


def _element(text: str, position: int) -> tuple[Any, int]:
    element, after = _JSON_DECODER.raw_decode(text, position)
    if _STRAY_BYTE.search(text, position, after):
        raise DamagedElementError
    return element, after
