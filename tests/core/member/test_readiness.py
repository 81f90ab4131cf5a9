"""Whether one that stands by could take over, and what becomes of those that could not."""

# pyright: reportPrivateUsage=false
# What a member finds about itself is nobody else's to set.

import threading
from dataclasses import dataclass, field, replace
from typing import final

import pytest
from core.by_hand import incarnation, submit, work_off
from core_kit import KEYS, Group, Kennel, all_run, member, picture, put

from smoothcluster.cluster import Cluster
from smoothcluster.group.election import CANDIDATE_TURN_SECONDS, Observation, candidates, fit, seat_to_claim
from smoothcluster.member.loop import MemberLoop
from smoothcluster.member.readiness import (
    CHECK_INTERVAL_SECONDS,
    FIRST_CHECK_DELAY_SECONDS,
    LONGEST_CHECK_SECONDS,
    LONGEST_REASON_CHARACTERS,
    WARM_UP_RETRY_SECONDS,
    Fitness,
    Readiness,
)
from smoothcluster.member.schedule import CLAIMANT_HEAD_START_SECONDS
from smoothcluster.model import Role
from smoothcluster.testing import Faulty, HeldClock, eventually


def unfit_because(loop: MemberLoop, reason: str | None, checked: int | None = 7) -> None:
    """Have a member find this."""
    found = Fitness(reason, checked)
    loop._environment = replace(loop._environment, fitness=lambda: found)
    if loop.life is not None:
        loop.life._environment = loop._environment


@final
@dataclass
class Checks:
    """The checks of a member that stands by, on a clock of their own, and what is told of them."""

    clock: HeldClock = field(default_factory=HeldClock)
    import_fails: str | None = None
    raises: BaseException | None = None
    imports: int = 0
    standing_by: bool = True
    told: list[str | None] = field(default_factory=list[str | None])

    def __post_init__(self) -> None:
        self.readiness = Readiness(self._import, self._warm_up, lambda: self.standing_by, self._tell, self.clock)

    def _import(self) -> str | None:
        self.imports += 1
        return self.import_fails

    def _warm_up(self) -> None:
        if self.raises is not None:
            raise self.raises

    def _tell(self) -> None:
        self.told.append(self.readiness.fitness().unfit)

    def check(self, after: float = 0.0) -> Fitness:
        """What one more check finds, so much later."""
        self.clock.advance(after)
        self.readiness.check()
        return self.readiness.fitness()


def test_before_the_first_check_nothing_is_known() -> None:
    """After it, when that was; without a check of the user's, too."""
    checks = Checks()
    assert checks.readiness.fitness() == Fitness(None, None)
    assert checks.check() == Fitness(None, 1_600_001_000)
    plain = Readiness(lambda: None, None, lambda: True, lambda: None, checks.clock)
    plain.check()
    assert plain.fitness() == Fitness(None, 1_600_001_000)


def test_what_the_check_raises_is_the_reason() -> None:
    """Told when it changes, and cut if it is long."""
    checks = Checks(raises=ValueError("no proxy " + "x" * 500))
    checks.check()
    checks.check(after=1.0)
    checks.raises = SystemExit(3)
    checks.check()
    checks.raises = None
    checks.check()
    assert [reason and reason[:35] for reason in checks.told] == [
        "warm_up raised ValueError: no proxy", "warm_up raised SystemExit: 3", None,
    ]  # fmt: skip
    assert len(checks.told[0] or "") == LONGEST_REASON_CHARACTERS


def test_that_all_is_as_before_is_told_now_and_then() -> None:
    """Not every second, while something fails: each time is a commit."""
    checks = Checks(raises=OSError("no"))
    for _ in range(10):
        checks.check(after=WARM_UP_RETRY_SECONDS)
    assert len(checks.told) == 1
    checks.check(after=CHECK_INTERVAL_SECONDS)
    assert len(checks.told) == 2
    assert checks.readiness.fitness().checked == 1_600_001_040


def test_that_no_child_can_import_the_handler_is_a_reason() -> None:
    """It is tried again now and then, since that takes a process, and never again once it has worked."""
    checks = Checks(import_fails="ImportError: no parser")
    assert checks.check().unfit == "no child process can import the handler: ImportError: no parser"
    checks.import_fails = None
    assert checks.check(after=CHECK_INTERVAL_SECONDS / 2).unfit is not None
    assert checks.check(after=CHECK_INTERVAL_SECONDS / 2).unfit is None
    checks.check(after=10 * CHECK_INTERVAL_SECONDS)
    assert checks.imports == 2


def test_a_check_that_does_not_come_back_counts_as_failed() -> None:
    """After a while."""
    clock, gate = HeldClock(), threading.Event()
    readiness = Readiness(lambda: None, gate.wait, lambda: True, lambda: None, clock)
    readiness.start()
    eventually(lambda: clock.waiting)
    clock.advance(FIRST_CHECK_DELAY_SECONDS)
    eventually(lambda: readiness._began is not None)
    assert readiness.fitness().unfit is None
    clock.advance(LONGEST_CHECK_SECONDS + 1)
    assert "has not ended" in (readiness.fitness().unfit or "")
    gate.set()
    eventually(lambda: readiness.fitness().unfit is None)
    readiness.stop()


def test_only_who_stands_by_checks_itself() -> None:
    """A Runner shows by its work what it can do. And nobody does at once: whoever starts to work goes first."""
    checks = Checks(standing_by=False)
    checks.readiness.start()
    eventually(lambda: checks.clock.waiting)
    checks.clock.advance(FIRST_CHECK_DELAY_SECONDS)
    eventually(lambda: checks.clock.waiting)
    assert checks.imports == 0
    checks.standing_by = True
    checks.clock.advance(CHECK_INTERVAL_SECONDS)
    eventually(lambda: checks.imports == 1)
    checks.readiness.stop()


def test_what_fails_is_tried_again_soon() -> None:
    """The user's own check, that is."""
    checks = Checks(raises=OSError("no route"))
    checks.readiness.start()
    eventually(lambda: checks.clock.waiting)
    checks.clock.advance(FIRST_CHECK_DELAY_SECONDS)
    eventually(lambda: checks.told and checks.clock.waiting)
    checks.raises = None
    checks.clock.advance(WARM_UP_RETRY_SECONDS)
    eventually(lambda: len(checks.told) == 2)
    assert checks.readiness.fitness().unfit is None
    checks.readiness.stop()


def test_who_is_unfit_comes_last_and_claims_nothing_while_others_are_there() -> None:
    """Neither by its turn nor by waiting."""
    bad = replace(member("bad", 1), unfit="no proxy")
    view = picture([bad, member("good", 2), member("r", 0, seat=1)], ["gone", "r"], ["gone"])
    assert [each.name for each in candidates(view, "good")] == ["good", "bad"]
    assert fit(view, "bad") == ["good"]
    assert seat_to_claim(view, "bad", Observation(1000.0, 10.0, {}, {0: 0.0})) is None
    assert seat_to_claim(view, "good", Observation(0.0, 10.0, {})) is not None


def test_one_that_is_unfit_and_alone_takes_over_all_the_same() -> None:
    """It may fail; without it nothing would be done for sure."""
    bad = replace(member("bad", 1), unfit="no proxy")
    assert seat_to_claim(picture([bad], ["gone"], ["gone"]), "bad", Observation(0.0, 10.0, {})) is not None
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
    group.clock.advance(CLAIMANT_HEAD_START_SECONDS)
    group.turn(*loops)
    for loop in loops[1:]:
        loop.inbox.proved_gone(incarnation(loops[0]))
    group.turn(*loops[1:])
    assert (group.owners(), loops[2].role) == (["m_2"] * 4, Role.RUNNER)
    unfit_because(loops[1], None)
    group.turn(*loops[1:])
    assert (group.owners(), loops[1].role) == (["m_2"] * 4, Role.BACKUP_RUNNER)
    assert group.view().members[incarnation(loops[1])].record.unfit is None


def test_when_it_was_checked_is_written_as_a_claim_is() -> None:
    """By a commit that compares its own record: what the store does not take is not shown, and holds all else up."""
    group = Group(runner=1, backup=1)
    backend = Faulty(group.backend)
    loops = [group.member(), group.member(backend=backend)]
    group.turn(*loops)

    def checked() -> int | None:
        return group.view().members[incarnation(loops[1])].record.checked

    assert checked() is None
    unfit_because(loops[1], None, 7)
    backend.refuse("commit", 3)
    group.turn(loops[1])
    assert checked() is None
    for _ in range(10):
        group.clock.advance(1.0)
        group.renew(*loops)
        group.turn(*loops)
    assert checked() == 7
    assert "fitness" not in group.kinds("m_1"), "that all is well is no event"
    unfit_because(loops[0], None, 8)
    group.turn(loops[0])
    assert group.view().members[incarnation(loops[0])].record.checked is None, "a Runner is not asked"


def test_who_learns_that_children_cannot_run_the_handler_says_so() -> None:
    """A Runner, too: suspects are run alone in it from then on."""
    group = Group(runner=1, backup=0)
    loop = group.member()
    cluster = Cluster(group.backend, "g", clock=group.clock)
    assert loop.life is not None
    for can, said in ((None, "apart"), (False, "alone"), (True, "apart")):
        loop._environment = loop.life._environment = replace(loop._environment, apart=Kennel(can=can))
        group.turn(loop)
        assert cluster.status()["members"][0]["suspects"] == said


def test_what_was_found_is_told_again_if_the_record_had_changed() -> None:
    """By somebody's gift, say: that is not written over."""
    group = Group(runner=1, backup=1)
    runner, standby = group.member(), group.member()
    group.turn(runner, standby)
    assert standby.life is not None
    put(group.backend, KEYS.member(standby.life.id), replace(standby.life.me.record, id="gift").to_json())
    unfit_because(standby, "no disk")
    standby.life.publish(running=True)
    assert (group.view().members[standby.life.id].record.id, group.kinds("m_1").count("fitness")) == ("gift", 0)
    group.turn(standby)
    assert (group.view().members[standby.life.id].record.unfit, group.kinds("m_1").count("fitness")) == ("no disk", 1)


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
    loops[2].inbox.proved_gone(incarnation(loops[0]))
    group.turn(loops[2], times=4)
    assert group.owners() == [None] * 4 or group.owners() == ["m_0"] * 4
    group.clock.advance(CANDIDATE_TURN_SECONDS / 2)
    group.turn(loops[2], times=4)
    assert loops[2].role is Role.BACKUP_RUNNER, "it is not its turn yet"
    for _ in range(3):
        group.clock.advance(CANDIDATE_TURN_SECONDS / 2)
        group.turn(loops[2], times=4)
    assert (loops[2].role, group.owners()) == (Role.RUNNER, ["m_2"] * 4)
    work_off(group, loops[2])
    assert cluster.job("j").progress().done == 10


def test_runners_do_not_wait_for_ever_for_standbys_that_do_nothing() -> None:
    """Once each of those has had its turn, the others take the shards."""
    group = Group(runner=2, backup=1)
    loops = [group.member() for _ in range(3)]
    group.turn(*loops, times=20)
    loops[1].inbox.proved_gone(incarnation(loops[0]))
    for _ in range(5):
        group.turn(loops[1], times=4)
        group.clock.advance(CANDIDATE_TURN_SECONDS / 2)
    group.turn(loops[1], times=4)
    assert group.owners() == ["m_1"] * 4
    assert KEYS.member(incarnation(loops[2])), "whose lease still lasts"
