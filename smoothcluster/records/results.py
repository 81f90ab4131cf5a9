"""The record of outcomes. Each record holds outcomes of many tasks of the same job and shard."""

from collections.abc import Callable, Iterable, Iterator
from json.encoder import encode_basestring_ascii as quote
from typing import Any

from smoothcluster.errors import UsageError
from smoothcluster.model import Outcome, State, Task
from smoothcluster.records.codec import GarbageError, load
from smoothcluster.records.salvage import as_text, split_array


def encode_outcome(  # parameters: one for each element of an outcome
    task_id: str, state: State, value: str, error: str | None, attempts: int, task: str = ""
) -> str:
    """Encode a task's outcome as JSON text; *value* is JSON already, and so is *task*, unless it is empty."""
    why = "null" if error is None else quote(error)
    return f'[{quote(task_id)},"{state}",{value},{why},{attempts}{task and ","}{task}]'


def encode_outcomes(runner: str, epoch: int, encoded: Iterable[str]) -> bytes:
    """Encode a record of outcomes from the texts that `encode_outcome` returned."""
    return f'{{"runner":{quote(runner)},"epoch":{epoch},"outcomes":[{",".join(encoded)}]}}'.encode()


def outcomes(value: bytes, unreadable: Callable[[str], object] | None = None) -> Iterator[Outcome]:
    """The outcomes in a results record; raise GarbageError if *value* is not such a record.

    A damaged outcome raises GarbageError, too, unless *unreadable* is given: then `outcomes` calls *unreadable* with
    the reason, and continues with the next readable outcome.
    """
    data = _record(value, unreadable)
    try:
        runner, epoch = str(data["runner"]), int(data["epoch"])
        elements = [*data["outcomes"]]
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise GarbageError(f"the record is not a result: {error!r:.80}") from None
    for element in elements:
        try:
            task_id, state, result, why, attempts, *kept = element
            task = Task.from_json(kept[0]) if kept else None
            outcome = Outcome(str(task_id), State(state), result, why, int(attempts), runner, epoch, task)
        except (ValueError, TypeError, OverflowError, AttributeError, UsageError) as error:
            if unreadable is None:
                raise GarbageError(f"the record is not a result: {error!r:.80}") from None
            unreadable(f"an outcome is not readable: {error!r:.80}")
        else:
            yield outcome


def _record(value: bytes, unreadable: Callable[[str], object] | None) -> dict[str, Any]:
    """The record as a JSON object; of a damaged record, with the readable outcomes."""
    try:
        return load(value)
    except GarbageError as error:
        text = as_text(value)
        head, opening, _ = text.partition('"outcomes":[')
        if unreadable is None or not opening:
            raise
        data = load(f"{head}{opening}]}}".encode(errors="surrogateescape"))
        before, after, _ = split_array(text, len(head) + len(opening), "]}", '["')
        unreadable(f"outcomes are not readable: {error!s:.120}")
        return data | {"outcomes": before + after}
