"""Reading the outcomes of a job: from the store, and from the results sink."""

from collections.abc import Iterator
from functools import partial

from smoothcluster.jobs.access import Access
from smoothcluster.model import Outcome
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.keys import last_part
from smoothcluster.records.results import outcomes
from smoothcluster.records.tail import TailRecord

BATCH_RECORDS = 32
"""Number of results records read in a step."""


def read_outcomes(access: Access, job: str, shard: int, *, sink: bool) -> Iterator[Outcome]:
    """Iterate over the outcomes of a job in a shard, and read a few records at a time.

    With *sink*, outcomes that lie in a results sink follow. The store is read first: an outcome that moves meanwhile is
    then found in the sink, because the commit that deletes the record sets the tail, too.
    """
    directory = access.store.keys.results(job, shard)
    found: set[str] = set()
    keys = access.ask(lambda: access.store.backend.keys(directory))
    for start in range(0, len(keys), BATCH_RECORDS):
        for entry in access.ask(lambda part=keys[start : start + BATCH_RECORDS]: access.store.backend.get_many(part)):  # type: ignore[misc]  # mypy cannot infer a lambda's default
            if entry is None:
                continue
            try:
                yield from outcomes(entry.value, partial(access.report, entry.key))
            except GarbageError as error:
                access.report(entry.key, str(error))
            found.add(last_part(entry.key).lstrip("0") or "0")
    if sink:
        yield from _read_sink(access, access.store.keys.tail(job, shard), found)


def _read_sink(access: Access, key: str, found: set[str]) -> Iterator[Outcome]:
    """Iterate over the outcomes in the sink, without those of the commits in *found*, which the store has."""
    entry = access.ask(lambda: access.store.backend.get(key))
    if entry is None:
        return
    try:
        record = TailRecord.from_json(entry.value)
        for seq, outcome in access.sinks.get(record.sink).read(record.part, record.tail):
            if str(seq) not in found:
                yield outcome
    except GarbageError as error:
        access.report(key, str(error))
