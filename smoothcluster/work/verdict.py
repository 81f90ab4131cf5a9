"""The verdict on a task, from its blame: run as any other, in a child, alone in a child, or quarantined.

A task that was running when its process died is *suspect* and runs where its death harms no other task. A task whose
child died runs alone in a child from then on. A task that goes on killing is quarantined.

An exit status or a crash is the task's own doing: the second one is enough. SIGKILL may come from an operator or from a
machine that is short of memory, so `KILLS` deaths are needed, each but the first beside an idle child that is not
harmed: a sender that kills children at random hits the idle child as often. The death of such a bystander takes back
all kills before it.

The danger: an outsider that kills the children of one task, and only those, again and again, cannot be told from a
task that kills them.
"""

from collections.abc import Sequence
from enum import IntEnum

from smoothcluster.model import Evidence
from smoothcluster.records.blame import ALONE, DISTURBED, KILLED, RAISED, parse_entries

CRASHES = 2
"""Deaths of child processes by their own doing that convict."""


KILLS = 5
"""Deaths of child processes that convict where some were by SIGKILL."""


ALONE_EXPIRED = 3
"""Members lost unseen, with nothing but the task running in them, that convict. One that was seen to die is enough."""


_DEADLY = (Evidence.PROCESS_GONE, Evidence.LEASE_EXPIRED)


class Stage(IntEnum):
    """How far it has come with a task."""

    CLEAR = 0
    SUSPECT = 1
    """Not to be run in a member among others."""
    ISOLATED = 2
    """Not to be run in a child that others are run in."""
    QUARANTINED = 3
    """Not to be run."""


def stage(blame: Sequence[str]) -> Stage:
    """What is to become of the task."""
    if not blame:
        return Stage.CLEAR
    crashes = kills = gone = expired = 0
    deadly = accused = False
    alone: tuple[str, int] | None = None
    for entry in parse_entries(blame):
        if entry.evidence == RAISED:
            crashes = kills = 0
            deadly = accused = False
        elif entry.evidence in _DEADLY:
            deadly = True
            if alone == (entry.incarnation, entry.epoch):
                gone += entry.evidence == Evidence.PROCESS_GONE
                expired += entry.evidence == Evidence.LEASE_EXPIRED
        elif entry.crash or entry.evidence in (KILLED, DISTURBED):
            accused = True
            crashes += entry.crash
            kills = 0 if entry.evidence == DISTURBED else kills + (entry.evidence == KILLED)
        alone = (entry.incarnation, entry.epoch) if entry.evidence == ALONE else None
    if crashes >= CRASHES or crashes + kills >= KILLS or gone or expired >= ALONE_EXPIRED:
        return Stage.QUARANTINED
    return Stage.ISOLATED if accused else Stage.SUSPECT if deadly else Stage.CLEAR
