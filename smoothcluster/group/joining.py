"""Joining a group: a unique name, a place in the order of joins, and agreement on the numbers.

The commit of a join creates the member's record and ``names/<name>``, both on the member's lease, and compares the
version of ``spec``. So names are unique, and the numbers did not change between the read and the join. A join that fits
the numbers changes no record that another join compares, so members that start together do not refuse each other.

The order of joins is the order in which the store created the records (`Member.place`).

Members that start together all find the same smallest free index. A refused member queues, by a key under ``joining``
on its lease. The first in the queue takes the smallest free index, the second the next, and so on.

Numbers other than the group's are possible only in a group without a living member. Such a join first announces itself
in ``spec`` (``changing``): from then on, no join that read ``spec`` before can land. Then the join lists the names, and
changes the numbers if there are none. While a change is announced, every join compares and sets ``spec``, so of several
joins one wins. A join that fits the numbers takes the announcement back.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from smoothcluster.backend import AtVersion, Change, Condition, Create, Delete, Entry, Lease, Refused, Update
from smoothcluster.errors import NameInUseError, OutcomeUnknownError, SpecMismatchError
from smoothcluster.group.spec import INDEX_PLACEHOLDER, Wanted, agreed, new_spec
from smoothcluster.group.store import GroupStore, parse_member, parse_spec, put
from smoothcluster.group.view import Versioned
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.group import Member, Spec
from smoothcluster.records.keys import last_part

log = logging.getLogger("smoothcluster")


@dataclass(frozen=True, slots=True)
class _Place:
    """The state of the group for one joining member."""

    spec: Versioned[Spec] | None
    holders: Mapping[str, str]
    """By name: the incarnation with the name."""
    ahead: int
    """How many members are ahead in the queue."""
    queued: bool
    """Whether the member has a key in the queue."""
    indexed: bool
    """Whether the name is to have an index."""


def try_join(store: GroupStore, wanted: Wanted, card: Member, lease: Lease) -> Versioned[Member] | None:
    """Try once to join as *card*, with name, place and seat filled in; None to try again.

    Raise NameInUseError or SpecMismatchError if the group refuses the name or the numbers.
    """
    first, own = store.backend.get_many([store.keys.spec, store.keys.member(card.incarnation)])
    if own is not None:
        return _read_own(store, own)
    spec = parse_spec(first)
    if spec is None and wanted.again:
        log.warning("the store has lost the group with all tasks and outcomes, or was emptied; the group begins anew")
    place = _read_place(store, spec, wanted, card.incarnation)
    if place.ahead and not place.queued:
        _commit(store, [], [_queue(store, card, lease)])
        return None
    before = spec.record if spec else new_spec(wanted, "")
    try:
        after = agreed(before, wanted, peopled=bool(place.holders))
        if spec is not None and after != before and store.read_members():
            after = agreed(before, wanted, peopled=True)  # These members have no key for the name.
        name = free_name(wanted.name, place.holders, place.ahead)
    except (SpecMismatchError, NameInUseError):
        # Names are read after the numbers. If another member changed the numbers in between, the two do not match.
        now = store.backend.get(store.keys.spec)
        if spec is not None and now is not None and now.version != spec.version:
            return None
        raise
    if spec is not None and before.runner is not None and not before.changing and after != before:
        announced = replace(before, joins=before.joins + 1, id=store.new_id())
        _commit(store, [], [Update(store.keys.spec, replace(announced, changing=announced.id).to_json(), spec.version)])
        return None
    return _join(store, place, replace(card, name=name), after, lease)


def _read_own(store: GroupStore, entry: Entry) -> Versioned[Member] | None:
    """The own record; None if it is unreadable, and reported."""
    try:
        return parse_member(entry)
    except GarbageError as error:
        store.report(entry.key, str(error))
        return None


def _read_place(store: GroupStore, spec: Versioned[Spec] | None, wanted: Wanted, me: str) -> _Place:
    """Read the names, and the queue if the name needs an index.

    A member that joins between the two reads is in neither. Then an index is tried that is taken, and the store refuses
    the join. In the opposite order the member would be in both, and an index would be left free.
    """
    names = store.backend.list(store.keys.names) if spec is not None else []
    holders = {last_part(entry.key): entry.value.decode(errors="replace") for entry in names}
    queue: list[str] = []
    indexed = INDEX_PLACEHOLDER in wanted.name
    if indexed and spec is not None:
        waiting = sorted(store.backend.list(store.keys.joining), key=lambda entry: entry.created)
        # A member may have joined before the commit landed by which it queued.
        queue = [name for entry in waiting if (name := last_part(entry.key)) not in holders.values()]
    return _Place(spec, holders, queue.index(me) if me in queue else len(queue), me in queue, indexed)


def _queue(store: GroupStore, card: Member, lease: Lease) -> Change:
    return Create(store.keys.joiner(card.incarnation), card.name.encode(), lease)


def _join(store: GroupStore, place: _Place, card: Member, after: Spec, lease: Lease) -> Versioned[Member] | None:
    """Commit the join of *card* to the group with the numbers *after*; None to try again."""
    keys, spec, commit_id = store.keys, place.spec, store.new_id()
    conditions: list[Condition] = []
    changes: list[Change] = []
    if spec is not None and spec.version is not None and after == spec.record and not after.changing:
        conditions = [AtVersion(keys.spec, spec.version)]
    else:
        after = replace(after, joins=after.joins + 1, id=commit_id, changing=None)
        changes = [put(keys.spec, after.to_json(), spec.version if spec else None)]
    member = replace(card, join=after.joins, seat=None, id=commit_id, named=True)
    changes.append(Create(keys.name(member.name), member.incarnation.encode(), lease))
    changes.append(Create(keys.member(member.incarnation), member.to_json(), lease))
    if place.queued:
        changes.append(Delete(keys.joiner(member.incarnation)))
    if _commit(store, conditions, changes):
        # With the time of the creation. None if the record has gone since: then the lease is over.
        entry = store.backend.get(keys.member(member.incarnation))
        return _read_own(store, entry) if entry is not None else None
    if place.indexed and not place.queued:
        _commit(store, [], [_queue(store, card, lease)])
    return None


def _commit(store: GroupStore, conditions: list[Condition], changes: list[Change]) -> bool:
    """Commit; return whether the store has certainly applied the changes."""
    try:
        return not isinstance(store.backend.commit(conditions, changes), Refused)
    except OutcomeUnknownError:
        store.backend.sync()  # The next try finds the record if written, now or late: no other member has this key.
        return False


def free_name(template: str, taken: Collection[str], ahead: int = 0) -> str:
    """*template* with the smallest free index, after the indices of the members *ahead* in the queue.

    Raise NameInUseError if the name is taken and has no index.
    """
    if INDEX_PLACEHOLDER not in template:
        if template in taken:
            raise NameInUseError(
                f"a living member has the name {template!r}; choose another name, or a name with"
                f" {INDEX_PLACEHOLDER!r} in it. If the member has just died, the name is free once the"
                " member's lease has run out"
            )
        return template
    index = 0
    while (name := template.replace(INDEX_PLACEHOLDER, str(index))) in taken or ahead:
        ahead -= name not in taken
        index += 1
    return name
