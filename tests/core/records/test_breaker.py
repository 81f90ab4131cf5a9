"""The breaker's record."""

import pytest

from smoothcluster.model import Evidence
from smoothcluster.records.breaker import CLOSED_BREAKER, REMEMBERED_DEATHS, Breaker, Death
from smoothcluster.records.codec import GarbageError

DEATH = Death("a", Evidence.PROCESS_GONE)


def test_it_is_read_as_it_was_written() -> None:
    """Who died, in order, and how that is known."""
    told = Breaker(open=True, dead={"i1": DEATH, "i0": Death("b", Evidence.LEASE_EXPIRED)}, id="c")
    again = Breaker.from_json(told.to_json())
    assert (again, list(again.dead)) == (told, ["i1", "i0"])


@pytest.mark.parametrize(
    "value",
    [b"", b"[]", b"{}", b'{"dead":[["i"]],"open":true,"id":""}', b'{"dead":[["i","n","x"]],"open":true,"id":""}'],
)
def test_anything_else_is_garbage(value: bytes) -> None:
    """And said to be."""
    with pytest.raises(GarbageError):
        Breaker.from_json(value)


def test_it_opens_and_stays_open() -> None:
    """Further deaths do not close it."""
    opened = CLOSED_BREAKER.after({"i": DEATH}, (), "c", opens=True)
    assert (opened.open, list(opened.dead)) == (True, ["i"])
    assert opened.after({}, (), "d", opens=False).open


def test_old_deaths_are_forgotten_unless_their_shards_still_wait() -> None:
    """Or they would count as new once more when the shards are taken."""
    many = {f"i{n}": DEATH for n in range(REMEMBERED_DEATHS + 2)}
    after = CLOSED_BREAKER.after(many, {"i0", None}, "c", opens=False)
    assert [name for name in many if name not in after.dead] == ["i1"]
