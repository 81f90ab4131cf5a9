"""Resizing a living group: change the numbers of Runners and Backup Runners.

A single commit sets the spec and closes the surplus seats, the highest first. The commit writes the keys of
these seats even if no member ever held them, so the store refuses a claim based on an older read. A member
may read the spec before this commit and a seat after the commit; the seat's record then says when the seat was
closed. Members that lose their seat learn so from their own records and hand their shards over themselves.

Safety: each commit is conditional on the records that were read. The store refuses the commit if any of them
has changed. So a change can be retried any number of times, and a late commit changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from smoothcluster.backend import Change, Committed, Guarantees, Update, commit_size
from smoothcluster.errors import OutcomeUnknownError, UsageError
from smoothcluster.group.spec import check_number, numbers
from smoothcluster.group.store import GroupStore, put
from smoothcluster.group.view import Versioned
from smoothcluster.records.group import MOST_RUNNERS, Member, Seat, Spec
from smoothcluster.records.keys import Keys


@dataclass(frozen=True, slots=True)
class Resize:
    """The new numbers; None for a number that stays as before."""

    runner: int | None
    backup: int | None

    def check(self) -> "Resize":
        """Return self; raise UsageError if a number is invalid or both are missing."""
        check_number("runner", self.runner, 1, MOST_RUNNERS)
        check_number("backup", self.backup, 0, MOST_RUNNERS)
        if self.runner is None and self.backup is None:
            raise UsageError("a change needs a new number: runner, backup, or both")
        return self

    def after(self, spec: Spec) -> Spec:
        """*spec* with the new numbers; raise UsageError if the group cannot have them."""
        if spec.runner is None:
            raise UsageError("the group has no numbers yet: the first member that joins sets the numbers")
        if self.backup is not None and spec.backup is None:
            raise UsageError(
                f"the group has {numbers(spec.runner, None)} and no backup: all members are Runners. To have Backup"
                " Runners, stop all members and start the members with runner and backup"
            )
        backup = spec.backup if self.backup is None else self.backup
        return replace(spec, runner=self.runner or spec.runner, backup=backup)


def try_change(store: GroupStore, wanted: Resize) -> Spec | None:
    """Go as far towards *wanted* as a single commit can; return the spec when done, None to try again.

    Raise UsageError if there is no group, or the group cannot have such numbers.
    """
    read = store.read_spec()
    if read is None:
        raise UsageError("the group does not exist")
    before, after = read.record, wanted.after(read.record)
    if (before.runner, before.backup) == (after.runner, after.backup):
        return before
    assert before.runner is not None, "checked just now"
    assert after.runner is not None, "never taken away"
    # Each seat takes two operations. If a commit cannot hold all of them, the number of Runners falls step by step.
    room = (store.backend.guarantees.most_operations - 1) // 2
    while True:
        step = replace(after, runner=max(after.runner, before.runner - room), joins=before.joins + 1, id=store.new_id())
        mandatory, optional = _changes(store, read, step)
        changes = [*mandatory, *optional][: _fitting(store.backend.guarantees, [*mandatory, *optional])]
        if len(changes) >= len(mandatory) or room <= 1:
            break
        room //= 2
    try:
        applied = isinstance(store.backend.commit([], changes), Committed)
    except OutcomeUnknownError:
        applied = False
    if not applied:
        store.backend.sync()  # So the next try sees the outcome, or the change that was in the way.
    return step if applied and step.runner == after.runner else None


def _fitting(limits: Guarantees, changes: Sequence[Change]) -> int:
    """How many of *changes*, the first of them, fit into one commit."""
    size = 0
    for number, change in enumerate(changes):
        size += commit_size([], [change]).bytes
        if size > limits.largest_commit or number == limits.most_operations:
            return number
    return len(changes)


def _changes(store: GroupStore, before: Versioned[Spec], after: Spec) -> tuple[list[Change], list[Change]]:
    """The mandatory changes of the commit, the spec first; then the optional changes."""
    assert before.version is not None
    keys = store.keys
    changes: list[Change] = [Update(keys.spec, after.to_json(), before.version)]
    surplus = store.read_seats(range(after.seats, before.record.seats))
    # Seats before members: a holder read there and missing among the members here is gone for good.
    members = store.read_members()
    for number, seat in surplus.items():
        closed = Seat(None, after.id, closed=after.joins).to_json()
        key = keys.seat(number)
        changes.append(put(key, closed, seat.version))
        # By the members' records, which survive even if another member has overwritten the seat's record.
        holders = [read for read in members.values() if read.record.seat == number]
        changes.extend(_update(keys, read, replace(read.record, seat=None, id=after.id)) for read in holders)
    # Each member watches its own record.
    due = _due(members, before.record, after)
    return changes, [_update(keys, read, replace(read.record, id=after.id)) for read in due]


def _due(members: Mapping[str, Versioned[Member]], before: Spec, after: Spec) -> list[Versioned[Member]]:
    """Members whose role changes, or may change, without losing a seat; then the members to hand shards to them."""
    old, new = before.runner or 0, after.runner or 0
    by_join = sorted(members.values(), key=lambda read: read.record.place)
    if after.backup is None:
        return [*by_join[min(old, new) : max(old, new)], *by_join[: old if new > old else 0]]
    return [read for read in by_join if read.record.seat is None] if new > old else []


def _update(keys: Keys, member: Versioned[Member], after: Member) -> Change:
    return Update(keys.member(after.incarnation), after.to_json(), member.version)
