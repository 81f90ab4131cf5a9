"""What the starts that no outcome came of say about a task: pure decisions on its list of blame.

Each such start has left an entry, ``incarnation@epoch:evidence@time``: who had the task and how that
ended. Whatever was running when a process died is *suspect*, and is run where its death harms
nobody. What a child process dies of is *accused*, and is run alone. What then goes on killing is
*guilty*.

An exit status or a crash is the task's own doing: the second convicts. SIGKILL may come from
anybody (an operator, the machine short of memory), so it takes `KILLS` deaths, each but the first
beside an idle child that is not harmed: whoever kills children at random hits that one as often.
The death of a bystander takes back all kills before it.

The danger: an outsider who kills the children of one task, and only those, again and again, cannot
be told from a task that kills them.
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
