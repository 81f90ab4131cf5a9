"""Blame: the starts of a task that ended without an outcome, as the shard's record keeps them.

Each entry is ``incarnation@epoch:evidence@time``: the member with the task, and how the start ended.
`smoothcluster.work.verdict` decides from these entries how the task may run again.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

STARTED_ALONE = "alone"
"""Not a death: announces a start of the task while nothing else runs in the member."""

CHILD_KILLED, CHILD_DISTURBED, CHILD_RAISED = "child_killed", "child_disturbed", "child_raised"
"""Ends of a start in a child process: the child was killed; the child and a bystander were killed; the handler raised
in a child that lived on. The child may have caused such an exception, so the task runs once more as if not suspect."""

CHILD_SHARED = "child_shared"
"""The child died while it ran several tasks, so its death names none of them."""

CHILD_NONSENSE = "child_nonsense"
"""End of a start in a child process: the child sent bytes that are no message, or closed its connection, so the member
ended the child. Only the handler's code can do this."""

_ENTRY_PATTERN = re.compile(r"(.*)@(\d+):(\w+)(?:@(\d+))?")


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of blame, parsed."""

    incarnation: str
    epoch: int
    evidence: str
    at: int | None
    """Time when a member noticed the end of the start, by the wall clock of this member."""

    @property
    def crash(self) -> bool:
        """Whether a child process ended by its own doing: an exit status, a crash, or nonsense sent to the member."""
        return self.evidence.startswith(("child_exit", "child_signal", CHILD_NONSENSE))


def format_entry(incarnation: str | None, epoch: int, evidence: str, at: float | None = None) -> str:
    """Format an entry as the store holds it."""
    return f"{incarnation}@{epoch}:{evidence}{'' if at is None else f'@{int(at)}'}"


def parse_entries(blame: Iterable[str]) -> Iterator[Entry]:
    """Parse the entries; skip unreadable entries."""
    for each in blame:
        match = _ENTRY_PATTERN.fullmatch(each)
        if match:
            yield Entry(match[1], int(match[2]), match[3], int(match[4]) if match[4] else None)


def count_starts(blame: Sequence[str]) -> int:
    """How many starts these entries stand for; ``STARTED_ALONE`` entries do not count."""
    return len(blame) - sum(entry.evidence == STARTED_ALONE for entry in parse_entries(blame))


def ended_as(blame: Iterable[str], evidence: str) -> bool:
    """Whether any start ended with this evidence."""
    return any(entry.evidence == evidence for entry in parse_entries(blame))


def describe(blame: Iterable[str]) -> str:
    """The evidence for people, the latest first."""
    entries = [entry for entry in parse_entries(blame) if entry.evidence != STARTED_ALONE]
    told = [f"{entry.evidence} in {entry.incarnation} at epoch {entry.epoch}{_when(entry)}" for entry in entries]
    return "its process ended whenever it ran: " + ", ".join(reversed(told))


def _when(entry: Entry) -> str:
    if entry.at is None:
        return ""
    try:
        return f" on {datetime.fromtimestamp(entry.at, UTC).isoformat(timespec='seconds')}"
    except (OverflowError, ValueError, OSError):
        return ""  # not written by this program
