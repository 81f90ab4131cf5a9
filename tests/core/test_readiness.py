"""Whether one that stands by could take over, and what becomes of those that could not."""

import threading
from dataclasses import replace

import pytest
from core.by_hand import incarnation, submit, work_off
from core_kit import KEYS, Group, all_run, member, picture

from smoothcluster.cluster import Cluster
from smoothcluster.election import PATIENCE, candidates, fit, seat_to_claim
from smoothcluster.incarnation import SETTLE
from smoothcluster.member import MemberLoop
from smoothcluster.model import Role
from smoothcluster.readiness import LARGEST, LONGEST, Readiness
from smoothcluster.testing import HeldClock, eventually


def unfit_because(loop: MemberLoop, reason: str | None) -> None:
    """Have a member find this."""
    loop._around = replace(loop._around, unfit=lambda: reason)  # pyright: ignore[reportPrivateUsage]


def test_without_a_check_nothing_speaks_against_it() -> None:
    """And no thread is started."""
    before = threading.active_count()
    readiness = Readiness(None, lambda: True, lambda: None, HeldClock())
    readiness.start()
    assert (readiness.unfit(), threading.active_count()) == (None, before)


def test_what_the_check_raises_is_the_reason() -> None:
    """Told when it changes, and cut if it is long."""
    told: list[str | None] = []
    fails = [ValueError("no proxy " + "x" * 500), SystemExit(3)]

    def check() -> None:
        if fails:
            raise fails[0]

    readiness = Readiness(check, lambda: True, lambda: told.append(readiness.unfit()), HeldClock())
    readiness.look()
    readiness.look()
    fails.pop(0)
    readiness.look()
    fails.pop(0)
    readiness.look()
    assert [reason and reason[:35] for reason in told] == [
        "warm_up raised ValueError: no proxy", "warm_up raised SystemExit: 3", None,
    ]  # fmt: skip
    assert len(told[0] or "") == LARGEST


def test_a_check_that_does_not_come_back_counts_as_failed() -> None:
    """After a while."""
    clock, gate = HeldClock(), threading.Event()
    readiness = Readiness(gate.wait, lambda: True, lambda: None, clock)
    readiness.start()
    eventually(lambda: readiness._began is not None)  # pyright: ignore[reportPrivateUsage]
    assert readiness.unfit() is None
    clock.advance(LONGEST + 1)
    assert "has not come back" in (readiness.unfit() or "")
    gate.set()
    eventually(lambda: readiness.unfit() is None)
    readiness.stop()


def test_only_who_stands_by_checks_itself() -> None:
    """A Runner shows by its work what it can do."""
    clock, calls, standing = HeldClock(), list[int](), [False]
    readiness = Readiness(lambda: calls.append(1), lambda: standing[0], lambda: None, clock)
    readiness.start()
    eventually(lambda: clock.waits)
    assert calls == []
    standing[0] = True
    clock.advance(60.0)
    eventually(lambda: calls == [1])
    readiness.stop()


def test_who_is_unfit_comes_last_and_claims_nothing_while_others_are_there() -> None:
    """Neither by its turn nor by waiting."""
    bad = replace(member("bad", 1), unfit="no proxy")
    view = picture([bad, member("good", 2), member("r", 0, seat=1)], ["gone", "r"], ["gone"])
    assert [each.name for each in candidates(view, "good")] == ["good", "bad"]
    assert fit(view, "bad") == ["good"]
    assert seat_to_claim(view, "bad", {}, 1000.0, 10.0, vacant_since={0: 0.0}) is None
    assert seat_to_claim(view, "good", {}, 0.0, 10.0) is not None


def test_one_that_is_unfit_and_alone_takes_over_all_the_same() -> None:
    """It may fail; without it nothing would be done for sure."""
    bad = replace(member("bad", 1), unfit="no proxy")
    assert seat_to_claim(picture([bad], ["gone"], ["gone"]), "bad", {}, 0.0, 10.0) is not None
    assert all_run([bad], ["gone"]).runners() == ["bad"]
    assert all_run([bad, member("good", 2)], ["gone"]).runners() == ["good"]


@pytest.mark.parametrize("backup", [2, None])
def test_an_unfit_standby_is_shown_and_passed_over(backup: int | None) -> None:
    """By the next one; when it is well again it pushes nobody out."""
    group = Group(runner=1, backup=backup)
    loops = [group.member() for _ in range(3)]
    group.turn(*loops)
    unfit_because(loops[1], "warm_up raised OSError: no route")
    group.turn(*loops)
    status = Cluster(group.backend, "g", clock=group.clock).status()
    unfit = {each["name"]: each["unfit"] for each in status["members"]}
    assert unfit == {"m_0": None, "m_1": "warm_up raised OSError: no route", "m_2": None}
    assert "fitness" in group.kinds("m_1")
    group.clock.advance(SETTLE)
    group.turn(*loops)
    for loop in loops[1:]:
        loop.proved_gone(incarnation(loops[0]))
    group.turn(*loops[1:])
    assert (group.owners(), loops[2].role) == (["m_2"] * 4, Role.RUNNER)
    unfit_because(loops[1], None)
    group.turn(*loops[1:])
    assert (group.owners(), loops[1].role) == (["m_2"] * 4, Role.BACKUP_RUNNER)
    assert group.view().members[incarnation(loops[1])].record.unfit is None


def test_a_runner_is_never_unfit() -> None:
    """Whatever it finds."""
    group = Group(runner=1, backup=0)
    loop = group.member()
    unfit_because(loop, "no proxy")
    group.turn(loop)
    assert group.view().members[incarnation(loop)].record.unfit is None
    assert group.kinds("m_0").count("fitness") == 0


def test_a_standby_that_does_nothing_is_passed_by_after_a_moment() -> None:
    """It is stopped, say, and its lease has not run out: the second does not wait for that."""
    group = Group(runner=1, backup=2)
    loops = [group.member() for _ in range(3)]
    group.turn(*loops)
    cluster = submit(group, 10)
    loops[2].proved_gone(incarnation(loops[0]))
    group.turn(loops[2], times=4)
    assert group.owners() == [None] * 4 or group.owners() == ["m_0"] * 4
    group.clock.advance(PATIENCE / 2)
    group.turn(loops[2], times=4)
    assert loops[2].role is Role.BACKUP_RUNNER, "it is not its turn yet"
    for _ in range(3):
        group.clock.advance(PATIENCE / 2)
        group.turn(loops[2], times=4)
    assert (loops[2].role, group.owners()) == (Role.RUNNER, ["m_2"] * 4)
    work_off(group, loops[2])
    assert cluster.job("j").progress().done == 10


def test_runners_do_not_wait_for_ever_for_standbys_that_do_nothing() -> None:
    """Once each of those has had its turn, the others take the shards."""
    group = Group(runner=2, backup=1)
    loops = [group.member() for _ in range(3)]
    group.turn(*loops, times=20)
    loops[1].proved_gone(incarnation(loops[0]))
    for _ in range(5):
        group.turn(loops[1], times=4)
        group.clock.advance(PATIENCE / 2)
    group.turn(loops[1], times=4)
    assert group.owners() == ["m_1"] * 4
    assert KEYS.member(incarnation(loops[2])), "whose lease still lasts"
