"""An outage of the store in the log of a member: one line for each reason, and an end once commits succeed again."""

import pytest
from core.by_hand import submit, work_off
from core_kit import Group

from smoothcluster.errors import BackendClosedError
from smoothcluster.member.loop import LONGEST_RETRY_PAUSE_SECONDS
from smoothcluster.member.outage import MOST_REASONS_PER_REMINDER, OUTAGE_REMINDER_SECONDS, Outage
from smoothcluster.memory import MemoryBackend
from smoothcluster.model import Role
from smoothcluster.testing import Faulty, HeldClock

UNAVAILABLE, AVAILABLE = "the store is unavailable", "the store is available again"


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says, without the reasons."""
    return [message.partition(":")[0] for message in caplog.messages]


def test_a_store_that_only_reads_is_not_available_again(caplog: pytest.LogCaptureFixture) -> None:
    """A full store answers reads and renewals and refuses commits: that is one outage, which commits alone end."""
    group = Group()
    faulty = Faulty(MemoryBackend(group.store))
    loop = group.member(backend=faulty)
    cluster = submit(group, 30)
    work_off(group, loop, rounds=20)
    assert cluster.job("j").progress().finished
    assert cluster.jobs() == {"j": "sealed"}, "the first cleanup came before the end of the job, the next is due later"
    faulty.refuse("commit", times=1000)
    for _ in range(60):
        group.clock.advance(LONGEST_RETRY_PAUSE_SECONDS / 2)
        group.renew(loop)
        loop.step()
    assert said(caplog) == [UNAVAILABLE]
    faulty._line.faults.clear()  # pyright: ignore[reportPrivateUsage]
    group.clock.advance(LONGEST_RETRY_PAUSE_SECONDS)
    group.turn(loop)
    assert said(caplog) == [UNAVAILABLE, AVAILABLE]


def test_reasons_that_alternate_are_told_once_each(caplog: pytest.LogCaptureFixture) -> None:
    """Such as the failures of several servers; and few of them in a minute."""
    clock = HeldClock()
    outage = Outage(clock)
    for number in range(20):
        outage.warn(f"server {number % 2}")
        clock.advance(1.0)
    assert len(caplog.messages) == 2
    clock.advance(OUTAGE_REMINDER_SECONDS)
    for number in range(20):
        outage.warn(f"number {number}")
    assert len(caplog.messages) == 2 + MOST_REASONS_PER_REMINDER
    outage.end()
    outage.end()
    assert said(caplog)[-2:] == [UNAVAILABLE, AVAILABLE]


def test_a_member_whose_lease_may_be_over_has_no_role() -> None:
    """Another may have its seat. When the store says that the lease is alive, it is a Runner again."""
    group = Group()
    faulty = Faulty(MemoryBackend(group.store))
    loop = group.member(backend=faulty)
    group.turn(loop)
    faulty.cut()
    assert loop.role is Role.RUNNER
    assert loop.session is not None
    group.clock.advance(loop.session.ttl * 0.9)
    loop.step()
    assert loop.role is Role.RUNNER
    group.clock.advance(loop.session.ttl * 0.2)
    loop.step()
    assert loop.role is None


def test_a_backend_closed_too_early_ends_the_member(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing can bring it back: that is said at once, with what to do, and nothing is tried again."""
    group = Group()
    backend = MemoryBackend(group.store)
    loop = group.member(backend=backend, grace=60.0)
    backend.close()
    with pytest.raises(BackendClosedError, match=r"closed before m_0 left .* call stop\(\) first") as caught:
        loop.run()
    assert isinstance(caught.value.__cause__, BackendClosedError)
    assert (loop.role, caplog.messages) == (None, [])


def test_so_it_does_while_it_leaves() -> None:
    """The grace period is not waited for."""
    group = Group()
    backend = MemoryBackend(group.store)
    loop = group.member(backend=backend, grace=1e9)
    loop.inbox.ask_to_leave()
    backend.close()
    with pytest.raises(BackendClosedError, match="closed before"):
        loop.run()
