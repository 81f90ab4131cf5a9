"""What blame says of a task: pure decisions, so each rule can be shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcluster.work.verdict import DEATHS_TO_QUARANTINE, Stage, stage

GONE, EXPIRED, LEFT, ALONE = "a@1:process_gone", "a@1:lease_expired", "a@1:left", "b@2:alone"
CRASH, KILL, DISTURBED, RAISED = "b@2:child_exit_3", "b@2:child_killed", "b@2:child_disturbed", "b@2:child_raised"
SEGFAULT, NONSENSE = "b@2:child_signal_SIGSEGV@1700000000", "b@2:child_nonsense@1700000000"


@pytest.mark.promise(5)
@pytest.mark.parametrize(
    ("blame", "expected"),
    [
        ([], Stage.CLEAR),
        ([LEFT, LEFT], Stage.CLEAR),
        ([GONE], Stage.SUSPECT),
        ([EXPIRED], Stage.SUSPECT),
        ([GONE, LEFT], Stage.SUSPECT),
        ([GONE] * 20, Stage.SUSPECT),
        (["a@1:what is this", "?"], Stage.CLEAR),
        # A child that crashes
        ([GONE, CRASH], Stage.ISOLATED),
        ([CRASH], Stage.ISOLATED),
        ([GONE, CRASH, SEGFAULT], Stage.QUARANTINED),
        ([CRASH, "c@3:left", SEGFAULT], Stage.QUARANTINED),
        ([NONSENSE], Stage.ISOLATED),
        ([CRASH, NONSENSE], Stage.QUARANTINED),
        # A child that is killed
        ([GONE, *[KILL] * (DEATHS_TO_QUARANTINE - 1)], Stage.ISOLATED),
        ([GONE, *[KILL] * DEATHS_TO_QUARANTINE], Stage.QUARANTINED),
        ([CRASH, *[KILL] * (DEATHS_TO_QUARANTINE - 1)], Stage.QUARANTINED),
        # A bystander that is killed, too
        ([DISTURBED], Stage.ISOLATED),
        ([*[KILL] * (DEATHS_TO_QUARANTINE - 1), DISTURBED, *[KILL] * (DEATHS_TO_QUARANTINE - 1)], Stage.ISOLATED),
        ([*[KILL] * (DEATHS_TO_QUARANTINE - 1), DISTURBED, *[KILL] * DEATHS_TO_QUARANTINE], Stage.QUARANTINED),
        ([CRASH, DISTURBED, CRASH], Stage.QUARANTINED),
        # A child that lives on
        ([GONE, RAISED], Stage.CLEAR),
        ([GONE, CRASH, RAISED, CRASH], Stage.ISOLATED),
        ([GONE, RAISED, GONE], Stage.SUSPECT),
        # Alone in a member
        ([GONE, ALONE, "b@2:process_gone"], Stage.QUARANTINED),
        ([GONE, ALONE, "b@3:process_gone"], Stage.SUSPECT),
        ([GONE, ALONE, "b@2:left", "b@2:process_gone"], Stage.SUSPECT),
        ([GONE, *[ALONE, "b@2:lease_expired"] * 2], Stage.SUSPECT),
        ([GONE, *[ALONE, "b@2:lease_expired"] * 3], Stage.QUARANTINED),
    ],
)
def test_stages(blame: list[str], expected: Stage) -> None:
    """How far it has come with a task."""
    assert stage(blame) is expected


@pytest.mark.promise(5)
@given(st.lists(st.sampled_from([GONE, EXPIRED, LEFT, "c@9:process_gone"])))
def test_deaths_of_members_alone_convict_nobody(blame: list[str]) -> None:
    """However many there are: others ran there, too."""
    assert stage(blame) is not Stage.QUARANTINED


@pytest.mark.promise(5)
@given(st.lists(st.sampled_from([GONE, LEFT, KILL, DISTURBED, RAISED]), max_size=DEATHS_TO_QUARANTINE + 3))
def test_kills_convict_only_in_a_row(blame: list[str]) -> None:
    """With a bystander unharmed, and no run that came through in between."""
    last = max([-1, *(n for n, each in enumerate(blame) if each in (DISTURBED, RAISED))])
    assert (stage(blame) is Stage.QUARANTINED) == (blame[last + 1 :].count(KILL) >= DEATHS_TO_QUARANTINE)
