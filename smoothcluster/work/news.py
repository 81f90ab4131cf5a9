"""News of one shard for the store: what the next commit is built from, and can be built from anew."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import final

from smoothcluster.pool import Run
from smoothcluster.records.shard import Shard
from smoothcluster.work.outbox import Moved
from smoothcluster.work.pauses import Place


@final
@dataclass
class News:
    """What the store does not know yet of a shard's tasks."""

    finished: deque[Run] = field(default_factory=deque[Run])
    oldest: float | None = None
    """The time at which the first run in `finished` arrived."""
    handed_back: list[Place] = field(default_factory=list[Place])
    """Tasks marked as running that the pool has not started."""
    forgotten: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Finished jobs, each with the keys to delete."""
    moved: dict[str, Moved] = field(default_factory=dict[str, Moved])
    """Jobs with outcomes that the results sink has."""

    def __bool__(self) -> bool:
        return bool(self.finished or self.handed_back or self.forgotten or self.moved)

    def add(self, run: Run, now: float) -> None:
        """Add a finished run."""
        self.finished.append(run)
        if self.oldest is None:
            self.oldest = now

    def drop_deletes(self) -> None:
        """Forget which records are to be deleted: the store may have been set back."""
        self.forgotten.clear()
        self.moved.clear()

    def save(self) -> Callable[[], None]:
        """Return a function that restores the present state, with the tasks that each run adds."""
        finished, oldest, handed_back = deque(self.finished), self.oldest, list(self.handed_back)
        forgotten = {job: list(keys) for job, keys in self.forgotten.items()}
        moved = {job: each.copy() for job, each in self.moved.items()}
        added = [(run, run.added, run.added_encoded) for run in finished if run.added]

        def restore() -> None:
            self.finished, self.oldest, self.handed_back, self.forgotten = finished, oldest, handed_back, forgotten
            self.moved = moved
            for run, tasks, texts in added:
                run.added, run.added_encoded = tasks, texts

        return restore


def save_all(record: Shard, parts: Iterable[Callable[[], Callable[[], None]]]) -> Callable[[], None]:
    """Return a function that restores the present state of *record* and of *parts*, given by their methods `save`."""
    before, restores = record.copy(), [save() for save in parts]

    def restore() -> None:
        for each in fields(before):  # The same object: the backlog, the suspects and the pauses have it, too.
            setattr(record, each.name, getattr(before, each.name))
        for part in restores:
            part()

    return restore
