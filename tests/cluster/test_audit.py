"""The oracle sees what it is there to see."""

from dataclasses import replace

import pytest
from cluster.audit import Line, audit
from cluster.handlers import END, RAISED, START

from smoothcluster import Outcome, State

LOG = [
    Line(START, "a", 1, "x", 3, 0.0),
    Line(END, "a", 1, "x", 3, 1.0),
    Line(START, "a", 1, "y", 3, 1.0),
    Line(RAISED, "a", 1, "y", 3, 2.0),
]
DONE = Outcome("x", State.DONE, None, None, 1, "a", 3)
FAILED = Outcome("y", State.FAILED, None, "ValueError", 1, "a", 3)


def test_a_true_record_is_right() -> None:
    """Nothing is said of outcomes that are as the log has them."""
    assert audit(LOG, [DONE, FAILED], ["x", "y"]) == []


@pytest.mark.parametrize(
    ("outcomes", "complaint"),
    [
        ([DONE], "y was lost"),
        ([DONE, DONE, FAILED], "x was recorded 2 times"),
        ([DONE, FAILED, replace(DONE, task_id="z")], "z was recorded and never asked for"),
        ([replace(DONE, runner="b"), FAILED], "the log knows of"),
        ([replace(DONE, epoch=2), FAILED], "the log knows of"),
        ([DONE, replace(FAILED, state=State.DONE)], "the log knows of nothing"),
        ([replace(DONE, state=State.QUARANTINED), FAILED], "its handler did come back"),
        ([replace(DONE, attempts=0), FAILED], "was started 1 times"),
    ],
)
def test_a_false_record_is_told(outcomes: list[Outcome], complaint: str) -> None:
    """Each way of being wrong is named."""
    assert complaint in "; ".join(audit(LOG, outcomes, ["x", "y"]))
