"""Joining a group: a unique name, a place in the order of joins, and agreement on the numbers.

The commit of a join compares and sets the join counter in ``spec``. Every other join changes the counter, so the
winner has read a complete list of members. Therefore names are unique, joins are ordered, and a joining member
can be sure that a group has no living member.
"""

import logging
from dataclasses import replace

from smoothcluster.backend import Create, Lease, Refused
from smoothcluster.errors import NameInUseError, OutcomeUnknownError, SpecMismatchError
from smoothcluster.group.spec import INDEX_PLACEHOLDER, Wanted, agreed, new_spec
from smoothcluster.group.store import GroupStore, put
from smoothcluster.group.view import Versioned
from smoothcluster.records.group import Member

log = logging.getLogger("smoothcluster")


def try_join(store: GroupStore, wanted: Wanted, card: Member, lease: Lease) -> Versioned[Member] | None:
    """Try once to join as *card*, with name, place and seat filled in; None to try again.

    Raise NameInUseError or SpecMismatchError if the group refuses the name or the numbers.
    """
    spec = store.read_spec()
    if spec is None and wanted.again:
        log.warning("the store has lost the group with all tasks and outcomes, or was emptied; the group begins anew")
    members = store.read_members() if spec else {}
    if card.incarnation in members:
        return members[card.incarnation]
    names = {read.record.name for read in members.values()}
    commit_id = store.new_id()
    before = spec.record if spec else new_spec(wanted, commit_id)
    try:
        after = replace(agreed(before, wanted, peopled=bool(names)), joins=before.joins + 1, id=commit_id)
        member = replace(card, name=free_name(wanted.name, names), join=after.joins, seat=None, id=commit_id)
    except (SpecMismatchError, NameInUseError):
        # Members are read after the numbers. If another member joined in between, the two reads do not match.
        now = store.backend.get(store.keys.spec)
        if spec is not None and now is not None and now.version != spec.version:
            return None
        raise
    counter = put(store.keys.spec, after.to_json(), spec.version if spec else None)
    key = store.keys.member(member.incarnation)
    try:
        result = store.backend.commit([], [counter, Create(key, member.to_json(), lease)])
    except OutcomeUnknownError:
        store.backend.sync()  # The next try finds the record if written, now or late: no other member has this key.
        return None
    return None if isinstance(result, Refused) else Versioned(member, result.versions[key])


def free_name(template: str, taken: set[str]) -> str:
    """*template* with the smallest free index; raise NameInUseError if the name is taken and has no index."""
    if INDEX_PLACEHOLDER not in template:
        if template in taken:
            raise NameInUseError(
                f"a living member has the name {template!r}; choose another name, or a name with"
                f" {INDEX_PLACEHOLDER!r} in it. If the member has just died, the name is free once the"
                " member's lease has run out"
            )
        return template
    index = 0
    while (name := template.replace(INDEX_PLACEHOLDER, str(index))) in taken:
        index += 1
    return name
