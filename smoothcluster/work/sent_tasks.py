"""Memory of the tasks that this process has added to jobs: bounded, and every step takes constant time."""

from collections.abc import Iterable

from smoothcluster.jobs.digest_set import DigestSet

Mark = tuple[str, bytes]
"""A task of a job, by digest."""

LEAST_REMEMBERED_TASKS = 100_000
"""How many of the latest tasks `SentTasks` certainly remembers; twice as many at most."""


class SentTasks:
    """Digests of tasks already added by this process, so a link found often is sent once.

    The memory has two generations. Once the newer generation is full, the older generation is dropped as a whole, and
    the newer generation takes its place. To forget a task costs one write: the task is sent again when a handler finds
    the link again, and the shard's owner skips the repeat.

    Only acknowledged tasks are remembered. If a repeat were left out because of a commit that never happened, the task
    would be lost. So an answer "remembered" must be exact, too, and `DigestSet` is exact.
    """

    def __init__(self, least: int = LEAST_REMEMBERED_TASKS) -> None:
        self._least = least
        self._newer: dict[str, DigestSet] = {}
        self._older: dict[str, DigestSet] = {}
        self._count = 0
        """Number of tasks in the newer generation."""

    def __contains__(self, mark: Mark) -> bool:
        job, digest = mark
        return digest in self._newer.get(job, ()) or digest in self._older.get(job, ())

    def clear(self) -> None:
        """Forget all tasks: the store may have lost acknowledged tasks."""
        self._newer, self._older, self._count = {}, {}, 0

    def add(self, marks: Iterable[Mark]) -> None:
        """Remember acknowledged tasks."""
        for job, digest in marks:
            if self._count >= self._least:
                self._newer, self._older, self._count = {}, self._newer, 0
            known = self._newer.get(job)
            if known is None:
                known = self._newer[job] = DigestSet()
            self._count += known.add(digest)
