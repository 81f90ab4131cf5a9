"""The oracle: what the handlers' own log says happened, held against what the store says was recorded."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, final

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


@final
class LogReader:
    """Reads what handlers log while they do, each line once: tests look often, and the log grows long."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[Line] = []
        self._read = 0

    def lines(self) -> list[Line]:
        """Everything so far, in order; a line that is being written is none yet."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                whole, end, _ = file.read().rpartition(b"\n")
            self._read += len(whole) + len(end)
            self._lines += [Line(*json.loads(line)) for line in whole.splitlines()]
        return list(self._lines)


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
        if outcome.state is State.QUARANTINED:
            if ends[END, outcome.task_id] or ends[RAISED, outcome.task_id]:
                wrong.append(f"{outcome} was quarantined; its handler did come back")
        elif (outcome.runner, outcome.epoch) not in _told(outcome, ends):
            wrong.append(f"{outcome} was recorded; the log knows of {sorted(_told(outcome, ends)) or 'nothing'}")
        if counted and outcome.attempts < starts[outcome.task_id]:
            wrong.append(f"{outcome} was started {starts[outcome.task_id]} times")
    return wrong


def _told(outcome: Outcome, ends: Mapping[tuple[str, str], set[tuple[str, int]]]) -> set[tuple[str, int]]:
    """Who has run it to such an end, by the log."""
    how = END if outcome.state is State.DONE else RAISED
    # What a handler returned may not fit: then it ended, and failed all the same.
    return ends[how, outcome.task_id] | ends[END, outcome.task_id]
