"""A member as one loop, turned by hand: it joins, takes over, hands over, survives the store, and leaves."""

from collections.abc import Callable
from typing import Any

import pytest
from core.by_hand import incarnation, submit, work_off
from core.children_kit import new_run
from core_kit import KEYS, Group, Kennel, put

from smoothcluster.backend import Delete
from smoothcluster.errors import LeaseLostError, NameInUseError, UnavailableError
from smoothcluster.member.claims import SUCCESSOR_HEAD_START_SECONDS
from smoothcluster.member.loop import (
    FIRST_RETRY_PAUSE_SECONDS,
    LONGEST_RETRY_PAUSE_SECONDS,
    MemberLoop,
)
from smoothcluster.member.outage import OUTAGE_REMINDER_SECONDS
from smoothcluster.member.schedule import CLAIMANT_HEAD_START_SECONDS, RECHECK_SECONDS
from smoothcluster.memory import MemoryBackend
from smoothcluster.model import Role
from smoothcluster.records.shard import Shard
from smoothcluster.testing import Faulty


def test_roles_are_settled_at_construction() -> None:
    """The first are Runners, the rest stand by."""
    group = Group(runner=2, backup=1)
    roles = [group.member().role for _ in range(4)]
    assert roles == [Role.RUNNER, Role.RUNNER, Role.BACKUP_RUNNER, Role.BACKUP_RUNNER]


def test_before_it_has_joined_a_member_has_no_role() -> None:
    """Nor a name."""
    loop = Group().member(join=False)
    assert (loop.role, loop.name) == (None, None)


def test_a_strangers_directory_where_a_seat_should_be_is_reported_and_waited_out() -> None:
    """Nobody can take that seat; whoever would, looks again in a moment, and has it when it is free."""
    group = Group()
    stray = f"{KEYS.seat(0)}/stray"
    put(group.backend, stray, b"")
    loop = group.member()
    group.turn(loop)
    assert (loop.role, "garbage" in group.kinds("m_0")) == (Role.BACKUP_RUNNER, True)
    group.backend.commit([], [Delete(stray)])
    group.clock.advance(RECHECK_SECONDS)
    group.turn(loop)
    assert loop.role is Role.RUNNER


def test_one_runner_takes_all_shards_and_does_all_tasks() -> None:
    """Each once."""
    group = Group()
    loop = group.member()
    cluster = submit(group, 50)
    work_off(group, loop)
    assert group.owners() == ["m_0"] * 4
    assert cluster.job("j").progress().finished
    assert sorted(each.task_id for each in cluster.job("j").results()) == sorted(f"j.{n}" for n in range(50))


def test_a_newcomer_is_given_its_share() -> None:
    """By the one that has too much."""
    group = Group(runner=2)
    first = group.member()
    group.turn(first)
    second = group.member()
    work_off(group, first, second, rounds=3)
    assert sorted(map(str, group.owners())) == ["m_0", "m_0", "m_1", "m_1"]
    assert "handover" in group.kinds("m_0")


def test_a_busy_shard_is_given_when_its_tasks_are_recorded() -> None:
    """What runs is finished where it runs."""
    group = Group(runner=2, shards=1)
    first = group.member()
    submit(group, 2)
    group.turn(first)
    group.pool(first).start()
    second = group.member()
    group.turn(first, second)
    assert group.owners() == ["m_0"], "one shard cannot be shared"


@pytest.mark.promise(7)
def test_the_first_backup_takes_seat_and_shards_of_one_proved_dead() -> None:
    """At once, without waiting for its lease; what it left half done is run again and finished."""
    group = Group(runner=1, backup=1)
    first, second = group.member(), group.member()
    cluster = submit(group, 10)
    group.turn(first, second)
    group.pool(first).start()
    second.inbox.proved_gone(incarnation(first), 0.001)
    group.turn(second)
    assert (second.role, group.owners()) == (Role.RUNNER, ["m_1"] * 4)
    assert set(group.view().living()) == {incarnation(second)}, "the dead is buried"
    work_off(group, second)
    assert cluster.job("j").progress().finished
    assert {each.runner for each in cluster.job("j").results()} == {"m_1"}
    assert "handover" in group.kinds("m_1")


def test_a_takeover_takes_one_reading_and_one_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then tasks start: what they are read from came with the reading."""
    group = Group(runner=1, backup=1, shards=1)
    first, second = group.member(), group.member(apart=Kennel(up=9))
    submit(group, 10)
    group.turn(first)
    group.clock.advance(4.0)
    group.turn(second)  # It looks, and sees the open chunk.
    steps: list[str] = []

    def noted(of: object, name: str) -> None:
        step: Callable[..., object] = getattr(of, name)

        def noting(*given: object) -> object:
            steps.append(name)
            return step(*given)

        monkeypatch.setattr(of, name, noting)

    for name in ("get_many", "list", "keys", "commit"):
        noted(MemoryBackend, name)
    noted(group.pool(second), "put")
    second.inbox.proved_gone(incarnation(first), 0.001)
    group.turn(second, times=1)
    assert steps[: steps.index("put")] == ["get_many", "commit"]


@pytest.mark.promise(1)
def test_of_two_that_die_at_once_a_backup_replaces_one() -> None:
    """The second proof comes before it has looked again: the seat it has claimed counts all the same."""
    group = Group(runner=2, backup=1)
    loops = [group.member() for _ in range(3)]
    group.turn(*loops)
    for dead in (loops[1], loops[0]):
        loops[2].inbox.proved_gone(incarnation(dead))
        loops[2].step()
    group.turn(loops[2])
    assert [seat.record.holder for seat in group.view().seats].count(incarnation(loops[2])) == 1


def test_a_runner_leaves_shards_to_a_backup_that_it_has_not_seen_yet() -> None:
    """Its last look may be older than the Backup Runner, so it looks again before it takes what has no owner."""
    group = Group(runner=2, backup=1)
    first, second = group.member(), group.member()
    group.turn(first, second, times=20)
    third = group.member()
    second.inbox.proved_gone(incarnation(first))
    group.turn(second)
    assert group.owners().count("m_1") == 2
    third.inbox.proved_gone(incarnation(first))
    group.turn(third)
    assert (third.role, group.owners().count("m_2")) == (Role.RUNNER, 2)


@pytest.mark.promise(2)
def test_one_taken_for_dead_finds_out_and_joins_anew() -> None:
    """Its late outcomes are refused; it has a new incarnation and the old name, and is told of in an event."""
    group = Group(runner=1, backup=1)
    first, second = group.member(), group.member()
    submit(group, 4)
    group.turn(first, second)
    group.pool(first).start()
    before = incarnation(first)
    second.inbox.proved_gone(before)
    group.turn(second)
    group.pool(first).finish()
    group.turn(first)
    assert (first.name, first.role) == ("m_0", Role.BACKUP_RUNNER)
    assert incarnation(first) != before
    assert "lease_lost" in group.kinds("m_0")


def port(group: Group, loop: MemberLoop) -> int:
    """The port in the record of a member."""
    return group.view().members[incarnation(loop)].record.port


def test_one_removed_while_its_lease_was_alive_announces_no_port_from_then_on(caplog: pytest.LogCaptureFixture) -> None:
    """What misled others once would do so again. Its lease still tells of its end; the log and an event say so."""
    group = Group(runner=1, backup=1)
    first, second = group.member(), group.member()
    group.turn(first, second)
    assert port(group, first) > 0
    second.inbox.proved_gone(incarnation(first))
    group.turn(second, first)
    assert port(group, first) == 0
    told = [event["why"] for event in group.events("m_0") if event["kind"] == "lease_lost"]
    assert len(told) == 1
    assert "announces no port" in str(told[0])
    assert str(told[0]) in caplog.text
    group.clock.advance(group.ttl / 2)
    group.renew(second)
    group.clock.advance(group.ttl)
    group.renew(second)
    group.turn(first, second)
    assert port(group, first) == 0, "in every later incarnation"
    group.turn(second)
    assert group.watched["p1"] == set()
    assert port(group, second) > 0


def test_one_whose_lease_ran_out_announces_its_port_again() -> None:
    """Nobody was wrong."""
    group = Group()
    loop = group.member()
    group.turn(loop)
    before = incarnation(loop)
    group.clock.advance(2 * group.ttl)
    group.turn(loop)
    assert incarnation(loop) != before
    assert port(group, loop) > 0
    assert "announces no port" not in str(group.events("m_0"))


def test_a_store_that_lost_record_and_lease_costs_nobody_the_port() -> None:
    """By its own clock the lease is alive, but it is not another member that was wrong."""
    group = Group()
    loop = group.member()
    group.turn(loop)
    before, session = incarnation(loop), loop.session
    assert session is not None
    session.lease.revoke()
    assert session.held()
    group.turn(loop)
    assert incarnation(loop) != before
    assert port(group, loop) > 0


def test_a_record_that_the_member_has_deleted_itself_blames_nobody() -> None:
    """The answer to its last commit was lost, and it looks again."""
    group = Group()
    loop = group.member()
    group.turn(loop)
    life = loop.life
    assert life is not None
    life.stop_starting()
    assert life.release()
    with pytest.raises(LeaseLostError, match="record is gone"):
        life.release()
    assert not life.removed


@pytest.mark.promise(7)
def test_a_lease_that_ran_out_frees_seat_and_shards() -> None:
    """A machine that was cut off is replaced, too."""
    group = Group(runner=1, backup=1)
    first, second = group.member(), group.member()
    group.turn(first, second)
    group.clock.advance(group.ttl / 2)
    group.renew(second)
    group.clock.advance(group.ttl / 2)
    group.turn(second)
    assert (second.role, group.owners()) == (Role.RUNNER, ["m_1"] * 4)


def test_where_all_are_runners_survivors_share_what_the_dead_had() -> None:
    """There are seats for all, and nobody takes all."""
    group = Group(runner=3, shards=6)
    loops = [group.member() for _ in range(3)]
    group.turn(*loops, times=20)
    assert sorted(map(str, group.owners())) == ["m_0"] * 2 + ["m_1"] * 2 + ["m_2"] * 2
    for loop in loops[1:]:
        loop.inbox.proved_gone(incarnation(loops[0]))
    for _ in range(6):
        group.turn(*loops[1:], times=4)
        group.clock.advance(0.05)
    assert sorted(map(str, group.owners())) == ["m_1"] * 3 + ["m_2"] * 3


def test_a_dead_member_that_owned_nothing_is_buried() -> None:
    """Its name is free at once."""
    group = Group(runner=1, backup=1)
    first, second = group.member(), group.member()
    group.turn(first, second)
    first.inbox.proved_gone(incarnation(second))
    group.turn(first)
    for _ in range(5):
        group.clock.advance(RECHECK_SECONDS)
        group.turn(first, times=2)
    assert set(group.view().members) == {incarnation(first)}


def test_whoever_knows_buries_a_dead_one_whose_heir_does_not() -> None:
    """After giving the heir a moment."""
    group = Group(runner=2, backup=1)
    loops = [group.member() for _ in range(3)]
    group.turn(*loops)
    loops[1].inbox.proved_gone(incarnation(loops[0]))
    group.turn(loops[1], times=2)
    assert incarnation(loops[0]) in group.view().members
    for _ in range(5):
        group.clock.advance(SUCCESSOR_HEAD_START_SECONDS / 2)
        group.turn(loops[1], times=2)
    assert incarnation(loops[0]) not in group.view().members


@pytest.mark.parametrize("value", [b"nonsense", b'{"runner":1,"backup":0,"shards":30000000,"joins":2,"id":""}'])
def test_an_unreadable_spec_stops_nobody(value: bytes) -> None:
    """The last good numbers stand; a member that must join anew waits until the numbers can be read again."""
    group = Group(runner=2)
    first, second = group.member(), group.member()
    group.turn(first, second)
    cluster = submit(group, 10)
    good = group.backend.get(KEYS.spec)
    assert good is not None
    put(group.backend, KEYS.spec, value)
    assert second.session is not None
    second.session.lease.revoke()
    for _ in range(10):
        group.clock.advance(1.0)
        group.renew(first)
        group.turn(first, second, times=2)
        group.pool(first).finish()
    assert (first.role, second.role) == (Role.RUNNER, None)
    assert "garbage" in group.kinds("m_0")
    put(group.backend, KEYS.spec, good.value)
    group.clock.advance(LONGEST_RETRY_PAUSE_SECONDS)
    work_off(group, first, second)
    assert second.role is Role.RUNNER
    assert cluster.job("j").progress().finished


@pytest.mark.promise(9)
def test_while_the_store_is_away_outcomes_wait() -> None:
    """Nothing crashes, the pauses grow to a limit, and all is recorded when it is back."""
    group = Group()
    faulty = Faulty(MemoryBackend(group.store))
    loop = group.member(backend=faulty)
    cluster = submit(group, 2)
    group.turn(loop)
    faulty.cut()
    group.pool(loop).finish()
    pauses: list[float] = []
    for _ in range(10):
        pauses.append(loop.step())
        group.clock.advance(pauses[-1])
        if loop.session is not None and len(pauses) < 9:
            group.store.renew(loop.session.lease.id)
    assert pauses[0] == FIRST_RETRY_PAUSE_SECONDS
    assert max(pauses) <= LONGEST_RETRY_PAUSE_SECONDS
    assert pauses == sorted(pauses)
    faulty.mend()
    work_off(group, loop)
    assert cluster.job("j").progress().finished


def test_that_the_store_is_away_is_told_once_and_again_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """A log need not be full of it; and when it is back, that is told, too."""
    group = Group()
    faulty = Faulty(MemoryBackend(group.store))
    loop = group.member(backend=faulty)
    group.turn(loop)
    faulty.cut()
    for _ in range(8):
        group.clock.advance(loop.step())
    assert len(caplog.messages) == 1
    group.clock.advance(OUTAGE_REMINDER_SECONDS)
    loop.step()
    assert [message.partition(":")[0] for message in caplog.messages] == 2 * ["the store is unavailable"]
    faulty.mend()
    group.clock.advance(LONGEST_RETRY_PAUSE_SECONDS)
    group.turn(loop)
    assert "the store is available again" in caplog.messages


@pytest.mark.promise(9)
def test_what_ends_while_the_store_is_away_waits_too() -> None:
    """It is taken from the pool and kept; and when the store is back it is recorded, and not run again."""
    group = Group()
    faulty = Faulty(MemoryBackend(group.store))
    loop = group.member(backend=faulty)
    cluster = submit(group, 2)
    group.turn(loop)
    group.pool(loop).start()
    faulty.cut()
    group.clock.advance(group.ttl / 2)
    loop.step()  # It has to look by now, and finds nobody there.
    assert loop.session is not None
    group.store.renew(loop.session.lease.id)
    group.pool(loop).finish()
    loop.step()
    assert not group.pool(loop).finished
    faulty.mend()
    work_off(group, loop)
    assert [each.attempts for each in cluster.job("j").results()] == [1, 1]
    assert cluster.job("j").progress().finished


@pytest.mark.promise(9)
def test_while_the_store_is_away_no_more_outcomes_wait_than_tasks_are_marked() -> None:
    """What is not marked in the store does not start, so a store that stays away costs a bounded memory."""
    group = Group()
    faulty = Faulty(MemoryBackend(group.store))
    loop = group.member(backend=faulty)
    submit(group, 40)
    group.turn(loop)
    faulty.cut()
    ended = 0
    for _ in range(20):
        ended += group.pool(loop).finish()
        group.clock.advance(group.ttl / 100)
        loop.step()
    assert loop.session is not None
    assert loop.session.held(), "its lease is not what keeps it from starting more"
    assert 0 < ended <= running_tasks(group)


def running_tasks(group: Group) -> int:
    """How many tasks are marked as running in the store."""
    shards = [Shard.from_json(entry.value) for entry in group.backend.list(KEYS.shards)]
    return sum(chunk.run.bit_count() for shard in shards for chunk in shard.open.values())


def test_a_claim_whose_answer_was_lost_is_found_by_looking() -> None:
    """What a member holds is what the store says it holds."""
    group = Group()
    faulty = Faulty(MemoryBackend(group.store))
    loop = group.member(backend=faulty)
    loop.step()
    for _ in range(6):
        faulty.drop_answer()
        group.clock.advance(5.0)
        group.renew(loop)
        group.turn(loop)
    work_off(group, loop, rounds=3)
    assert loop.life is not None
    assert (sorted(loop.life.workload.works), group.owners()) == ([0, 1, 2, 3], ["m_0"] * 4)


def test_who_leaves_hands_back_at_once() -> None:
    """The next look of a backup takes over; nobody waits for a lease."""
    group = Group(runner=1, backup=1)
    first, second = group.member(grace=1.0), group.member()
    group.turn(first, second)
    first.inbox.ask_to_leave()
    first.run()
    assert (first.life, first.session, first.working) == (None, None, False)
    group.turn(second)
    assert (second.role, group.owners()) == (Role.RUNNER, ["m_1"] * 4)


def test_what_still_runs_when_the_grace_period_is_over_is_handed_over() -> None:
    """It is blamed on who left, and run again."""
    group = Group()
    loop = group.member(grace=0.0)
    submit(group, 1)
    group.turn(loop)
    group.pool(loop).start()
    loop.inbox.ask_to_leave()
    loop.run()
    shards = [read.record for read in group.view().shards if read is not None]
    blames = [blame for shard in shards for chunk in shard.open.values() for blame in chunk.blame.values()]
    assert len(blames) == 1
    assert all(shard.owner is None for shard in shards)


def test_who_leaves_while_the_store_is_away_leaves_its_lease_to_run_out() -> None:
    """It ends all the same."""
    group = Group()
    faulty = Faulty(MemoryBackend(group.store))
    loop = group.member(backend=faulty, grace=0.0)
    group.turn(loop)
    faulty.cut()
    loop.inbox.ask_to_leave()
    loop.run()
    assert loop.session is None
    group.clock.advance(group.ttl)
    assert group.view().members == {}


def test_a_member_that_never_joined_leaves_at_once() -> None:
    """There is nothing to let go of."""
    loop = Group().member(join=False)
    loop.inbox.ask_to_leave()
    loop.run()
    assert not loop.working


def test_a_name_that_is_taken_is_waited_for() -> None:
    """The loop does not end for it: after a lost lease its own may still be held."""
    group = Group()
    group.member("x")
    late = group.member("x", join=False)
    with pytest.raises(NameInUseError):
        late.try_join()
    assert late.step() == FIRST_RETRY_PAUSE_SECONDS


def test_a_record_deleted_by_a_stranger_ends_the_incarnation() -> None:
    """And another begins."""
    group = Group()
    loop = group.member()
    group.turn(loop)
    before = incarnation(loop)
    group.backend.commit([], [Delete(KEYS.member(before))])
    group.turn(loop)
    assert incarnation(loop) != before
    assert group.owners() == ["m_0"] * 4


def test_a_store_that_was_emptied_is_told_of_as_that(caplog: pytest.LogCaptureFixture) -> None:
    """The group begins anew, with the numbers that its members know; what it had is gone, which nobody may overlook."""
    group = Group()
    loop = group.member()
    submit(group, 2)
    group.turn(loop)
    group.backend.commit([], [Delete(key) for key in list(group.store.tree.entries)])
    group.turn(loop, times=3)
    assert group.owners() == ["m_0"] * 4
    assert (
        "the store has lost the group with all tasks and outcomes, or was emptied; the group begins anew" in caplog.text
    )


def test_garbage_is_told_in_an_event_and_stepped_over() -> None:
    """The other shards are worked on."""
    group = Group()
    put(group.backend, KEYS.shard(2), b"garbage")
    loop = group.member()
    cluster = submit(group, 40)
    work_off(group, loop)
    assert group.owners() == ["m_0", "m_0", None, "m_0"]
    assert "garbage" in group.kinds("m_0")
    progress = cluster.job("j").progress()
    assert progress.done > 0
    assert not progress.finished


@pytest.mark.promise(2)
def test_a_shard_taken_by_another_is_let_go() -> None:
    """Whoever has a newer epoch is the owner, and what was still to be said is told as fenced."""
    group = Group()
    loop = group.member()
    submit(group, 40)
    group.turn(loop)
    read = group.view().shards[0]
    assert read is not None
    taken = read.record.copy()
    taken.epoch += 1
    put(group.backend, KEYS.shard(0), taken.to_json())
    group.clock.advance(group.ttl / 3)
    group.renew(loop)
    group.turn(loop)
    assert "fenced" in group.kinds("m_0")


def test_a_member_is_watched_by_others_and_told_to_the_prober() -> None:
    """Only those with a port."""
    group = Group(runner=2)
    loops = [group.member() for _ in range(2)]
    group.turn(*loops)
    assert [{peer.member for peer in peers} for peers in group.watched.values()] == [{"m_1"}, {"m_0"}]


def test_a_newcomer_that_waits_is_watched_at_once() -> None:
    """Not only when the Runner looks again by itself: nobody dies unseen."""
    group = Group(runner=1, backup=1)
    first = group.member()
    group.turn(first)
    group.member()
    group.clock.advance(CLAIMANT_HEAD_START_SECONDS)
    group.turn(first)
    assert {peer.member for peer in group.watched["p0"]} == {"m_1"}


def test_house_is_kept_after_a_finished_job() -> None:
    """Its ids and counts go."""
    group = Group()
    loop = group.member()
    cluster = submit(group, 8)
    work_off(group, loop)
    for _ in range(3):
        group.clock.advance(group.ttl / 3)
        group.renew(loop)
        group.turn(loop)
    shards = [read.record for read in group.view().shards if read is not None]
    assert all(shard.counts == {} for shard in shards)
    assert cluster.jobs() == {"j": "finished"}
    assert cluster.job("j").progress().done == 8


def test_taking_a_seat_before_joining_is_a_mistake() -> None:
    """There is no incarnation yet."""
    with pytest.raises(AssertionError):
        Group().member(join=False).take_seat()


def test_joining_while_the_store_is_away_fails() -> None:
    """The constructor tells; the loop waits."""
    group = Group()
    faulty = Faulty(MemoryBackend(group.store))
    faulty.cut()
    loop = group.member(backend=faulty, join=False)
    with pytest.raises(UnavailableError):
        loop.try_join()
    assert loop.step() == FIRST_RETRY_PAUSE_SECONDS
    assert 0 < loop.step() <= FIRST_RETRY_PAUSE_SECONDS, "meanwhile the store is not asked"


@pytest.mark.promise(7)
def test_a_move_that_fails_is_tried_again_after_the_pause() -> None:
    """A failed claim leaves the shards of a member that left without an owner: the next turn claims again."""
    group = Group(runner=2, backup=None)
    faulty = Faulty(MemoryBackend(group.store))
    first, second = group.member(backend=faulty), group.member()
    group.turn(first, second, times=20)
    assert sorted(filter(None, group.owners())) == ["m_0", "m_0", "m_1", "m_1"]
    second.inbox.ask_to_leave()
    second.run()
    faulty.refuse("commit")
    while first.step() == 0.0:  # The turn in which the claim fails ends with a pause.
        pass
    assert None in group.owners()
    group.clock.advance(FIRST_RETRY_PAUSE_SECONDS)
    group.turn(first)
    assert group.owners() == ["m_0"] * 4


@pytest.mark.promise(7)
def test_a_transfer_that_fails_is_tried_again_after_the_pause() -> None:
    """The plan is made again from a new view."""
    group = Group(runner=2, backup=None)
    faulty = Faulty(MemoryBackend(group.store))
    first = group.member(backend=faulty)
    group.turn(first)
    group.member()
    faulty.refuse("commit")
    while first.step() == 0.0:
        pass
    assert group.owners() == ["m_0"] * 4
    group.clock.advance(FIRST_RETRY_PAUSE_SECONDS)
    group.turn(first)
    assert sorted(map(str, group.owners())) == ["m_0", "m_0", "m_1", "m_1"]


def test_other_threads_may_ask_while_the_incarnation_ends() -> None:
    """The loop sets both attributes to None at any moment, so every answer comes from a single read of each."""

    class ReadOnce:
        """The value at the first read, and None from then on: the loop's thread came in between."""

        def __init__(self, value: object) -> None:
            self.value = value

        def __get__(self, loop: object, kind: type) -> object:
            value, self.value = self.value, None
            return value

    loop = Group().member()
    kind = type("Ending", (MemberLoop,), {"life": ReadOnce(loop.life), "session": ReadOnce(loop.session)})
    ending: Any = object.__new__(kind)
    ending.__dict__.update({name: value for name, value in vars(loop).items() if name not in ("life", "session")})
    assert ending.role is Role.RUNNER
    assert ending._may_start(new_run())
