"""Reading the outcomes of a job."""

from collections.abc import Iterator
from functools import partial

from smoothcluster.jobs.access import Access
from smoothcluster.model import Outcome
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.results import outcomes

BATCH_RECORDS = 32
"""Number of results records read in a step."""


def read_outcomes(access: Access, directory: str) -> Iterator[Outcome]:
    """Iterate over the outcomes in a directory of results, and read a few records at a time."""
    keys = access.ask(lambda: access.store.backend.keys(directory))
    for start in range(0, len(keys), BATCH_RECORDS):
        for entry in access.ask(lambda part=keys[start : start + BATCH_RECORDS]: access.store.backend.get_many(part)):  # type: ignore[misc]  # mypy cannot infer a lambda's default
            if entry is None:
                continue
            try:
                yield from outcomes(entry.value, partial(access.report, entry.key))
            except GarbageError as error:
                access.report(entry.key, str(error))
