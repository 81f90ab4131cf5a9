"""The oracle: what the handlers' own log says happened, held against what the store says was recorded."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cluster.handlers import END, RAISED, START

from smoothcluster import Outcome, State


class Line(NamedTuple):
    """One line of the log: what became of a task, where and when."""

    what: str
    member: str
    pid: int
    task: str
    epoch: int
    at: float
    """Seconds, monotonic: the same clock for all processes of a machine."""


def read_log(path: Path) -> list[Line]:
    """Everything that handlers have logged so far, in order; a line that is being written is none yet."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text().rpartition("\n")
    return [Line(*json.loads(line)) for line in whole.splitlines()]


def audit(
    log: Sequence[Line], outcomes: Iterable[Outcome], wanted: Iterable[str], *, counted: bool = True
) -> list[str]:
    """What is wrong, in words; empty if every wanted task was recorded once, and as it happened.

    Starts need not be *counted* where the store has lost what it knew of them.
    """
    recorded = list(outcomes)
    ids, wanted_ids = Counter(outcome.task_id for outcome in recorded), set(wanted)
    starts = Counter(line.task for line in log if line.what == START)
    ends: defaultdict[tuple[str, str], set[tuple[str, int]]] = defaultdict(set)
    for line in log:
        ends[line.what, line.task].add((line.member, line.epoch))
    wrong = [f"{task} was recorded {count} times" for task, count in ids.items() if count > 1]
    wrong += [f"{task} was lost" for task in sorted(wanted_ids - ids.keys())]
    wrong += [f"{task} was recorded and never asked for" for task in sorted(ids.keys() - wanted_ids)]
    for outcome in recorded:
        how = END if outcome.state is State.DONE else RAISED
        # What a handler returned may not fit: then it ended, and failed all the same.
        told = ends[how, outcome.task_id] | ends[END, outcome.task_id]
        if (outcome.runner, outcome.epoch) not in told:
            wrong.append(f"{outcome} was recorded; the log knows of {sorted(told) or 'nothing'}")
        if counted and outcome.attempts < starts[outcome.task_id]:
            wrong.append(f"{outcome} was started {starts[outcome.task_id]} times")
    return wrong
