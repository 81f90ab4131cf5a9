"""Joining a group: a name of one's own, a place in the order, and agreement on the numbers.

One commit compares and sets the join counter in ``spec``. Any other join changes it, so whoever
wins read a complete list of members: names are unique, joins are ordered, and "there is no
living member" can be decided.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from smoothcluster.backend import Change, CoordinationBackend, Create, Lease, Refused, Update
from smoothcluster.errors import NameInUseError, OutcomeUnknownError, SpecMismatchError, UsageError
from smoothcluster.group.view import Read, Report, parse_spec, read_members
from smoothcluster.model import check_name
from smoothcluster.records.group import Keys, Member, Spec

log = logging.getLogger("smoothcluster")

INDEX = "<index>"
"""In a name, stands for the smallest number that no living member has."""

SHARDS = 32
"""Shards of a group, unless it has many Runners."""

ENOUGH = 4
"""Shards for each Runner, so that shares differ by a quarter at most."""

MOST = 4096
"""Runners of a group: a slip of the finger must not fill the store with shards."""


def check_number(what: str, number: int | None, least: int, most: int) -> None:
    """Raise UsageError unless *number* makes sense, or is left out."""
    if number is not None and (type(number) is not int or number < least):
        raise UsageError(f"{what} must be a whole number of at least {least}, not {number!r}")
    if number is not None and number > most:
        raise UsageError(f"{what} must be at most {most}, not {number}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a member asks for when it joins."""

    name: str
    runner: int | None
    """None for what the group has."""
    backup: int | None
    shards: int | None = None
    """None for the default: 32, and at least four for each Runner."""
    again: bool = False
    """Whether it was a member before: the numbers may have changed since, and the group's stand."""

    def check(self) -> "Wanted":
        """Return it, or raise UsageError saying what is wrong with it."""
        if self.runner is None and self.backup is not None:
            raise UsageError(f"backup={self.backup} without runner; give both, or neither for what the group has")
        check_number("runner", self.runner, 1, MOST)
        check_number("backup", self.backup, 0, MOST)
        check_number("shards", self.shards, 1, MOST * ENOUGH)
        check_name("name", self.name.replace(INDEX, "0"))
        return self

    def rejoining(self, name: str) -> "Wanted":
        """The same, once more, under a name that is settled."""
        return replace(self, name=name, again=True)


def new_spec(wanted: Wanted | None, commit_id: str) -> Spec:
    """The numbers of a group that begins now, with a first member or with a first submit."""
    if wanted is None:
        return Spec(None, None, SHARDS, 0, commit_id)
    return Spec(wanted.runner, wanted.backup, wanted.shards or max(SHARDS, ENOUGH * (wanted.runner or 0)), 0, commit_id)


def try_join(
    backend: CoordinationBackend,
    keys: Keys,
    wanted: Wanted,
    card: Member,
    lease: Lease,
    new_id: Callable[[], str],
    report: Report,
) -> Read[Member] | None:
    """Try once to join as *card*, with name, place and seat filled in; None if somebody was faster.

    Raise NameInUseError or SpecMismatchError if the group as it is now does not take it.
    """
    spec = parse_spec(backend.get(keys.spec))
    if spec is None and wanted.again:
        log.warning("the store has lost the group, its tasks and outcomes too, or was emptied: the group begins anew")
    members = read_members(backend, keys, report) if spec else {}
    if card.incarnation in members:
        return members[card.incarnation]
    names = {read.record.name for read in members.values()}
    commit_id = new_id()
    before = spec.record if spec else new_spec(wanted, commit_id)
    try:
        after = replace(_agreed(before, wanted, peopled=bool(names)), joins=before.joins + 1, id=commit_id)
        member = replace(card, name=free_name(wanted.name, names), join=after.joins, seat=None, id=commit_id)
    except (SpecMismatchError, NameInUseError):
        # Members are read after the numbers: if somebody has joined in between, these do not belong together.
        now = backend.get(keys.spec)
        if spec is not None and now is not None and now.version != spec.version:
            return None
        raise
    put: Change = (
        Create(keys.spec, after.to_json()) if spec is None else Update(keys.spec, after.to_json(), spec.version)
    )
    key = keys.member(member.incarnation)
    try:
        result = backend.commit([], [put, Create(key, member.to_json(), lease)])
    except OutcomeUnknownError:
        backend.sync()  # The next try finds the record if it was written, now or late: its key is its own.
        return None
    return None if isinstance(result, Refused) else Read(member, result.versions[key])


def _agreed(spec: Spec, wanted: Wanted, *, peopled: bool) -> Spec:
    """The group's numbers, if *wanted* fits; its own, if nobody is there to disagree."""
    if wanted.shards is not None and wanted.shards != spec.shards:
        raise SpecMismatchError(f"the group has shards={spec.shards} for good, this member asks for {wanted.shards}")
    if spec.runner is None and wanted.runner is None:
        raise SpecMismatchError(
            "the group has no numbers yet: its first member must give runner, and backup if some are to stand by"
        )
    alike = (spec.backup is None) == (wanted.backup is None)
    if spec.runner is not None and (wanted.runner is None or (wanted.again and alike)):
        return spec
    if peopled and spec.runner is not None and (spec.runner, spec.backup) != (wanted.runner, wanted.backup):
        change = "change the group's with 'smoothcluster spec'" if alike else "stop all its members first"
        raise SpecMismatchError(
            f"the living group has {numbers(spec.runner, spec.backup)}, this member asks for"
            f" {numbers(wanted.runner, wanted.backup)}; start it with the group's numbers, or with none to take what"
            f" the group has, or {change}"
        )
    return replace(spec, runner=wanted.runner, backup=wanted.backup)


def numbers(runner: int | None, backup: int | None) -> str:
    """How they are written."""
    return f"runner={runner}" if backup is None else f"runner={runner}, backup={backup}"


def free_name(template: str, taken: set[str]) -> str:
    """*template* with the smallest free index filled in; raise NameInUseError if it has none and is taken."""
    if INDEX not in template:
        if template in taken:
            raise NameInUseError(
                f"a living member is called {template!r}; choose another name, or one with {INDEX!r} in it."
                " If that member has just died, its name is free when its lease has run out"
            )
        return template
    index = 0
    while (name := template.replace(INDEX, str(index))) in taken:
        index += 1
    return name
