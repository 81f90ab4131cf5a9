"""The verdict on a task, from the task's blame: run among others, in a child, alone in a child, or quarantine.

A task is *suspect* if the process died while the task was running. Suspects run in a child process, several at once.
If the child of a task dies, the task runs alone in a child from then on. A task is quarantined if the deaths go on. The
death of a child with several tasks counts against none of them.

An exit status or a crash comes from the task: the second such death is enough. SIGKILL may come from an operator or
from a machine short of memory, so `DEATHS_TO_QUARANTINE` deaths are needed. Each but the first must happen beside an
idle child which survives: a sender of signals to random children hits the idle child as often. The death of the idle
child cancels all earlier kills.

The danger: if an outsider kills the children of one task, and no others, again and again, the members cannot tell this
from a task which kills the children.
"""

from collections.abc import Sequence
from enum import IntEnum

from smoothcluster.model import Evidence
from smoothcluster.records.blame import (
    CHILD_DISTURBED,
    CHILD_KILLED,
    CHILD_RAISED,
    CHILD_SHARED,
    STARTED_ALONE,
    parse_entries,
)

CRASHES_TO_QUARANTINE = 2
"""Number of crashes of children, exits included, for which a task is quarantined."""


DEATHS_TO_QUARANTINE = 5
"""Number of deaths of children, some by SIGKILL, for which a task is quarantined."""


ALONE_EXPIRED = 3
"""Number of expired leases of members running only this task, for which the task is quarantined.

If the process of such a member is known to be gone, a single death is enough.
"""


_DEADLY_EVIDENCE = (Evidence.PROCESS_GONE, Evidence.LEASE_EXPIRED)


class Stage(IntEnum):
    """How a task may run, from harmless to quarantined."""

    CLEAR = 0
    SUSPECT = 1
    """May not run in a member among other tasks."""
    ISOLATED = 2
    """May not run in a child with other tasks."""
    QUARANTINED = 3
    """May not run."""


def stage(blame: Sequence[str]) -> Stage:
    """Decide from a task's blame how the task may run."""
    if not blame:
        return Stage.CLEAR
    crashes = kills = gone = expired = 0
    deadly = accused = False
    alone: tuple[str, int] | None = None
    for entry in parse_entries(blame):
        if entry.evidence == CHILD_RAISED:
            crashes = kills = 0
            deadly = accused = False
        elif entry.evidence in _DEADLY_EVIDENCE:
            deadly = True
            if alone == (entry.incarnation, entry.epoch):
                gone += entry.evidence == Evidence.PROCESS_GONE
                expired += entry.evidence == Evidence.LEASE_EXPIRED
        elif entry.crash or entry.evidence in (CHILD_KILLED, CHILD_DISTURBED):
            accused = True
            crashes += entry.crash
            kills = 0 if entry.evidence == CHILD_DISTURBED else kills + (entry.evidence == CHILD_KILLED)
        elif entry.evidence == CHILD_SHARED:
            accused = True
        alone = (entry.incarnation, entry.epoch) if entry.evidence == STARTED_ALONE else None
    if crashes >= CRASHES_TO_QUARANTINE or crashes + kills >= DEATHS_TO_QUARANTINE or gone or expired >= ALONE_EXPIRED:
        return Stage.QUARANTINED
    return Stage.ISOLATED if accused else Stage.SUSPECT if deadly else Stage.CLEAR
