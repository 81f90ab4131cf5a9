"""The record of outcomes. Each record holds outcomes of many tasks of the same job and shard."""

from collections.abc import Iterable, Iterator
from json.encoder import encode_basestring_ascii as quote

from smoothcluster.model import Outcome, State
from smoothcluster.records.codec import GarbageError, load


def encode_outcome(task_id: str, state: State, value: str, error: str | None, attempts: int) -> str:
    """Encode a task's outcome as JSON text; *value* is JSON already."""
    why = "null" if error is None else quote(error)
    return f'[{quote(task_id)},"{state}",{value},{why},{attempts}]'


def encode_outcomes(runner: str, epoch: int, encoded: Iterable[str]) -> bytes:
    """Encode a record of outcomes from the texts that `encode_outcome` returned."""
    return f'{{"runner":{quote(runner)},"epoch":{epoch},"outcomes":[{",".join(encoded)}]}}'.encode()


def outcomes(value: bytes) -> Iterator[Outcome]:
    """The outcomes in a results record; raise GarbageError if *value* is not such a record."""
    data = load(value)
    try:
        runner, epoch = str(data["runner"]), int(data["epoch"])
        for task_id, state, result, error, attempts in data["outcomes"]:
            yield Outcome(str(task_id), State(state), result, error, int(attempts), runner, epoch)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise GarbageError(f"the record is not a result: {error!r:.80}") from None
