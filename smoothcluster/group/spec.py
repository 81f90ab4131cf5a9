"""The numbers of a group (spec): the numbers a member asks for, and the numbers the group has."""

import secrets
from dataclasses import dataclass, replace

from smoothcluster.arguments import check_name, check_text
from smoothcluster.errors import SpecMismatchError, UsageError
from smoothcluster.records.group import MOST_RUNNERS, MOST_SHARDS, Spec
from smoothcluster.sinks import open_sink

INDEX_PLACEHOLDER = "<index>"
"""Placeholder in a name for the smallest number not in use by a living member."""


DEFAULT_SHARDS = 32
"""Default number of shards, unless the group has many Runners."""


SHARDS_PER_RUNNER = 4
"""Shards for each Runner, so the shares of Runners differ by a quarter at most."""


def check_number(what: str, number: int | None, least: int, most: int) -> None:
    """Raise UsageError unless *number* is None or an int from *least* to *most*."""
    if number is not None and (type(number) is not int or number < least):
        raise UsageError(f"{what} must be a whole number of at least {least}, not {number!r}")
    if number is not None and number > most:
        raise UsageError(f"{what} must be at most {most}, not {number}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The name and the numbers that a joining member asks for."""

    name: str
    runner: int | None
    """None for the group's number."""
    backup: int | None
    shards: int | None = None
    """None for the default: 32, and at least four for each Runner."""
    again: bool = False
    """Whether the process was a member before. The numbers may have changed since, so the group's numbers stand."""
    results: str | None = None
    """The URL of the results sink; None for the group's."""
    results_id: str | None = None
    """The name that the group gets in the sink, if this member brings the sink."""

    def check(self) -> "Wanted":
        """Return self; raise UsageError if a number or the name is invalid."""
        if self.runner is None and self.backup is not None:
            raise UsageError(
                f"backup={self.backup} needs runner, too; give both, or neither to take the group's numbers"
            )
        check_number("runner", self.runner, 1, MOST_RUNNERS)
        check_number("backup", self.backup, 0, MOST_RUNNERS)
        check_number("shards", self.shards, 1, MOST_SHARDS)
        check_text("name", self.name)
        check_name("name", self.name.replace(INDEX_PLACEHOLDER, "0"))
        return self

    def with_results(self, url: str | None) -> "Wanted":
        """The same request for a group that keeps its results at *url*. Raise UsageError for a wrong URL."""
        if url is None:
            return self
        sink = open_sink(url)
        sink.close()
        return replace(self, results=sink.url, results_id=secrets.token_hex(8))

    def rejoining(self, name: str) -> "Wanted":
        """The same request for joining again, under the settled name."""
        return replace(self, name=name, again=True)


def new_spec(wanted: Wanted | None, commit_id: str) -> Spec:
    """The numbers of a new group, begun by a first member or, without *wanted*, by a first submit."""
    if wanted is None:
        return Spec(None, None, DEFAULT_SHARDS, 0, commit_id)
    shards = wanted.shards or max(DEFAULT_SHARDS, SHARDS_PER_RUNNER * (wanted.runner or 0))
    return Spec(wanted.runner, wanted.backup, shards, 0, commit_id, wanted.results, wanted.results_id)


def agreed(spec: Spec, wanted: Wanted, *, peopled: bool) -> Spec:
    """The spec after a join: the group's if *wanted* fits, or that of *wanted* if the group has no members."""
    after = _agreed_numbers(spec, wanted, peopled=peopled)
    if wanted.again or wanted.results in (None, spec.results):
        return after
    if peopled:
        where = "in the store" if spec.results is None else f"at {spec.results}"
        raise SpecMismatchError(
            f"the living group keeps results {where}, but this member asks for results={wanted.results}; start the"
            " member with the group's sink, or with none to take the group's, or stop all members first"
        )
    return replace(after, results=wanted.results, results_id=wanted.results_id)


def _agreed_numbers(spec: Spec, wanted: Wanted, *, peopled: bool) -> Spec:
    if wanted.shards is not None and wanted.shards != spec.shards:
        raise SpecMismatchError(
            f"the group has shards={spec.shards} for good, but this member asks for shards={wanted.shards}"
        )
    if spec.runner is None and wanted.runner is None:
        raise SpecMismatchError(
            "the group has no numbers yet: the first member must give runner, and backup to have Backup Runners"
        )
    alike = (spec.backup is None) == (wanted.backup is None)
    if spec.runner is not None and (wanted.runner is None or (wanted.again and alike)):
        return spec
    if peopled and spec.runner is not None and (spec.runner, spec.backup) != (wanted.runner, wanted.backup):
        change = "change the group's numbers with 'smoothcluster spec'" if alike else "stop all members first"
        raise SpecMismatchError(
            f"the living group has {numbers(spec.runner, spec.backup)}, but this member asks for"
            f" {numbers(wanted.runner, wanted.backup)}; start the member with the group's numbers, or with none to take"
            f" the group's, or {change}"
        )
    return replace(spec, runner=wanted.runner, backup=wanted.backup)


def numbers(runner: int | None, backup: int | None) -> str:
    """The numbers as text, for messages."""
    return f"runner={runner}" if backup is None else f"runner={runner}, backup={backup}"
