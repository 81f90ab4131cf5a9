"""Signals that ask a member to leave, as service managers and shells send them."""

import signal

import pytest
from cluster.group import NewGroup, named


@pytest.mark.promise(3)
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_signals_within_a_second_count_once(new_group: NewGroup, second: signal.Signals) -> None:
    """`timeout`, service managers and kills of a process group send several: the member leaves as after one."""
    group = new_group(runner=1, backup=0, grace=60.0)
    leaver = group.start_one()
    job = group.submit(20, hold="gate")
    group.busy(leaver, tasks=8)
    for number in (signal.SIGTERM, second, second):
        leaver.signal(number)
    group.eventually(lambda: "the member leaves the group" in leaver.errors)
    group.open("gate")
    assert leaver.status() == 0
    group.start_one()
    group.finish(job, named(20))
