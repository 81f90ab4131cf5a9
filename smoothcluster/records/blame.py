"""Blame: the starts of a task that ended without an outcome, as the shard's record keeps them.

Each entry is ``incarnation@epoch:evidence@time``: the member that had the task, and how that start ended.
`smoothcluster.work.verdict` decides from these entries how the task may run again.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

ALONE = "alone"
"""Not a death: nothing else runs in the member when the task starts there, which is announced so."""

KILLED, DISTURBED, RAISED = "child_killed", "child_disturbed", "child_raised"
"""The child was killed; was killed, and so was a bystander; lived on, and its handler raised: which the child may be
to blame for, so the task is run once more, as if it were under no suspicion."""

_ENTRY = re.compile(r"(.*)@(\d+):(\w+)(?:@(\d+))?")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of blame."""

    incarnation: str
    epoch: int
    evidence: str
    at: int | None
    """When it was noticed, by the wall clock of whoever noticed it."""

    @property
    def crash(self) -> bool:
        """Whether it is the death of a child by its own doing."""
        return self.evidence.startswith(("child_exit", "child_signal"))


def format_entry(incarnation: str | None, epoch: int, evidence: str, at: float | None = None) -> str:
    """An entry as the store holds it."""
    return f"{incarnation}@{epoch}:{evidence}{'' if at is None else f'@{int(at)}'}"


def parse_entries(blame: Iterable[str]) -> Iterator[Entry]:
    """The entries that can be read."""
    for each in blame:
        match = _ENTRY.fullmatch(each)
        if match:
            yield Entry(match[1], int(match[2]), match[3], int(match[4]) if match[4] else None)


def count_starts(blame: Sequence[str]) -> int:
    """How many starts these entries stand for."""
    return len(blame) - sum(entry.evidence == ALONE for entry in parse_entries(blame))


def ended_as(blame: Iterable[str], evidence: str) -> bool:
    """Whether it has once ended so."""
    return any(entry.evidence == evidence for entry in parse_entries(blame))


def describe(blame: Iterable[str]) -> str:
    """The evidence for people, the latest first."""
    entries = [entry for entry in parse_entries(blame) if entry.evidence != ALONE]
    told = [f"{entry.evidence} in {entry.incarnation} at epoch {entry.epoch}{_when(entry)}" for entry in entries]
    return "its process ended whenever it ran: " + ", ".join(reversed(told))


def _when(entry: Entry) -> str:
    if entry.at is None:
        return ""
    try:
        return f" on {datetime.fromtimestamp(entry.at, UTC).isoformat(timespec='seconds')}"
    except (OverflowError, ValueError, OSError):
        return ""  # a stranger's
